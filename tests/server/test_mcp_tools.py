"""MCP tools against real servers, also such as hang, flood and die: the harm ends with their session."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import NotAvailableError, NotFoundError, ValidationError
from agentflow.events import ApprovalRequired, ToolProgress
from agentflow.types.tools import ToolRunResult
from agentflow_server.testing import local_server

from tests.crash.backend import free_port

SERVER = Path(__file__).with_name("mcp_server.py")
COMMAND: dict[str, Any] = {"command": sys.executable, "args": [str(SERVER)], "timeout": 15}


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serve(port: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not listening(port):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.fixture(scope="module")
def client() -> Iterator[AgentFlow]:
    with local_server(allow_private_addresses=True, allow_mcp_commands=True) as server, server.client() as connected:
        yield connected


@pytest.fixture
def agent(client: AgentFlow) -> Iterator[str]:
    made = client.agents.create(name="Caller", llm_config={"model": "agentflow/scripted"})
    yield made.id
    for server in client.agents.tools.mcp_servers(made.id):
        client.agents.tools.detach_mcp(made.id, server.id)
    client.agents.delete(made.id)


@pytest.fixture
def stdio(client: AgentFlow, agent: str) -> str:
    client.agents.tools.attach_mcp(agent, name="local", **COMMAND)
    return agent


@pytest.fixture
def port() -> Iterator[int]:
    number = free_port()
    process = serve(number)
    yield number
    process.kill()
    process.wait()


def code(result: ToolRunResult) -> str:
    assert result.is_error, result.result
    return result.result["error"]["code"]


def test_the_tools_of_a_command_become_the_agents(client: AgentFlow, stdio: str) -> None:
    tools = client.agents.tools
    [server] = tools.mcp_servers(stdio)
    assert (server.transport, server.name) == ("stdio", "local")
    names = {tool.name for tool in server.tools}
    assert {"add", "fail", "hang", "local_current_time"} <= names
    assert tools.retrieve(stdio, "add").parameters["required"] == ["left", "right"]
    assert tools.run(stdio, "add", {"left": 1, "right": 2}).result == {"result": 3}
    assert tools.run(stdio, "local_current_time").result == {"result": "mcp time"}
    with pytest.raises(ValidationError, match="arguments: left"):
        tools.run(stdio, "add", {"left": "one", "right": 2})
    said = client.agents.run(agent_id=stdio, message='[[tool add {"left": 20, "right": 22}]]')
    assert "42" in said.text
    events = list(tools.stream(stdio, "report", {"steps": 2}))
    reported = [event.content["progress"]["message"] for event in events if isinstance(event, ToolProgress)]
    assert reported == ["step 0", "step 1"]
    failed = tools.run(stdio, "fail")
    assert code(failed) == "tool_error"
    assert "does not work" in failed.result["error"]["message"]
    first = tools.retrieve(stdio, "add").id
    assert "add" in [tool.name for tool in tools.refresh_mcp(stdio, "local").tools]
    assert tools.retrieve(stdio, "add").id == first
    tools.detach_mcp(stdio, "local")
    with pytest.raises(NotFoundError):
        tools.retrieve(stdio, "add")


def test_a_call_may_need_approval(client: AgentFlow, agent: str) -> None:
    attached = client.agents.tools.attach_mcp(agent, name="gated", tools=["add"], require_approval=True, **COMMAND)
    assert [(tool.name, tool.require_approval) for tool in attached.tools] == [("add", True)]
    stream = client.agents.tools.stream(agent, "add", {"left": 1, "right": 1})
    for event in stream:
        if isinstance(event, ApprovalRequired):
            client.approvals.respond(event.id or "", "approved", modified_arguments={"left": 5, "right": 5})
    result = client.runs.retrieve(stream.run_id or "").result
    assert result
    assert result.raw["result"] == {"result": 10}


def test_a_server_that_hangs(client: AgentFlow, agent: str) -> None:
    client.agents.tools.attach_mcp(agent, name="slow", **{**COMMAND, "timeout": 3})
    assert code(client.agents.tools.run(agent, "hang")) == "tool_timeout"
    assert client.agents.tools.run(agent, "add", {"left": 1, "right": 1}).result == {"result": 2}


def test_a_server_that_dies(client: AgentFlow, stdio: str) -> None:
    assert code(client.agents.tools.run(stdio, "crash", timeout=20)) == "mcp_disconnected"
    assert client.agents.tools.run(stdio, "add", {"left": 1, "right": 1}).result == {"result": 2}


def test_a_server_that_floods(client: AgentFlow, stdio: str) -> None:
    assert code(client.agents.tools.run(stdio, "flood", timeout=20)) == "mcp_flood"
    assert code(client.agents.tools.run(stdio, "huge", timeout=20)) == "response_too_large"
    assert client.agents.tools.run(stdio, "add", {"left": 1, "right": 1}).result == {"result": 2}


def test_a_command_is_given_only_what_it_needs(client: AgentFlow, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("AGENTFLOW_SECRET_KEYS", "secret")
    attached = client.agents.tools.attach_mcp(agent, name="env", env={"TOKEN": "mine-alone"}, **COMMAND)
    assert attached.has_credentials
    assert "mine-alone" not in attached.model_dump_json()
    found = set(client.agents.tools.run(agent, "environment").result["result"])
    assert "TOKEN" in found
    assert found <= {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TOKEN"}


def test_what_a_command_has_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with local_server(allow_mcp_commands=True) as server, server.client() as client:
        own = client.agents.by_name("MainAgent").id
        client.agents.tools.attach_mcp(own, name="local", **COMMAND)
        parent = int(client.agents.tools.run(own, "child", {"path": str(note)}).result["result"])
    for pid in (parent, int(note.read_text())):
        assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_commands_and_private_addresses_need_an_admin() -> None:
    with local_server() as server, server.client() as client:
        own = client.agents.by_name("MainAgent").id
        with pytest.raises(NotAvailableError, match="command"):
            client.agents.tools.attach_mcp(own, name="local", **COMMAND)
        with pytest.raises(ValidationError, match="private address"):
            client.agents.tools.attach_mcp(own, name="home", url=f"http://127.0.0.1:{free_port()}/mcp")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"command": "/nothing/like/this"}, "command"),
        ({"command": sys.executable, "args": ["-c", "print('no protocol')"]}, "command"),
        ({"command": sys.executable, "args": ["-c", "import os\nwhile True: os.write(1, b'x' * 65536)"]}, "command"),
        ({"url": "http://127.0.0.1:1/mcp"}, "url"),
        ({**COMMAND, "tools": ["nothing"]}, "tools"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused(
    client: AgentFlow, agent: str, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        client.agents.tools.attach_mcp(agent, name="bad", **settings)
    assert caught.value.details[0]["field"] == field
    assert not client.agents.tools.mcp_servers(agent)


def test_streamable_http_and_a_server_that_comes_back(client: AgentFlow, agent: str, port: int) -> None:
    url = f"http://127.0.0.1:{port}/mcp"
    attached = client.agents.tools.attach_mcp(
        agent, name="web", url=url, credentials={"bearer": "a-long-token"}, timeout=3
    )
    assert attached.transport == "streamable_http"
    assert "a-long-token" not in attached.model_dump_json()
    assert client.agents.tools.run(agent, "add", {"left": 1, "right": 2}).result == {"result": 3}
    assert code(client.agents.tools.run(agent, "hang", timeout=20)) == "tool_timeout"
    assert client.agents.tools.run(agent, "add", {"left": 2, "right": 2}).result == {"result": 4}
    assert code(client.agents.tools.run(agent, "crash", timeout=20)) in ("mcp_disconnected", "tool_timeout")
    again = serve(port)
    try:
        outcomes = [client.agents.tools.run(agent, "add", {"left": 3, "right": 3}, timeout=20) for _ in range(2)]
        assert outcomes[-1].result == {"result": 6}
    finally:
        again.kill()
        again.wait()
