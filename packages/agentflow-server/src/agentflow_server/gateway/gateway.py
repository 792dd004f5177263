"""One door to every model: routes a request to its provider, retries before the first chunk, bounds what runs at once.

Called by the runtime and by rooms that ask a model; knows no run.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol, runtime_checkable

from agentflow.errors import (
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
    TextPart,
    Usage,
    UserMessage,
)
from agentflow_server.gateway.metering import MeteredCall
from agentflow_server.gateway.ports import Embeddings, Meter, Policy, Preferred, UseCase
from agentflow_server.gateway.settings import Endpoint, GatewaySettings, is_known
from agentflow_server.gateway.stream import Chunk, Completed

__all__ = ["Gateway", "GatewaySettings", "Provider"]
_IMAGE_TOKENS = 1_000
_MAX_OWN_PROVIDERS = 256


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

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """One vector a text, in the order of the texts.

        Raises:
            ModelError: it refused, failed or did not answer.
        """
        ...


class _Route(NamedTuple):
    """The way to a model: `queue` names what is bounded together, `own` says that it is paid with the tenant's key."""

    queue: str
    provider: Provider
    model: str
    own: bool


class Gateway:
    """The model port.

    Args:
        settings: which providers are configured.
        providers: further providers by name, in place of what the settings say; for tests and extensions.
        policy: which models tenants may use, and with whose keys. meter: counts calls and keeps budgets.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        providers: Mapping[str, Provider] | None = None,
        *,
        policy: Policy | None = None,
        meter: Meter | None = None,
    ) -> None:
        from agentflow_server.gateway.providers.scripted import ScriptedProvider

        self._settings = settings
        self._policy = policy
        self._meter = meter
        self._own: OrderedDict[tuple[str, Endpoint], Provider] = OrderedDict()
        self._providers: dict[str, Provider] = {"agentflow": ScriptedProvider(), **(providers or {})}
        self._given = frozenset(self._providers)
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._turns: dict[str, float] = {}
        self._tokens: Memo[int] = Memo(_estimate)
        self._default: str | None = settings.default_model
        self._local: dict[str, ModelInfo] = {}

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[Chunk]]:
        """Ask a model. Leaving the context closes the connection to the provider.

        Raises:
            NotFoundError: there is no such provider. NotAvailableError: it is not configured.
            PermissionDeniedError: the tenant may not use the model. BudgetExceededError, RateLimitedError: see `Meter`.
            ModelError: it refused, failed, or did not answer in time.
        """
        tenant = request.attribution.tenant if request.attribution is not None else None
        route = await self._route_for(request.model, tenant)
        async with self._metered(request, route) as call, self._opened(request, route, call) as chunks:
            yield chunks

    @asynccontextmanager
    async def _metered(self, request: ModelRequest, route: _Route) -> AsyncGenerator[MeteredCall | None]:
        """The call between its reservation and its end, however it ends; None if it is not counted."""
        if self._meter is None or request.attribution is None:
            yield None
            return
        call = MeteredCall(self._meter, request.attribution, request, self.count_tokens)
        call.own_key = route.own
        await call.open()
        error: BaseException | None = None
        try:
            yield call
        except BaseException as caught:
            error = caught
            raise
        finally:
            call.end(error)

    @asynccontextmanager
    async def _opened(
        self, request: ModelRequest, route: _Route, call: MeteredCall | None
    ) -> AsyncGenerator[AsyncIterator[Chunk]]:
        slot = self._slots.setdefault(route.queue, asyncio.Semaphore(self._settings.concurrency))
        limit = request.timeout or self._settings.call_timeout
        clock = asyncio.timeout(limit)
        try:
            await self._turn(route.queue)
            async with slot, clock:
                chunks, first = await self._open(route.provider, request, route.model)
                try:
                    yield self._priced(chunks, first, request.model, call)
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

    async def _turn(self, queue: str) -> None:
        """Wait for this call's turn, where calls a minute are limited."""
        if self._settings.rate_limit:
            now = asyncio.get_running_loop().time()
            turn = max(now, self._turns.get(queue, now))
            self._turns[queue] = turn + 60 / self._settings.rate_limit
            await asyncio.sleep(turn - now)

    async def embeds(self, tenant: str, model_id: str) -> None:
        """Make sure that a tenant can have embeddings of a model.

        Raises:
            NotFoundError: there is no such provider. NotAvailableError: it is not configured, or has no embeddings.
            PermissionDeniedError: the tenant may not use it.
        """
        await self._embedding(model_id, tenant)

    async def _embedding(self, model_id: str, tenant: str) -> tuple[_Route, EmbeddingProvider]:
        route = await self._route_for(model_id, tenant)
        if not isinstance(route.provider, EmbeddingProvider):
            name, _ = _split(model_id)
            raise NotAvailableError(f"{model_id}: {name} gives no embeddings here; OpenAI-compatible providers do")
        return route, route.provider

    async def embed(self, model_id: str, texts: Sequence[str], *, attribution: Attribution) -> list[list[float]]:
        """Embeddings of texts, one a text; metered, and tried again as `stream` is.

        Args:
            attribution: for whom.

        Raises:
            NotFoundError, NotAvailableError, PermissionDeniedError: as `embeds`. BudgetExceededError: see `Meter`.
            ModelError: the provider refused, failed or did not answer.
        """
        said = tuple(UserMessage(parts=(TextPart(text=text),)) for text in texts)
        request = ModelRequest(model_id, said, max_tokens=1, attribution=attribution)
        route, provider = await self._embedding(model_id, attribution.tenant)
        async with self._metered(request, route) as call:
            vectors, tokens = await self._embedded(route, provider, model_id, texts)
            if call is not None:
                call.completed(Usage(input_tokens=tokens or self.count_tokens(said), requests=1), tokens is None)
        return vectors

    async def _embedded(
        self, route: _Route, provider: EmbeddingProvider, model_id: str, texts: Sequence[str]
    ) -> Embeddings:
        slot = self._slots.setdefault(route.queue, asyncio.Semaphore(self._settings.concurrency))
        attempt = 0
        while True:
            try:
                async with slot, asyncio.timeout(self._settings.idle_timeout):
                    return await provider.embed(route.model, texts)
            except TimeoutError:
                raise ModelTimeoutError(f"{model_id} gave no embeddings in time") from None
            except (ModelRateLimitedError, ModelUnavailableError) as error:
                attempt += 1
                await self._before_retry(attempt, error)

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
                await self._before_retry(attempt, error)

    async def _before_retry(self, attempt: int, error: ModelRateLimitedError | ModelUnavailableError) -> None:
        """Wait; raises the error where it is not worth the n-th retry."""
        if attempt > self._settings.retries or (error.retry_after or 0) > 60:
            raise error
        await asyncio.sleep(error.retry_after or 0.25 * 2**attempt * random.uniform(0.8, 1.2))

    async def _priced(
        self, chunks: AsyncGenerator[Chunk, None], first: Chunk, model_id: str, call: MeteredCall | None
    ) -> AsyncIterator[Chunk]:
        yield self._seen(first, model_id, call)
        async for chunk in chunks:
            yield self._seen(chunk, model_id, call)

    def _seen(self, chunk: Chunk, model_id: str, call: MeteredCall | None) -> Chunk:
        if isinstance(chunk, Completed):
            chunk = chunk._replace(model=model_id, cost=catalogue.cost_of(model_id, chunk.usage))
        if call is not None:
            call.note(chunk)
        return chunk

    async def _route_for(self, model_id: str, tenant: str | None) -> _Route:
        """The way to a model for whoever asks."""
        if self._policy is not None and tenant is not None:
            endpoint = await self._policy.endpoint(tenant, model_id)
            if endpoint is not None:
                name, _, model = model_id.partition("/")
                return _Route(f"{tenant}:{name}", await self._own_provider(name, endpoint), model, True)
        name, provider, model = self._route(model_id)
        return _Route(name, provider, model, False)

    async def _own_provider(self, name: str, endpoint: Endpoint) -> Provider:
        """The provider for a tenant's endpoint. Those that were not used for longest are closed."""
        key = (name, endpoint)
        provider = self._own.pop(key, None) or _provider(name, endpoint, self._settings)
        self._own[key] = provider
        if len(self._own) > _MAX_OWN_PROVIDERS:
            _, oldest = self._own.popitem(last=False)
            await oldest.aclose()
        return provider

    def _route(self, model_id: str) -> tuple[str, Provider, str]:
        """The server's own way to a model."""
        name, model = _split(model_id)
        provider = self._providers.get(name)
        if provider is None:
            endpoint = self._settings.endpoints.get(name)
            if endpoint is None:
                raise self._unconfigured(name, model_id)
            provider = self._providers[name] = _provider(name, endpoint, self._settings)
        return name, provider, model

    def _unconfigured(self, name: str, model_id: str) -> NotFoundError | NotAvailableError:
        if is_known(name):
            return NotAvailableError(
                f"model: {model_id} needs the provider {name}, which has no key or address on this server",
                hint=f"Set {name.upper()}_API_KEY (or its base URL) where the server runs, or choose another model.",
            )
        return _no_model(model_id)

    def knows(self, provider: str) -> bool:
        """Whether there is a provider of this name, configured or not."""
        return provider in self._providers or is_known(provider)

    def model(self, model_id: str) -> ModelInfo:
        """What is known of a model, whether it may be used or not; see `admit`.

        Raises:
            NotFoundError: there is no such model.
        """
        name, model = _split(model_id)
        known = catalogue.BY_ID.get(model_id) or self._local.get(model_id)
        if known is None and (name == "agentflow" or not self.knows(name)):
            raise _no_model(model_id)
        return known or ModelInfo(model_id, model)

    async def admit(self, tenant: str, model_id: str) -> ModelInfo:
        """Check that a tenant can use a model.

        Raises:
            NotFoundError: there is no such model. NotAvailableError: its provider is not configured.
            PermissionDeniedError: the tenant may not use it.
        """
        info = self.model(model_id)
        if self._policy is None or await self._policy.endpoint(tenant, model_id) is None:
            self._route(model_id)
        return info._replace(available=True)

    async def choose(
        self,
        tenant: str,
        user_id: str,
        *,
        asked: str | None = None,
        agent: str | None = None,
        use_case: UseCase = "agent_chat",
    ) -> str:
        """The model to use, checked: the request's, else the user's, else the agent's, else the tenant's default for
        the use case, else the server's.

        Raises:
            NotFoundError, NotAvailableError, PermissionDeniedError: as `admit`; nothing else is used instead.
        """
        default = await self.default_model()
        preferred = Preferred()
        if self._policy is not None and asked is None:
            preferred = await self._policy.preferred(tenant, user_id, use_case, default)
        model = asked or preferred.user or agent or preferred.tenant or default
        await self.admit(tenant, model)
        return model

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
        """The server's default: the setting, else the best that is configured. `choose` asks for it last."""
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
        for provider in (*self._providers.values(), *self._own.values()):
            await provider.aclose()
        if self._meter is not None:
            await self._meter.aclose()


def _split(model_id: str) -> tuple[str, str]:
    name, _, model = model_id.partition("/")
    if not model:
        raise NotFoundError(f"{model_id!r} is not a model: ids are written provider/model, for example openai/gpt-5")
    return name, model


def _no_model(model_id: str) -> NotFoundError:
    return NotFoundError(f"there is no model {model_id!r}: GET /api/v1/models lists those there are")


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
