"""Generated from agentflow/resources/memory.py by tools/sync_generator.py: do not edit.

`client.memory`: what agents keep about the user, as blocks of text."""

from datetime import datetime

from agentflow._sync.pages import Page
from agentflow._sync.runs import segment
from agentflow._sync.streams import new_id
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request
from agentflow.types.memory import (
    Erasure,
    MemoryBlock,
    MemoryListScope,
    MemoryPage,
    MemoryRecallPage,
    MemoryRecallRequest,
    MemoryRecallResult,
    MemoryUpdate,
    UserExport,
)

_BASE = "/api/v1/memory"


class MemoryRecall(list[MemoryRecallResult]):
    """The entries that were found, the best first.

    Attributes:
        mode: `hybrid`, or `keyword` where the server has no embedding.
        pending: entries whose meaning is still being computed; until then they are found by their words.
    """

    def __init__(self, page: MemoryRecallPage) -> None:
        super().__init__(page.results)
        self.mode = page.mode
        self.pending = page.pending


class Memory:
    """The user's memory: `core` is in every prompt, `archival` is searched. With `agent_id`, an agent's own blocks."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def list(
        self, *, scope: MemoryListScope = "user", agent_id: str | None = None, limit: int = 50, offset: int = 0
    ) -> Page[MemoryBlock]:
        """A page of blocks; iterating it walks on through all.

        Args:
            scope: `user` for what every agent may know, `agent` for agents' own, `all` for both.
            agent_id: only blocks of this agent (and the user's, if the scope has them). limit: 1 to 100.
        """
        query = {"scope": scope, "agent_id": agent_id, "limit": limit, "offset": offset}
        data = self._transport.call(Request("GET", _BASE, query, repeatable=True), MemoryPage)

        def fetch(start: int) -> Page[MemoryBlock]:
            return self.list(scope=scope, agent_id=agent_id, limit=limit, offset=start)

        return Page(data, "blocks", fetch)

    def get(self, block_type: str, *, agent_id: str | None = None) -> MemoryBlock:
        """One block: `core` or `archival`.

        Args:
            agent_id: the agent's own block, in place of the user's.

        Raises:
            NotFoundError: nothing has been written there yet.
        """
        request = Request("GET", f"{_BASE}/{segment(block_type)}", {"agent_id": agent_id}, repeatable=True)
        return self._transport.call(request, MemoryBlock)

    def update(
        self,
        block_type: str,
        content: str,
        *,
        expected_updated_at: datetime | str | None = None,
        agent_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> MemoryBlock:
        """Replace the text of a block, or create it.

        Args:
            content: the whole text, one entry a line.
            expected_updated_at: `updated_at` of the block as it was read; None only to create a block.

        Raises:
            ConflictError: the block was changed since; `details["current"]` is the block as it is (None if it is gone).
            ValidationError: more than the block may hold; the details say by how much.
            NotFoundError: there is no such agent.
        """
        fields = {"content": content, "expected_updated_at": expected_updated_at, "agent_id": agent_id}
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        path = f"{_BASE}/{segment(block_type)}"
        body = MemoryUpdate.model_validate(fields).wire()
        return self._transport.call(Request("PUT", path, body=body, headers=headers, repeatable=True), MemoryBlock)

    def recall(
        self, query: str, *, agent_id: str | None = None, limit: int = 10, min_score: float | None = None
    ) -> MemoryRecall:
        """Find entries by words and meaning, the best first.

        Args:
            agent_id: search this agent's blocks too. limit: 1 to 100. min_score: leave out what scores lower (0 to 1).
        """
        wanted = MemoryRecallRequest(query=query, agent_id=agent_id, limit=limit, min_score=min_score)
        request = Request("POST", f"{_BASE}/recall", body=wanted.wire(), repeatable=True)
        return MemoryRecall(self._transport.call(request, MemoryRecallPage))

    def delete(
        self, block_type: str, *, agent_id: str | None = None, expected_updated_at: datetime | str | None = None
    ) -> None:
        """Remove a block.

        Args:
            expected_updated_at: remove it only if it has not been changed since.

        Raises:
            NotFoundError: there is none. ConflictError: it was changed since.
        """
        at = expected_updated_at.isoformat() if isinstance(expected_updated_at, datetime) else expected_updated_at
        query = {"agent_id": agent_id, "expected_updated_at": at}
        self._transport.raw(Request("DELETE", f"{_BASE}/{segment(block_type)}", query))

    def export(self) -> UserExport:
        """Everything the server holds about the user: memory, conversations, and whatever else is the user's."""
        return self._transport.call(Request("GET", f"{_BASE}/export", repeatable=True), UserExport)

    def erase(self, *, everything: bool = False) -> Erasure:
        """Erase the user's memory, in all scopes, for good.

        Args:
            everything: also the user's conversations and whatever else `export` shows.
        """
        return self._transport.call(Request("DELETE", _BASE, {"everything": everything}, repeatable=True), Erasure)
