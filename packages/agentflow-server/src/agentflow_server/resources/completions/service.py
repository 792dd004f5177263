"""Asks one question of many items: side by side within a bound, each item for itself. Called by routes and batches."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from agentflow.errors import (
    APIError,
    BudgetExceededError,
    InternalServerError,
    ModelAuthError,
    NotAvailableError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ValidationError,
)
from agentflow.types import runs
from agentflow.types.completions import Completion, CompletionItem, CompletionRow, RowError, Spec

from agentflow_server.gateway import Attribution, Gateway, ModelRequest, Usage
from agentflow_server.gateway.messages import AssistantMessage, Message, SystemMessage, TextPart, UserMessage
from agentflow_server.http.identity import Caller
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.completions.operations import SPECS, ItemRefusedError, Prepared, prepare
from agentflow_server.runtime.limits import MAX_REPAIRS
from agentflow_server.runtime.structured import OutputMismatchError
from agentflow_server.storage.errors import StorageUnavailableError

__all__ = ["FATAL", "SPECS", "CompletionsService", "Prepared", "Row", "failed", "prepare"]
logger = logging.getLogger(__name__)
FATAL = (BudgetExceededError, ModelAuthError, NotAvailableError, NotFoundError, PermissionDeniedError)
Row = CompletionRow[Any]


class CompletionsService:
    """The completions room."""

    def __init__(self, settings: Settings, gateway: Gateway) -> None:
        self._settings = settings
        self._gateway = gateway

    async def complete(self, caller: Caller, spec: Spec, items: Sequence[CompletionItem]) -> Completion[Any]:
        """Ask about every item and wait. A row that fails says why, and touches no other.

        Raises:
            PayloadTooLargeError: too many items at once. ValidationError, PermissionDeniedError: nothing can be asked.
            BudgetExceededError: the budget was used up before the first row.
        """
        limit = self._settings.completion_max_items
        if len(items) > limit:
            raise PayloadTooLargeError(
                f"items: there are {len(items)}; at most {limit} are answered within one request",
                details={"limit": limit},
                hint="Use client.batches.submit, which takes up to a million.",
            )
        model = await self.model(caller, spec.model)
        prepared = prepare(spec)
        attribution = Attribution(caller.tenant, caller.user_id, purpose="completion")
        slots = asyncio.Semaphore(self._settings.completion_concurrency)

        async def one(index: int, item: CompletionItem) -> Row:
            async with slots:
                answer = await self.attempt(prepared, spec, model, index, item, attribution)
                return failed(index, answer.code, answer.message) if isinstance(answer, APIError) else answer

        rows = await asyncio.gather(*(one(index, item) for index, item in enumerate(items)))
        if all(row.error is not None and row.error.code == BudgetExceededError.code for row in rows):
            raise BudgetExceededError(rows[0].error.message if rows[0].error else "the budget is used up")
        usage = sum((Usage(**row.usage.model_dump(exclude={"total_tokens"})) for row in rows), Usage())
        costs = [row.cost for row in rows if row.cost is not None]
        succeeded = sum(row.success for row in rows)
        return Completion(
            results=rows,
            model=model,
            succeeded=succeeded,
            failed=len(rows) - succeeded,
            usage=_usage(usage),
            cost=sum(costs) if costs else None,
        )

    async def model(self, caller: Caller, asked: str | None) -> str:
        """The model to use.

        Raises:
            ValidationError: there is none of this name. PermissionDeniedError: it may not be used.
        """
        try:
            return await self._gateway.choose(caller.tenant, caller.user_id, asked=asked, use_case="completions")
        except NotFoundError as error:
            raise ValidationError(
                f"model: {error.message}", details=[{"field": "model", "message": error.message}]
            ) from None

    async def attempt(
        self, prepared: Prepared, spec: Spec, model: str, index: int, item: CompletionItem, attribution: Attribution
    ) -> Row | APIError:
        """The row of an item, or what kept it from being asked about. A bug that one item meets is that item's alone.

        Raises:
            StorageUnavailableError: the database cannot be written.
        """
        task = asyncio.ensure_future(self._ask(prepared, spec, model, index, item, attribution))
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, StorageUnavailableError) or not isinstance(error, Exception):
            raise error
        if isinstance(error, APIError):
            return error
        logger.error("an item failed", extra={"tenant": attribution.tenant, "item": index}, exc_info=error)
        return InternalServerError("the server failed to answer this item")

    async def _ask(
        self, prepared: Prepared, spec: Spec, model: str, index: int, item: CompletionItem, attribution: Attribution
    ) -> Row:
        try:
            question = prepared.ask(item)
        except ItemRefusedError as refused:
            return failed(index, "invalid_item", str(refused))
        messages: list[Message] = [SystemMessage(text=prepared.system)] if prepared.system else []
        messages.append(question)
        usage, cost, problem = Usage(), None, ""
        for _ in range(MAX_REPAIRS + 1):
            completed = await self._gateway.complete(
                ModelRequest(
                    model=model,
                    messages=tuple(messages),
                    temperature=spec.temperature,
                    max_tokens=spec.max_tokens,
                    output_schema=prepared.output.json_schema if prepared.output else None,
                    output_name=prepared.output.name if prepared.output else None,
                    attribution=attribution,
                )
            )
            usage = usage + completed.usage
            cost = cost if completed.cost is None else (cost or 0.0) + completed.cost
            if completed.finish_reason == "content_filter":
                return failed(index, "content_filter", "the provider withheld the answer", usage, cost)
            try:
                value = prepared.read(completed.message.text)
            except OutputMismatchError as mismatch:
                problem = str(mismatch)
                messages += [AssistantMessage(text=completed.message.text), _repair(problem)]
                continue
            return Row(index=index, success=True, result=value, usage=_usage(usage), cost=cost)
        told = f"the model's answer does not fit after {MAX_REPAIRS} repairs: {problem}"
        return failed(index, "output_mismatch", told, usage, cost)


def failed(index: int, code: str, message: str, usage: Usage | None = None, cost: float | None = None) -> Row:
    """A row without a result."""
    return Row(
        index=index,
        success=False,
        error=RowError(code=code, message=message),
        usage=_usage(usage or Usage()),
        cost=cost,
    )


def _repair(problem: str) -> UserMessage:
    wish = f"Your answer does not fit the JSON Schema: {problem}. Answer again, with corrected JSON and nothing else."
    return UserMessage(parts=(TextPart(text=wish),))


def _usage(usage: Usage) -> runs.Usage:
    return runs.Usage(**usage.model_dump(), total_tokens=usage.total_tokens)
