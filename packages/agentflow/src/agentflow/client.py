"""`AgentFlow` and `AsyncAgentFlow`: one client is one tenant and one principal. Making one touches nothing."""

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from agentflow.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx2

    from agentflow._sync.agents import Agents
    from agentflow._sync.artifacts import Artifacts
    from agentflow._sync.attachments import Attachments
    from agentflow._sync.background import Background
    from agentflow._sync.batches import Batches
    from agentflow._sync.cached_results import CachedResults
    from agentflow._sync.cancellations import Cancellations
    from agentflow._sync.completions import Completions
    from agentflow._sync.conversations import Conversations
    from agentflow._sync.knowledge_bases import KnowledgeBases
    from agentflow._sync.memory import Memory
    from agentflow._sync.models import Models
    from agentflow._sync.prompt_blocks import PromptBlocks
    from agentflow._sync.runs import Runs
    from agentflow._sync.system import System
    from agentflow._sync.usage import Usage
    from agentflow.resources.agents import AsyncAgents
    from agentflow.resources.artifacts import AsyncArtifacts
    from agentflow.resources.attachments import AsyncAttachments
    from agentflow.resources.background import AsyncBackground
    from agentflow.resources.batches import AsyncBatches
    from agentflow.resources.cached_results import AsyncCachedResults
    from agentflow.resources.cancellations import AsyncCancellations
    from agentflow.resources.completions import AsyncCompletions
    from agentflow.resources.conversations import AsyncConversations
    from agentflow.resources.knowledge_bases import AsyncKnowledgeBases
    from agentflow.resources.memory import AsyncMemory
    from agentflow.resources.models import AsyncModels
    from agentflow.resources.prompt_blocks import AsyncPromptBlocks
    from agentflow.resources.runs import AsyncRuns
    from agentflow.resources.system import AsyncSystem
    from agentflow.resources.usage import AsyncUsage
    from agentflow.transport.drivers import AsyncTransport, Config, Credentials, SyncTransport
    from agentflow.transport.request import RawResponse, Timeout

DEFAULT_RETRIES = 2


