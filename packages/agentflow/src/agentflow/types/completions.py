"""Completions on the wire: the same question asked of many items. Batches take the same operations."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from agentflow.types.base import RequestModel, ResponseModel
from agentflow.types.runs import Usage

T = TypeVar("T")
Operation = Literal["run", "label", "extract", "summarize", "enrich"]
FieldType = Literal["string", "number", "integer", "boolean", "date", "array"]
Instructions = Field(default=None, max_length=100_000)


class CompletionItem(RequestModel):
    """One item: what is looked at, and what is known of it."""

    content: str = Field(default="", max_length=2_000_000)
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])


class _Spec(RequestModel):
    """What every operation takes besides its own fields."""

    model: str | None = Field(default=None, min_length=1, max_length=300)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)


class LabelSpec(_Spec):
    """Put each item into one of the categories, or (`multi_label`) into all that apply."""

    categories: list[str] = Field(min_length=1, max_length=500)
    multi_label: bool = False
    instructions: str | None = Instructions

    @model_validator(mode="after")
    def _distinct(self) -> "LabelSpec":
        if len(set(self.categories)) != len(self.categories) or not all(name.strip() for name in self.categories):
            raise ValueError("categories must be distinct and not empty")
        return self


class ExtractSpec(_Spec):
    """Read a structure out of each item: what `extraction_instructions` ask for, what `response_format` describes.

    Attributes:
        response_format: JSON Schema (draft 2020-12), or `{"type": "json_schema", "json_schema": {"schema": …}}`.
    """

    extraction_instructions: str | None = Instructions
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _something(self) -> "ExtractSpec":
        if not self.extraction_instructions and self.response_format is None:
            raise ValueError("extraction_instructions or response_format is needed")
        return self


class SummarizeSpec(_Spec):
    """Summarise each item."""

    summary_instructions: str | None = Instructions


class EnrichField(RequestModel):
    """A field to fill in.

    Attributes:
        valid_values: the only values it may have. required: it must have a value; otherwise null says that the item
            does not tell.
    """

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z_][A-Za-z0-9_\-]*$")
    type: FieldType = "string"
    description: str | None = Field(default=None, max_length=10_000)
    valid_values: list[str | int | float | bool] | None = Field(default=None, min_length=1, max_length=500)
    required: bool = False


class EnrichSpec(_Spec):
    """Fill in fields for each item. `include_context`: the model also sees the item's metadata."""

    fields: list[EnrichField] = Field(min_length=1, max_length=100)
    include_context: bool = False
    instructions: str | None = Instructions

    @model_validator(mode="after")
    def _distinct(self) -> "EnrichSpec":
        if len({field.name for field in self.fields}) != len(self.fields):
            raise ValueError("fields must have distinct names")
        return self


class RunSpec(_Spec):
    """Ask one's own question of each item.

    Attributes:
        user_prompt_template: `{content}` and `{name}` stand for the item's content and its metadata; `{{` is a brace.
        response_format: as for `ExtractSpec`; without it the answer is text.
    """

    system_prompt: str | None = Instructions
    user_prompt_template: str = Field(default="{content}", min_length=1, max_length=100_000)
    response_format: dict[str, Any] | None = None


Spec = LabelSpec | ExtractSpec | SummarizeSpec | EnrichSpec | RunSpec
Items = Field(min_length=1)


class LabelRequest(LabelSpec):
    """The body of the label route."""

    items: list[CompletionItem] = Items


class ExtractRequest(ExtractSpec):
    """The body of the extract route."""

    items: list[CompletionItem] = Items


class SummarizeRequest(SummarizeSpec):
    """The body of the summarize route."""

    items: list[CompletionItem] = Items


class EnrichRequest(EnrichSpec):
    """The body of the enrich route."""

    items: list[CompletionItem] = Items


class RunRequest(RunSpec):
    """The body of the run route."""

    items: list[CompletionItem] = Items


class Record(ResponseModel):
    """A value whose fields can be read as attributes or as items."""

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None


class ScoredLabel(Record):
    """A category, and how sure the model says it is: 0 to 1, its own word, not calibrated."""

    label: str
    confidence: float | None = None


class Label(Record):
    """Where an item belongs.

    Attributes:
        label, confidence: the category; with `multi_label` the surest one, None if none applies.
        labels: with `multi_label` all that apply, the surest first; otherwise the one.
    """

    label: str | None = None
    confidence: float | None = None
    labels: list[ScoredLabel] = Field(default_factory=list[ScoredLabel])


class Summary(Record):
    """An item in short."""

    summary: str


class Answer(Record):
    """The answer to one's own question; `output` is its structure if one was asked for."""

    text: str
    output: Any = None


class RowError(Record):
    """Why an item has no result."""

    code: str
    message: str


class CompletionRow(Record, Generic[T]):
    """What became of one item; either `result` or `error` is there."""

    index: int
    success: bool
    result: T | None = None
    error: RowError | None = None
    usage: Usage = Field(default_factory=Usage)
    cost: float | None = None


class Completion(Record, Generic[T]):
    """What became of all items, in their order. `usage` and `cost` are sums."""

    results: list[CompletionRow[T]]
    model: str
    succeeded: int = 0
    failed: int = 0
    usage: Usage = Field(default_factory=Usage)
    cost: float | None = None
