"""Generated from agentflow/resources/cached_results.py by tools/sync_generator.py: do not edit.

`client.cached_results`: large results of tools, kept for a while."""

from agentflow._sync.pages import Page
from agentflow._sync.runs import segment
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request
from agentflow.types.cached_results import CachedResult, CachedResultEntry, CachedResultPage


class CachedResults:
    """Results that were too large for the model, by conversation."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def retrieve(
        self, conversation_id: str, cache_id: str, *, offset: int = 0, limit: int | None = None
    ) -> CachedResult:
        """A result; the `cache_id` is in the tool call's result.

        Args:
            offset, limit: characters, for a piece of it.

        Raises:
            NotFoundError: there is nothing of this id, or its time is over.
        """
        query = {"offset": offset, "limit": limit}
        request = Request("GET", f"{_path(conversation_id)}/{segment(cache_id)}", query, repeatable=True)
        return self._transport.call(request, CachedResult)

    def list(self, conversation_id: str, *, limit: int = 50, offset: int = 0) -> Page[CachedResultEntry]:
        """A page of what is kept of a conversation, the newest first, without the results themselves."""
        query = {"limit": limit, "offset": offset}
        request = Request("GET", _path(conversation_id), query, repeatable=True)
        data = self._transport.call(request, CachedResultPage)

        def fetch(start: int) -> Page[CachedResultEntry]:
            return self.list(conversation_id, limit=limit, offset=start)

        return Page(data, "cached_results", fetch)


def _path(conversation_id: str) -> str:
    return f"/api/v1/conversations/{segment(conversation_id)}/cached-results"
