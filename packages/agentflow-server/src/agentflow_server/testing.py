"""A whole backend inside one's own process, with models that say what a test wants: for users' tests and ours.

    with local_server() as server, server.client() as client:
        result = client.agents.run(agent_id=client.agents.by_name("MainAgent").id, message="[[say hello]]")

It listens on a free loopback port and keeps its data in a temporary folder.
"""

import base64
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentflow import AgentFlow, AsyncAgentFlow

from agentflow_server.app import create_server
from agentflow_server.gateway import GatewaySettings
from agentflow_server.gateway.gateway import Provider
from agentflow_server.gateway.providers.scripted import Reply, ScriptedModel
from agentflow_server.kit.clock import Clock
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.prompt_blocks.builtin import DynamicBlock, EntityResolver, PromptContext
from agentflow_server.serving import listen, url_of, uvicorn_server

__all__ = ["DynamicBlock", "EntityResolver", "LocalServer", "PromptContext", "Reply", "ScriptedModel", "local_server"]

default_database: Callable[[Path], str] | None = None
"""Gives the PostgreSQL URL for a backend on a folder that is not told its `database_url`; None: it is embedded."""
_TEST_KEY = "test:" + base64.b64encode(b"a key that protects no secrets..").decode()


class LocalServer:
    """A running backend.

    Attributes:
        endpoint: its address. data: its folder.
    """

    def __init__(self, endpoint: str, data: Path) -> None:
        self.endpoint = endpoint
        self.data = data

    def client(self, **options: Any) -> AgentFlow:
        """A synchronous client; options as for `AgentFlow`."""
        return AgentFlow(endpoint=self.endpoint, **options)

    def async_client(self, **options: Any) -> AsyncAgentFlow:
        """An asynchronous client; options as for `AsyncAgentFlow`."""
        return AsyncAgentFlow(endpoint=self.endpoint, **options)


@contextmanager
def local_server(
    *,
    data: Path | None = None,
    providers: Mapping[str, Provider] | None = None,
    gateway_settings: GatewaySettings | None = None,
    clock: Clock | None = None,
    prompt_blocks: Sequence[DynamicBlock] = (),
    entity_resolvers: Sequence[EntityResolver] = (),
    **settings: Any,
) -> Generator[LocalServer]:
    """Start a backend in a thread of this process; it is stopped at the end of the block.

    Args:
        data: a folder that outlives the server; a temporary one by default.
        providers: model providers by the name they have in model ids, for example `{"test": ScriptedModel(["hi"])}`.
        prompt_blocks, entity_resolvers: functions that write prompt blocks and resolve `context_refs`.
        settings: fields of `Settings`; requests without credentials are let in unless `dev_auth_bypass=False`.
    """
    with tempfile.TemporaryDirectory(prefix="agentflow-") as temporary:
        folder = data or Path(temporary)
        if default_database is not None:
            settings.setdefault("database_url", default_database(folder))
            settings.setdefault("secret_keys", _TEST_KEY)
        defaults: dict[str, Any] = {"data": folder, "dev_auth_bypass": True, "port": 0}
        chosen = Settings(**{**defaults, **settings})
        server = create_server(
            chosen,
            gateway_settings=gateway_settings or GatewaySettings(),
            providers=providers,
            clock=clock,
            prompt_blocks=prompt_blocks,
            entity_resolvers=entity_resolvers,
        )
        listener = listen(chosen.host, 0)
        web = uvicorn_server(server, chosen)
        started = threading.Event()
        web.on_started = started.set
        thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]}, name="agentflow-server", daemon=True)
        thread.start()
        if not started.wait(30):
            raise RuntimeError("the server did not start")
        try:
            yield LocalServer(url_of(listener), folder)
        finally:
            server.begin_shutdown_from_thread()
            web.should_exit = True
            thread.join(30)
