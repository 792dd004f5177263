"""One door to every model: routes a request to its provider, retries before the first chunk, bounds what runs at once.

Called by the runtime and by rooms that ask a model; knows no run.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

from agentflow.errors import (
    ModelError,
    ModelInterruptedError,
    ModelRateLimitedError,
    ModelTimeoutError,
    ModelUnavailableError,
    NotAvailableError,
    NotFoundError,
)

from agentflow_server.gateway import catalogue
from agentflow_server.gateway.catalogue import ModelInfo
from agentflow_server.gateway.memo import Memo
from agentflow_server.gateway.messages import (
    AssistantMessage,
    Attribution,
    DocumentPart,
    ImagePart,
    Message,
    ModelRequest,
    UserMessage,
)
from agentflow_server.gateway.settings import Endpoint, GatewaySettings
from agentflow_server.gateway.stream import Chunk, Completed

__all__ = ["Gateway", "GatewaySettings", "Provider"]
_IMAGE_TOKENS = 1_000


class Provider(Protocol):
    """A provider's side of the port."""

    def stream(self, request: ModelRequest, model: str) -> AsyncGenerator[Chunk, None]:
        """Ask `model` (the provider's own name of it). Closing the generator closes the connection at once.

        Raises:
            ModelError: before the first chunk if nothing was answered; later if the answer broke off.
        """
        ...

    async def models(self) -> list[str]:
        """Names of the models it lists; empty if it does not."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


@runtime_checkable
class EmbeddingProvider(Protocol):
    """A provider that also gives embeddings."""

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in the order of the texts.

        Raises:
            ModelError: it refused, failed or did not answer.
        """
        ...


