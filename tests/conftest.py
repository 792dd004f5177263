"""Fixtures that many tests share: a backend in this process, clients of it, and an environment of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agentflow import AgentFlow
from agentflow_server import testing
from agentflow_server.testing import LocalServer, ScriptedModel, local_server

from tests.postgres import PostgresServer, running_postgres
from tests.s3 import S3Server, running_s3

DATABASES = ("sqlite", "postgresql")
ON_EVERY_DATABASE = ("server", "e2e", "security")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database", choices=(*DATABASES, "both"), default="sqlite", help="what the backends of the tests run on"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the server on the wanted databases; those marked `embedded` on SQLite alone."""
    wanted = str(metafunc.config.getoption("--database"))
    folder = metafunc.definition.path.relative_to(Path(__file__).parent).parts[0]
    if "database" not in metafunc.fixturenames or folder not in ON_EVERY_DATABASE:
        return
    embedded = metafunc.definition.get_closest_marker("embedded") is not None
    chosen = DATABASES if wanted == "both" else (wanted,)
    metafunc.parametrize("database", ("sqlite",) if embedded else chosen, indirect=True, scope="session")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that tests of this session share."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3-compatible store that tests of this session share."""
    with running_s3() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the backends of a test run on: backends on one folder share a database, others get one of their own."""
    kind: str = getattr(request, "param", "sqlite")
    if kind == "sqlite":
        yield kind
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    known: dict[Path, str] = {}

    def database_of(folder: Path) -> str:
        if folder not in known:
            known[folder] = postgres.migrated()
        return known[folder]

    testing.default_database = database_of
    yield kind
    testing.default_database = None


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
def server(database: str) -> Iterator[LocalServer]:
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
