"""Cached results: large results of tools, kept for a while in place of being shown whole to the model."""

import json
from typing import Any, cast

from agentflow.errors import NotFoundError
from agentflow.types.cached_results import CachedResult, CachedResultEntry, CachedResultPage

from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import SECOND, Clock, to_datetime
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.cached_results import store
from agentflow_server.resources.cached_results.store import CachedRecord
from agentflow_server.runtime.tools import ToolInvocation, ToolOutcome
from agentflow_server.storage import Database, Tx

_HEAD = 800
_KEYS = 30


class CachedResultsService:
    """The cached results room."""

    def __init__(self, db: Database, clock: Clock, settings: Settings) -> None:
        self._db = db
        self._clock = clock
        self.threshold = settings.cached_result_chars
        self._ttl = int(settings.cached_result_seconds * SECOND)

    async def list(self, caller: Caller, conversation_id: str, *, limit: int, offset: int) -> CachedResultPage:
        """A page of what is kept of a conversation, the newest first."""
        now = self._clock.micros()
        found, total = await self._db.tenant(caller.tenant).scan(
            lambda tx: store.page(tx, conversation_id, caller.user_id, now, limit=limit, offset=offset)
        )
        entries = [CachedResultEntry.model_validate(_entry(record)) for record in found]
        return CachedResultPage(cached_results=entries, total=total, limit=limit, offset=offset)

    async def record(self, tenant: str, user_id: str, conversation_id: str, cache_id: str) -> CachedRecord:
        """What is kept under an id.

        Raises:
            NotFoundError: there is nothing of this id in the user's conversation, or its time is over.
        """
        now = self._clock.micros()
        found = await self._db.tenant(tenant).scan(lambda tx: store.by_id(tx, conversation_id, cache_id, user_id, now))
        if found is None:
            raise NotFoundError(
                f"there is no cached result {cache_id!r} in this conversation",
                hint="Cached results expire: let the agent call the tool again.",
            )
        return found

    async def retrieve(
        self, caller: Caller, conversation_id: str, cache_id: str, *, offset: int, limit: int | None
    ) -> CachedResult:
        """A result, whole or a piece of it. Raises as `record`."""
        found = await self.record(caller.tenant, caller.user_id, conversation_id, cache_id)
        end = found.size if limit is None else min(found.size, offset + limit)
        piece = found.content[offset:end]
        further = end if end < found.size else None
        return CachedResult(**_entry(found), content=piece, offset=offset, next_offset=further)

    def shortened(self, invocation: ToolInvocation, name: str, outcome: ToolOutcome) -> ToolOutcome:
        """An outcome that is too large for the model, as a summary; the whole is kept with the end of the call."""
        run, now = invocation.context.run, self._clock.micros()
        summary = summary_of(outcome.content)
        record = CachedRecord(
            invocation.call_id, run.conversation_id, run.user_id, run.id, name, summary, outcome.content,
            len(outcome.content), now, now + self._ttl,
        )  # fmt: skip
        told = {"cache_id": record.id, "size": record.size, "summary": summary}
        content = (
            f"{summary}\n[The whole result has {record.size} characters and is kept as cache_id {record.id}:"
            " read_cached_result reads it in pieces.]"
        )

        def keep(tx: Tx) -> None:
            store.insert(tx, record)
            if outcome.also is not None:
                outcome.also(tx)

        metadata = {**outcome.metadata, "cache_id": record.id}
        return ToolOutcome(content, told, metadata=metadata, announce=outcome.announce, also=keep)

    def erase(self, tx: Tx, conversation_id: str) -> None:
        """A conversation is deleted: what is kept of it goes with it."""
        store.erase(tx, conversation_id)


def summary_of(content: str) -> str:
    """What a large result is, in few words: its shape, and how it begins."""
    head = content[:_HEAD]
    try:
        value = json.loads(content)
    except ValueError:
        return f"Text of {content.count(chr(10)) + 1} lines. It begins:\n{head}"
    if isinstance(value, list):
        items = cast("list[Any]", value)
        first = items[0] if items else None
        fields = ", ".join(list(cast("dict[str, Any]", first))[:_KEYS]) if isinstance(first, dict) else ""
        return f"A list of {len(items)} items{f' with the fields {fields}' if fields else ''}. It begins:\n{head}"
    if isinstance(value, dict):
        shapes = [f"{key} ({_shape(part)})" for key, part in list(cast("dict[str, Any]", value).items())[:_KEYS]]
        return f"An object with {', '.join(shapes)}. It begins:\n{head}"
    return f"A value. It begins:\n{head}"


def _shape(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(cast('list[Any]', value))} items"
    if isinstance(value, dict):
        return f"{len(cast('dict[str, Any]', value))} fields"
    return f"{len(value)} characters" if isinstance(value, str) else type(value).__name__


def _entry(record: CachedRecord) -> dict[str, Any]:
    return {
        "cache_id": record.id,
        "conversation_id": record.conversation_id,
        "run_id": record.run_id,
        "tool_name": record.tool_name,
        "summary": record.summary,
        "size": record.size,
        "created_at": to_datetime(record.created_at),
        "expires_at": to_datetime(record.expires_at),
    }