class _Client:
    """What both clients are made from.

    Precedence: arguments, then the environment (`AGENTFLOW_ENDPOINT`, `AGENTFLOW_ACCESS_TOKEN`, `AGENTFLOW_CLIENT_ID`
    and the others of a machine), then the profile.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        access_token: str | None = None,
        profile: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        tenant: str | None = None,
        on_behalf_of: str | None = None,
        scope: str | None = None,
        audience: str | None = None,
        auth0_domain: str | None = None,
        credentials: "Credentials | None" = None,
        timeout: "Timeout | float | None" = None,
        max_retries: int = DEFAULT_RETRIES,
        default_headers: Mapping[str, str] | None = None,
        http_client: Any = None,
    ) -> None:
        if max_retries < 0:
            raise ConfigurationError(f"max_retries must not be negative, but is {max_retries}")
        self._endpoint = endpoint
        self._access_token = access_token
        self._machine = (client_id, client_secret, tenant, on_behalf_of, scope, audience, auth0_domain)
        self._credentials = credentials
        self._profile = profile
        self._timeout = timeout
        self._max_retries = max_retries
        self._headers = dict(default_headers or {})
        self._http_client = http_client

    @cached_property
    def _config(self) -> "Config":
        from agentflow.auth.credentials import Machine, resolve
        from agentflow.transport.drivers import Config
        from agentflow.transport.request import Timeout

        endpoint, credentials = resolve(
            self._endpoint, self._access_token, self._profile, os.environ, Machine(*self._machine), self._credentials
        )
        headers = {"User-Agent": _user_agent(), **self._headers}
        timeout = Timeout.of(self._timeout, Timeout())
        return Config(endpoint, credentials, timeout, self._max_retries, headers)

    @property
    def endpoint(self) -> str:
        """The address of the server.

        Raises:
            ConfigurationError: none is configured.
        """
        return self._config.endpoint

    @classmethod
    def from_profile(cls, name: str | None = None, **options: Any) -> Self:
        """A client for a profile that `agentflow login` has made.

        Args:
            name: by default `AGENTFLOW_PROFILE`, else the profile that `agentflow profiles use` has chosen.
            options: as for the constructor; they win over the profile.

        Raises:
            ProfileNotFoundError: there is no such profile. ProfileDamagedError: its file cannot be read.
        """
        from agentflow.auth.profiles import Profiles

        profiles = Profiles(os.environ)
        return cls(profile=profiles.load(name or profiles.current()).name, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(endpoint={self._endpoint!r}, profile={self._profile!r})"


def _user_agent() -> str:
    import platform

    from agentflow import __version__

    return f"agentflow-python/{__version__} ({platform.python_implementation()} {platform.python_version()})"


class AsyncAgentFlow(_Client):
    """The client for async code.

    Args:
        endpoint: address of the server, for example `http://127.0.0.1:8001`. access_token: a bearer token.
        profile: the name of a profile.
        client_id, client_secret, auth0_domain: sign in as a machine; `auth0_domain` may be any OpenID Connect issuer.
        tenant, on_behalf_of: whose data a machine works on, and for whom. scope, audience: what its token is for.
        credentials: of one's own, in place of all these (an object with `headers` and `renew`).
        timeout: seconds for a whole call, or a `Timeout` (connect, idle, total).
        max_retries: further attempts for calls that may be repeated.
        default_headers: sent with every request. http_client: an `httpx2.AsyncClient` of one's own; it is not closed.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. The client may be used again; it then opens new ones."""
        if "_transport" in self.__dict__:
            await self._transport.aclose()

    @cached_property
    def _transport(self) -> "AsyncTransport":
        from agentflow.transport.drivers import AsyncTransport

        client: httpx2.AsyncClient | None = self._http_client
        return AsyncTransport(self._config, client)

    async def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> "RawResponse":
        """Call any route; the answer as it came. Retried if the method is GET, PUT or DELETE.

        Raises:
            APIError, TransportError: as for every call.
        """
        return await self._transport.raw(_raw_request(method, path, query, body))

    @cached_property
    def agents(self) -> "AsyncAgents":
        """Agents, and running them."""
        from agentflow.resources.agents import AsyncAgents

        return AsyncAgents(self._transport)

    @cached_property
    def conversations(self) -> "AsyncConversations":
        """Conversations."""
        from agentflow.resources.conversations import AsyncConversations

        return AsyncConversations(self._transport)

    @cached_property
    def runs(self) -> "AsyncRuns":
        """Runs that were started before."""
        from agentflow.resources.runs import AsyncRuns

        return AsyncRuns(self._transport)

    @cached_property
    def artifacts(self) -> "AsyncArtifacts":
        """Typed things that agents make."""
        from agentflow.resources.artifacts import AsyncArtifacts

        return AsyncArtifacts(self._transport)

    @cached_property
    def cached_results(self) -> "AsyncCachedResults":
        """Large tool results that are kept for a while."""
        from agentflow.resources.cached_results import AsyncCachedResults

        return AsyncCachedResults(self._transport)

    @cached_property
    def background(self) -> "AsyncBackground":
        """Work that no run waits for."""
        from agentflow.resources.background import AsyncBackground

        return AsyncBackground(self._transport)

    @cached_property
    def cancellations(self) -> "AsyncCancellations":
        """Stop what is running."""
        from agentflow.resources.cancellations import AsyncCancellations

        return AsyncCancellations(self._transport)

    @cached_property
    def memory(self) -> "AsyncMemory":
        """What agents keep about the user."""
        from agentflow.resources.memory import AsyncMemory

        return AsyncMemory(self._transport)

    @cached_property
    def knowledge_bases(self) -> "AsyncKnowledgeBases":
        """Documents that agents can look things up in."""
        from agentflow.resources.knowledge_bases import AsyncKnowledgeBases

        return AsyncKnowledgeBases(self._transport)

    @cached_property
    def models(self) -> "AsyncModels":
        """The catalogue of models, and the tenant's rules about them."""
        from agentflow.resources.models import AsyncModels

        return AsyncModels(self._transport)

    @cached_property
    def attachments(self) -> "AsyncAttachments":
        """Files that runs can be given."""
        from agentflow.resources.attachments import AsyncAttachments

        return AsyncAttachments(self._transport)

    @cached_property
    def prompt_blocks(self) -> "AsyncPromptBlocks":
        """Named pieces of what a model is told."""
        from agentflow.resources.prompt_blocks import AsyncPromptBlocks

        return AsyncPromptBlocks(self._transport)

    @cached_property
    def usage(self) -> "AsyncUsage":
        """What was used, and what may be used."""
        from agentflow.resources.usage import AsyncUsage

        return AsyncUsage(self._transport)

    @cached_property
    def completions(self) -> "AsyncCompletions":
        """The same question asked of many items."""
        from agentflow.resources.completions import AsyncCompletions

        return AsyncCompletions(self._transport)

    @cached_property
    def batches(self) -> "AsyncBatches":
        """The same in the background, for very many items."""
        from agentflow.resources.batches import AsyncBatches

        return AsyncBatches(self._transport)

    @cached_property
    def system(self) -> "AsyncSystem":
        """The server itself."""
        from agentflow.resources.system import AsyncSystem

        return AsyncSystem(self._transport)


