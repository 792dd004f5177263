"""`client.cached_results`: large results of tools, kept for a while."""

from agentflow.resources.pages import AsyncPage
from agentflow.resources.runs import segment
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.cached_results import CachedResult, CachedResultEntry, CachedResultPage


class AsyncCachedResults:
    """Results that were too large for the model, by conversation."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def retrieve(
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
        return await self._transport.call(request, CachedResult)

    async def list(self, conversation_id: str, *, limit: int = 50, offset: int = 0) -> AsyncPage[CachedResultEntry]:
        """A page of what is kept of a conversation, the newest first, without the results themselves."""
        query = {"limit": limit, "offset": offset}
        request = Request("GET", _path(conversation_id), query, repeatable=True)
        data = await self._transport.call(request, CachedResultPage)

        async def fetch(start: int) -> AsyncPage[CachedResultEntry]:
            return await self.list(conversation_id, limit=limit, offset=start)

        return AsyncPage(data, "cached_results", fetch)


def _path(conversation_id: str) -> str:
    return f"/api/v1/conversations/{segment(conversation_id)}/cached-results"
