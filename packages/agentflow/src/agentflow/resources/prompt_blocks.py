"""`client.prompt_blocks`: named pieces of what a model is told."""

from typing import Any

from agentflow.resources.pages import AsyncPage
from agentflow.resources.runs import Options, chat_request, segment
from agentflow.resources.streams import new_id
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.prompt_blocks import (
    PromptBlock,
    PromptBlockCreate,
    PromptBlockPage,
    PromptBlockPreview,
    PromptBlockPreviewRequest,
    PromptBlockUpdate,
    PromptPreview,
)


class AsyncPromptBlocks:
    """Prompt blocks of the tenant. They are addressed by name."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, *, name: str, idempotency_key: str | None = None, **fields: Any) -> PromptBlock:
        """Add a static block.

        Args:
            fields: `body`, which the model sees as `<name>`, the text, `</name>`, a line each; `description`, `message`
                (`system`, `user`), `mode` (`cached`, `real_time`), `scope` (`conversation`, `turn`), `tags`, `order`,
                `ttl` (seconds), `agents` (ids or names), `enabled`, as in `PromptBlockCreate`.

        Raises:
            ConflictError: the name is taken. ValidationError: a field does not hold.
        """
        content = PromptBlockCreate.model_validate({"name": name, **fields}).wire()
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        request = Request("POST", "/api/v1/prompt-blocks", body=content, headers=headers, repeatable=True)
        return await self._transport.call(request, PromptBlock)

    async def list(self, *, limit: int = 50, offset: int = 0) -> AsyncPage[PromptBlock]:
        """A page of blocks in their order, the server's own among them; iterating it walks on through all.

        Args:
            limit: 1 to 100.
        """
        query = {"limit": limit, "offset": offset}
        request = Request("GET", "/api/v1/prompt-blocks", query, repeatable=True)
        data = await self._transport.call(request, PromptBlockPage)

        async def fetch(start: int) -> AsyncPage[PromptBlock]:
            return await self.list(limit=limit, offset=start)

        return AsyncPage(data, "prompt_blocks", fetch)

    async def retrieve(self, name: str) -> PromptBlock:
        """One block.

        Raises:
            NotFoundError: there is none of this name.
        """
        return await self._transport.call(Request("GET", _path(name), repeatable=True), PromptBlock)

    async def update(self, name: str, **changes: Any) -> PromptBlock:
        """Change a block; what is left out stays. The next run sees it.

        Args:
            changes: `body` (static blocks only), `description`, `message`, `mode`, `scope`, `tags`, `order`, `ttl`,
                `agents`, `enabled`. A `description` or `ttl` of None takes it away.

        Raises:
            NotFoundError: there is none. ValidationError: a dynamic block was given a `body`.
        """
        body = PromptBlockUpdate.model_validate(changes).wire()
        return await self._transport.call(Request("PATCH", _path(name), body=body, repeatable=True), PromptBlock)

    async def enable(self, name: str) -> PromptBlock:
        """Let runs have a block again.

        Raises:
            NotFoundError: there is none.
        """
        return await self.update(name, enabled=True)

    async def disable(self, name: str) -> PromptBlock:
        """Keep a block from runs.

        Raises:
            NotFoundError: there is none.
        """
        return await self.update(name, enabled=False)

    async def delete(self, name: str) -> None:
        """Remove a static block.

        Raises:
            NotFoundError: there is none. ConflictError: it comes with the server; it can be disabled.
        """
        await self._transport.raw(Request("DELETE", _path(name)))

    async def preview(self, name: str, **fields: Any) -> PromptBlockPreview:
        """A block as the model would see it (`.wrapped`); nothing is stored.

        Args:
            fields: `body` to try another text of a static block; for a dynamic one, what its function is told:
                `agent_id`, `message`, `client_timezone`.

        Raises:
            NotFoundError: there is none. ValidationError: a dynamic block was given a `body`, or its function failed.
        """
        body = PromptBlockPreviewRequest.model_validate(fields).wire()
        request = Request("POST", _path(name, "/preview"), body=body, repeatable=True)
        return await self._transport.call(request, PromptBlockPreview)

    async def preview_prompt(
        self, *, agent_id: str, message: str, options: Options = None, conversation_id: str | None = None
    ) -> PromptPreview:
        """The whole prompt a run would send, part by part with token counts; nothing is stored or sent.

        Args:
            options: as for `client.agents.run`. conversation_id: the conversation whose next message it would be.

        Raises:
            NotFoundError, ValidationError: as for `client.agents.run`.
        """
        chat = chat_request(
            agent_id, message, stream=False, options=options, conversation_id=conversation_id, message_id=None,
            output_type=None, timeout=None,
        )  # fmt: skip
        body = {**chat.body, "conversation_id": conversation_id}
        request = Request("POST", f"{chat.path}/preview", body=body, repeatable=True)
        return await self._transport.call(request, PromptPreview)

    async def invalidate_cache(self, name: str) -> PromptBlock:
        """Forget every kept text of a block, in all conversations; the next run writes it anew.

        Raises:
            NotFoundError: there is none.
        """
        request = Request("POST", _path(name, "/invalidate-cache"), repeatable=True)
        return await self._transport.call(request, PromptBlock)


def _path(name: str, rest: str = "") -> str:
    return f"/api/v1/prompt-blocks/{segment(name)}{rest}"