class AgentFlow(_Client):
    """The client for synchronous code; it may be used from many threads.

    Args:
        endpoint: address of the server, for example `http://127.0.0.1:8001`. access_token: a bearer token.
        profile: the name of a profile.
        client_id, client_secret, auth0_domain: sign in as a machine; `auth0_domain` may be any OpenID Connect issuer.
        tenant, on_behalf_of: whose data a machine works on, and for whom. scope, audience: what its token is for.
        credentials: of one's own, in place of all these (an object with `headers` and `renew`).
        timeout: seconds for a whole call, or a `Timeout` (connect, idle, total).
        max_retries: further attempts for calls that may be repeated.
        default_headers: sent with every request. http_client: an `httpx2.Client` of one's own; it is not closed.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The client may be used again; it then opens new ones."""
        if "_transport" in self.__dict__:
            self._transport.close()

    @cached_property
    def _transport(self) -> "SyncTransport":
        from agentflow.transport.drivers import SyncTransport

        client: httpx2.Client | None = self._http_client
        return SyncTransport(self._config, client)

    def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> "RawResponse":
        """Call any route; the answer as it came. Retried if the method is GET, PUT or DELETE.

        Raises:
            APIError, TransportError: as for every call.
        """
        return self._transport.raw(_raw_request(method, path, query, body))

    @cached_property
    def agents(self) -> "Agents":
        """Agents, and running them."""
        from agentflow._sync.agents import Agents

        return Agents(self._transport)

    @cached_property
    def conversations(self) -> "Conversations":
        """Conversations."""
        from agentflow._sync.conversations import Conversations

        return Conversations(self._transport)

    @cached_property
    def runs(self) -> "Runs":
        """Runs that were started before."""
        from agentflow._sync.runs import Runs

        return Runs(self._transport)

    @cached_property
    def artifacts(self) -> "Artifacts":
        """Typed things that agents make."""
        from agentflow._sync.artifacts import Artifacts

        return Artifacts(self._transport)

    @cached_property
    def cached_results(self) -> "CachedResults":
        """Large tool results that are kept for a while."""
        from agentflow._sync.cached_results import CachedResults

        return CachedResults(self._transport)

    @cached_property
    def background(self) -> "Background":
        """Work that no run waits for."""
        from agentflow._sync.background import Background

        return Background(self._transport)

    @cached_property
    def cancellations(self) -> "Cancellations":
        """Stop what is running."""
        from agentflow._sync.cancellations import Cancellations

        return Cancellations(self._transport)

    @cached_property
    def memory(self) -> "Memory":
        """What agents keep about the user."""
        from agentflow._sync.memory import Memory

        return Memory(self._transport)

    @cached_property
    def knowledge_bases(self) -> "KnowledgeBases":
        """Documents that agents can look things up in."""
        from agentflow._sync.knowledge_bases import KnowledgeBases

        return KnowledgeBases(self._transport)

    @cached_property
    def models(self) -> "Models":
        """The catalogue of models, and the tenant's rules about them."""
        from agentflow._sync.models import Models

        return Models(self._transport)

    @cached_property
    def attachments(self) -> "Attachments":
        """Files that runs can be given."""
        from agentflow._sync.attachments import Attachments

        return Attachments(self._transport)

    @cached_property
    def prompt_blocks(self) -> "PromptBlocks":
        """Named pieces of what a model is told."""
        from agentflow._sync.prompt_blocks import PromptBlocks

        return PromptBlocks(self._transport)

    @cached_property
    def usage(self) -> "Usage":
        """What was used, and what may be used."""
        from agentflow._sync.usage import Usage

        return Usage(self._transport)

    @cached_property
    def completions(self) -> "Completions":
        """The same question asked of many items."""
        from agentflow._sync.completions import Completions

        return Completions(self._transport)

    @cached_property
    def batches(self) -> "Batches":
        """The same in the background, for very many items."""
        from agentflow._sync.batches import Batches

        return Batches(self._transport)

    @cached_property
    def system(self) -> "System":
        """The server itself."""
        from agentflow._sync.system import System

        return System(self._transport)


def _raw_request(method: str, path: str, query: Mapping[str, Any] | None, body: Any) -> Any:
    from agentflow.transport.request import Request

    if not path.startswith("/"):
        raise ConfigurationError(f"a path begins with a slash, for example /api/v1/agents, not {path!r}")
    verb = method.upper()
    return Request(verb, path, dict(query or {}), body, repeatable=verb in ("GET", "HEAD", "PUT", "DELETE"))