class Gateway:
    """The model port.

    Args:
        settings: which providers are configured.
        providers: further providers by name, in place of what the settings say; for tests and extensions.
    """

    def __init__(self, settings: GatewaySettings, providers: Mapping[str, Provider] | None = None) -> None:
        from agentflow_server.gateway.providers.scripted import ScriptedProvider

        self._settings = settings
        self._providers: dict[str, Provider] = {"agentflow": ScriptedProvider(), **(providers or {})}
        self._given = frozenset(self._providers)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._tokens: Memo[int] = Memo(_estimate)
        self._default: str | None = settings.default_model
        self._local: dict[str, ModelInfo] = {}

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[Chunk]]:
        """Ask a model. Leaving the context closes the connection to the provider.

        Raises:
            NotFoundError: there is no such provider. NotAvailableError: it is not configured.
            ModelError: it refused, failed, or did not answer in time.
        """
        name, provider, model = self._route(request.model)
        slot = self._slots.setdefault(name, asyncio.Semaphore(self._settings.concurrency))
        limit = request.timeout or self._settings.call_timeout
        clock = asyncio.timeout(limit)
        try:
            async with slot, clock:
                chunks, first = await self._open(provider, request, model)
                try:
                    yield self._priced(chunks, first, request.model)
                finally:
                    await chunks.aclose()
        except TimeoutError:
            if not clock.expired():
                raise
            raise ModelTimeoutError(f"{request.model} took longer than {limit:g} s for one answer") from None

    async def complete(self, request: ModelRequest) -> Completed:
        """Ask a model and wait for its whole answer.

        Raises:
            ModelInterruptedError: the answer broke off. Otherwise as `stream`.
        """
        async with self.stream(request) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Completed):
                    return chunk
        raise ModelInterruptedError(f"{request.model} ended its answer without saying that it is complete")

    def embeds(self, model_id: str) -> None:
        """Make sure that a model's provider is configured and gives embeddings.

        Raises:
            NotFoundError: there is no such provider. NotAvailableError: it is not configured, or has no embeddings.
        """
        self._embedding(model_id)

    def _embedding(self, model_id: str) -> tuple[str, EmbeddingProvider, str]:
        name, provider, model = self._route(model_id)
        if not isinstance(provider, EmbeddingProvider):
            raise NotAvailableError(f"{model_id}: {name} gives no embeddings here; OpenAI-compatible providers do")
        return name, provider, model

    async def embed(
        self, model_id: str, texts: Sequence[str], *, attribution: Attribution | None = None
    ) -> list[list[float]]:
        """Embeddings of texts, one a text; tried again as `stream` is.

        Args:
            attribution: for whom; every caller that acts for somebody says so.

        Raises:
            NotFoundError, NotAvailableError: as `embeds`. ModelError: the provider refused, failed or did not answer.
        """
        name, provider, model = self._embedding(model_id)
        slot = self._slots.setdefault(name, asyncio.Semaphore(self._settings.concurrency))
        attempt = 0
        while True:
            try:
                async with slot, asyncio.timeout(self._settings.idle_timeout):
                    return await provider.embed(model, texts)
            except TimeoutError:
                raise ModelTimeoutError(f"{model_id} gave no embeddings in time") from None
            except (ModelRateLimitedError, ModelUnavailableError) as error:
                attempt += 1
                if attempt > self._settings.retries or (error.retry_after or 0) > 60:
                    raise
                await asyncio.sleep(error.retry_after or 0.25 * 2**attempt * random.uniform(0.8, 1.2))

    async def _open(
        self, provider: Provider, request: ModelRequest, model: str
    ) -> tuple[AsyncGenerator[Chunk, None], Chunk]:
        attempt = 0
        while True:
            chunks = provider.stream(request, model)
            try:
                return chunks, await anext(chunks)
            except StopAsyncIteration:
                raise ModelUnavailableError(f"{request.model} answered with nothing") from None
            except (ModelRateLimitedError, ModelUnavailableError) as error:
                attempt += 1
                if attempt > self._settings.retries or (error.retry_after or 0) > 60:
                    raise
                pause = error.retry_after or 0.25 * 2**attempt * random.uniform(0.8, 1.2)
                await asyncio.sleep(pause)

    async def _priced(self, chunks: AsyncGenerator[Chunk, None], first: Chunk, model_id: str) -> AsyncIterator[Chunk]:
        yield self._price(first, model_id)
        async for chunk in chunks:
            yield self._price(chunk, model_id)

    def _price(self, chunk: Chunk, model_id: str) -> Chunk:
        if isinstance(chunk, Completed):
            return chunk._replace(model=model_id, cost=catalogue.cost_of(model_id, chunk.usage))
        return chunk

    def _route(self, model_id: str) -> tuple[str, Provider, str]:
        name, _, model = model_id.partition("/")
        if not model:
            raise NotFoundError(
                f"{model_id!r} is not a model: ids are written provider/model, for example openai/gpt-5"
            )
        provider = self._providers.get(name)
        if provider is None:
            endpoint = self._settings.endpoints.get(name)
            if endpoint is None:
                raise self._unconfigured(name, model_id)
            provider = self._providers[name] = _provider(name, endpoint, self._settings)
        return name, provider, model

    def _unconfigured(self, name: str, model_id: str) -> ModelError | NotFoundError | NotAvailableError:
        if any(model.provider == name for model in catalogue.BUILT_IN) or name in ("azure", "openrouter", "ollama"):
            return NotAvailableError(
                f"model: {model_id} needs the provider {name}, which has no key or address on this server",
                hint=f"Set {name.upper()}_API_KEY (or its base URL) where the server runs, or choose another model.",
            )
        return NotFoundError(f"there is no model {model_id!r}: GET /api/v1/models lists those there are")

    def model(self, model_id: str) -> ModelInfo:
        """What is known of a model that can be used.

        Raises:
            NotFoundError: there is no such model. NotAvailableError: its provider is not configured.
        """
        name, _, _ = self._route(model_id)
        known = catalogue.BY_ID.get(model_id) or self._local.get(model_id)
        if known is None and name == "agentflow":
            raise NotFoundError(f"there is no model {model_id!r}: GET /api/v1/models lists those there are")
        return (known or ModelInfo(model_id, model_id.split("/", 1)[1]))._replace(available=True)

    async def catalogue(self) -> list[ModelInfo]:
        """Every model that is known, local ones as their servers list them."""
        configured = {*self._settings.endpoints, *self._given}
        found = [model._replace(available=model.provider in configured) for model in catalogue.BUILT_IN]
        local = [name for name, endpoint in self._settings.endpoints.items() if endpoint.local]
        listed = await asyncio.gather(*(self._listed(name) for name in local))
        for name, models in zip(local, listed, strict=True):
            for model in models:
                info = ModelInfo(f"{name}/{model}", model, 32_768, available=True)
                self._local[info.id] = info
                found.append(info)
        return found

    async def _listed(self, name: str) -> list[str]:
        _, provider, _ = self._route(f"{name}/any")
        return await provider.models()

    async def default_model(self) -> str:
        """What an agent without a model of its own uses: the setting, else the best that is configured."""
        if self._default is None:
            self._default = await self._choose()
        return self._default

    async def _choose(self) -> str:
        for name, model in catalogue.PREFERRED.items():
            if name in self._settings.endpoints:
                return model
        for name, endpoint in self._settings.endpoints.items():
            if endpoint.local and (models := await self._listed(name)):
                return f"{name}/{models[0]}"
        return catalogue.SCRIPTED

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """About how many tokens messages take: a quarter of their characters, and a little for each."""
        count = self._tokens.get
        return sum([count(message) for message in messages])

    async def aclose(self) -> None:
        """Close every connection."""
        for provider in self._providers.values():
            await provider.aclose()


def _estimate(message: Message) -> int:
    if isinstance(message, UserMessage):
        size = 0
        for part in message.parts:
            if isinstance(part, ImagePart):
                size += _IMAGE_TOKENS * 4
            elif isinstance(part, DocumentPart):
                size += len(part.rendered())
            else:
                size += len(part.text)
        return size // 4 + 8
    if isinstance(message, AssistantMessage):
        return (len(message.text) + sum(len(call.arguments) + len(call.name) for call in message.tool_calls)) // 4 + 8
    text = message.content if message.role == "tool" else message.text
    return len(text) // 4 + 8


def _provider(name: str, endpoint: Endpoint, settings: GatewaySettings) -> Provider:
    if endpoint.kind in ("openai", "azure"):
        from agentflow_server.gateway.providers.openai_compatible import OpenAICompatible

        return OpenAICompatible(name, endpoint, settings)
    from agentflow_server.gateway.providers.pydantic_ai import PydanticAI

    return PydanticAI(name, endpoint, settings)
