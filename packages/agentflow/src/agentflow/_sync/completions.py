"""Generated from agentflow/resources/completions.py by tools/sync_generator.py: do not edit.

`client.completions`: the same question asked of many items, answered within one call."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter

from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.types.completions import (
    Answer,
    Completion,
    CompletionItem,
    EnrichField,
    EnrichRequest,
    ExtractRequest,
    Label,
    LabelRequest,
    RowError,
    RunRequest,
    SummarizeRequest,
    Summary,
)

T = TypeVar("T")
Item = str | Mapping[str, Any] | CompletionItem


class Completions:
    """Classify, extract, summarise, enrich, or ask one's own question. For many items see `client.batches`.

    Every method takes `items` (texts, or `{"content": …, "metadata": {…}}`) and gives rows in their order: each has
    `success`, and either `result` or `error`. A row that fails touches no other.
    """

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def classify(
        self,
        *,
        items: Sequence[Item],
        categories: Sequence[str],
        multi_label: bool = False,
        instructions: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: Timeout | float | None = None,
    ) -> Completion[Label]:
        """Put each item into one of the categories, or (`multi_label`) into all that apply.

        Args:
            categories: nothing else is ever answered. instructions: what the categories mean.
            timeout: seconds for the whole call, or a `Timeout`.

        Raises:
            PayloadTooLargeError: too many items for one call. APIError: nothing could be asked.
        """
        fields = {"categories": list(categories), "multi_label": multi_label, "instructions": instructions}
        options = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        body = LabelRequest.model_validate(given(fields, options, items)).wire()
        return self._ask("label", body, Label, timeout)

    def extract(
        self,
        *,
        items: Sequence[Item],
        extraction_instructions: str | None = None,
        output_type: Any = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: Timeout | float | None = None,
    ) -> Completion[Any]:
        """Read a structure out of each item.

        Args:
            extraction_instructions: what to look for.
            output_type: a pydantic model (or any type pydantic understands): each `result` is one. Or a JSON Schema.

        Raises:
            PayloadTooLargeError: too many items for one call. APIError: nothing could be asked.
        """
        fields = {"extraction_instructions": extraction_instructions, "response_format": response_format(output_type)}
        options = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        body = ExtractRequest.model_validate(given(fields, options, items)).wire()
        return self._ask("extract", body, output_type, timeout)

    def summarize(
        self,
        *,
        items: Sequence[Item],
        summary_instructions: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: Timeout | float | None = None,
    ) -> Completion[Summary]:
        """Summarise each item.

        Args:
            summary_instructions: how long, for whom, in which language.

        Raises:
            PayloadTooLargeError: too many items for one call. APIError: nothing could be asked.
        """
        options = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        fields = {"summary_instructions": summary_instructions}
        body = SummarizeRequest.model_validate(given(fields, options, items)).wire()
        return self._ask("summarize", body, Summary, timeout)

    def enrich(
        self,
        *,
        items: Sequence[Item],
        fields: Sequence[Mapping[str, Any] | EnrichField],
        include_context: bool = False,
        instructions: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: Timeout | float | None = None,
    ) -> Completion[dict[str, Any]]:
        """Fill in fields for each item.

        Args:
            fields: `{name, type, description, valid_values, required}` each; the type is string, number, integer,
                boolean, date or array. A field that nothing tells is None unless it is required.
            include_context: the model also sees the item's metadata.

        Raises:
            PayloadTooLargeError: too many items for one call. APIError: nothing could be asked.
        """
        wanted = [EnrichField.model_validate(field).model_dump(exclude_unset=True) for field in fields]
        own = {"fields": wanted, "include_context": include_context, "instructions": instructions}
        options = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        body = EnrichRequest.model_validate(given(own, options, items)).wire()
        return self._ask("enrich", body, None, timeout)

    def run(
        self,
        *,
        items: Sequence[Item],
        system_prompt: str | None = None,
        user_prompt_template: str | None = None,
        output_type: Any = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: Timeout | float | None = None,
    ) -> Completion[Answer]:
        """Ask one's own question of each item.

        Args:
            user_prompt_template: `{content}` and `{name}` stand for the item's content and its metadata.
            output_type: as for `extract`; then each `result.output` is one.

        Raises:
            PayloadTooLargeError: too many items for one call. APIError: nothing could be asked.
        """
        fields = {
            "system_prompt": system_prompt,
            "user_prompt_template": user_prompt_template,
            "response_format": response_format(output_type),
        }
        options = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        body = RunRequest.model_validate(given(fields, options, items)).wire()
        completion = self._ask("run", body, Answer, timeout)
        return typed(completion, output_type, "output")

    def _ask(self, operation: str, body: Any, result: Any, timeout: Timeout | float | None) -> Completion[Any]:
        request = Request("POST", f"/api/v1/completions/{operation}", body=body, timeout=timeout)
        return typed(self._transport.call(request, Completion[Any]), result)


def given(fields: Mapping[str, Any], options: Mapping[str, Any], items: Sequence[Item]) -> dict[str, Any]:
    """The body of a request: what was given, and the items."""
    known = {name: value for name, value in {**fields, **options}.items() if value is not None}
    return {**known, "items": [item_of(item) for item in items]}


def item_of(item: Item) -> dict[str, Any]:
    """An item as the wire has it."""
    if isinstance(item, str):
        return {"content": item}
    return item.wire() if isinstance(item, CompletionItem) else dict(item)


def response_format(output_type: Any) -> dict[str, Any] | None:
    """The JSON Schema of an output type; a schema stays what it is."""
    if output_type is None or isinstance(output_type, dict):
        return output_type
    return TypeAdapter(output_type).json_schema()


def typed(completion: Completion[Any], result: Any, part: str | None = None) -> Completion[Any]:
    """The rows with their results, or a part of them, as a type. A row that does not fit it becomes one that failed."""
    if result is None or isinstance(result, dict):
        return completion
    adapter: TypeAdapter[Any] = TypeAdapter(result)
    for row in completion.results:
        if not row.success:
            continue
        try:
            if part is None:
                row.result = adapter.validate_python(row.result)
            else:
                setattr(row.result, part, adapter.validate_python(getattr(row.result, part)))
        except ValueError as error:
            row.success, row.result = False, None
            row.error = RowError(code="output_mismatch", message=f"the result does not fit: {error}")
    return completion
