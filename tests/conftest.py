"""Fixtures that many tests share: a backend in this process, clients of it, and an environment of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agentflow import AgentFlow
from agentflow_server.testing import LocalServer, ScriptedModel, local_server


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # pyright: ignore[reportUnusedFunction]  # pytest uses it
    """No test sees the profiles or the keys of whoever runs it."""
    for name in ("AGENTFLOW_ENDPOINT", "AGENTFLOW_ACCESS_TOKEN", "AGENTFLOW_PROFILE", "OPENAI_API_KEY", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGENTFLOW_CONFIG_DIR", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    """A backend that tests of this session share."""
    with local_server(providers={"test": ScriptedModel()}) as running:
        yield running


@pytest.fixture
def client(server: LocalServer) -> Iterator[AgentFlow]:
    """A client of the shared backend."""
    with server.client() as connected:
        yield connected


@pytest.fixture
def agent_id(client: AgentFlow) -> str:
    """The id of MainAgent."""
    return client.agents.by_name("MainAgent").id
