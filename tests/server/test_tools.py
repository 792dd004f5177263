"""Tools through the SDK: registering, source in the sandbox, assignments, direct runs, code-defined ones."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import (
    ConfigurationError,
    ConflictError,
    NotAvailableError,
    NotFoundError,
    ValidationError,
)
from agentflow.events import FinalResponse, ToolFinished, ToolProgress, ToolStarted
from agentflow_server.testing import Reply, ScriptedModel, local_server

RATE = 1.2
ADD = "def add(left: int, right: int = 1) -> int:\n    return left + right\n"
SLOW = "async def slow() -> str:\n    import asyncio\n    await asyncio.sleep(20)\n    return 'done'\n"


def doubled(value: float) -> float:
    return value * 2


def price(net: float, rounded: bool = False) -> float:
    """Tell the price with tax.

    Args:
        net: without tax.
    """
    gross = doubled(net) / 2 * RATE
    return math.floor(gross) if rounded else gross


async def echo(text: str) -> dict[str, str]:
    """Say it again."""
    return {"said": text}


@pytest.fixture
def agent(client: AgentFlow) -> Iterator[str]:
    made = client.agents.create(name="Toolsmith", llm_config={"model": "agentflow/scripted"})
    yield made.id
    for tool in list(client.agents.tools.list(made.id)):
        client.agents.tools.delete(made.id, tool.id)
    client.agents.delete(made.id)


def call(client: AgentFlow, agent_id: str, name: str, arguments: str = "{}") -> ToolFinished:
    events = client.agents.stream(
        agent_id=agent_id, message=f"[[tool {name} {arguments}]] [[say done]]", options={"verbose": True}
    )
    return next(event for event in events if isinstance(event, ToolFinished))


def test_a_local_function_becomes_a_tool(client: AgentFlow, agent: str) -> None:
    tool = client.agents.tools.register(agent, price, tags=["money"])
    assert (tool.name, tool.description, tool.kind) == ("price", "Tell the price with tax.", "source")
    assert tool.parameters["properties"]["net"] == {"type": "number", "description": "without tax."}
    assert tool.parameters["required"] == ["net"]
    assert call(client, agent, "price", '{"net": 10}').result == 12.0
    assert call(client, agent, "price", '{"net": 10.9, "rounded": true}').result == 13
    registered = client.agents.tools.register(agent, echo)
    assert client.agents.tools.run(agent, registered.id, {"text": "hi"}).result == {"said": "hi"}
    assert [tool.name for tool in client.agents.tools.list(agent)] == ["price", "echo"]
    assert client.agents.get_config(agent).tools == ["price", "echo"]
    assert client.agents.retrieve(agent).tool_count == 2
    with pytest.raises(ConflictError, match="price"):
        client.agents.tools.register(agent, price)
    again = client.agents.tools.register(agent, price, replace=True, description="Other.")
    assert (again.id, again.description) == (tool.id, "Other.")


def closure(factor: int) -> Any:
    def inner(value: int) -> int:
        """Multiply."""
        return value * factor

    return inner


def undocumented(value: int) -> int:
    return value


def uses_an_object(value: int) -> str:
    """Use something that cannot travel."""
    return str(THING) + str(value)


THING = object()


def loud(function: Any) -> Any:
    return function


@loud
def decorated(value: int) -> int:
    """Something more is done to it."""
    return value


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda value: value, "lambda"),
        (closure(2), "closure over factor"),
        (len, "not a function written in Python"),
        (dict, "a class"),
        (undocumented, "no docstring"),
        (uses_an_object, "THING"),
        (decorated, "decorated"),
        (eval("(ns := {}, exec('def f(a):\\n \"d\"\\n return a', ns))[0]['f']"), "source cannot be read"),
    ],
)
def test_what_cannot_be_sent_says_why(client: AgentFlow, agent: str, function: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        client.agents.tools.register(agent, function)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "no name"}, "name"),
        ({"name": "1st"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"function_code": "import socket\ndef f(): ...\n"}, "line 1"),
        ({"function_code": "def f(:\n"}, "function_code"),
        ({"function_code": "x = 1\n"}, "function_code"),
        ({"function_code": "1/0\ndef f(): ...\n"}, "line 1"),
        ({"function_code": "while True: pass\ndef f(): ...\n"}, "function_code"),
        ({"args_schema": {"type": "nonsense"}}, "args_schema"),
        ({"args_schema": {"type": "object", "properties": {"other": {}}}}, "args_schema"),
        ({"args_schema": {"type": "object", "properties": {"right": {}}}}, "args_schema"),
        ({"max_retries": 2}, "max_retries"),
        ({"execution_timeout": 0}, "execution_timeout"),
        ({"param_descriptions": {"nope": "x"}}, "param_descriptions"),
        ({"credentials": {"bearer": "secret"}}, "credentials"),
        ({"http": {"url": "http://example.com"}}, "not both"),
    ],
)
def test_a_tool_that_does_not_hold_is_refused(
    client: AgentFlow, agent: str, change: dict[str, Any], field: str
) -> None:
    body = {"name": "bad", "description": "d", "function_code": ADD, **change}
    with pytest.raises(ValidationError, match=field):
        client.request("POST", f"/api/v1/agent/{agent}/tools", body=body)


def test_full_python_needs_an_admin(client: AgentFlow, agent: str) -> None:
    source = "import os\ndef where() -> str:\n    return os.sep\n"
    with pytest.raises(NotAvailableError, match="secure_execution"):
        client.agents.tools.create(agent, name="where", description="d", function_code=source, secure_execution=False)
    with local_server(allow_full_python=True) as server, server.client() as local:
        own = local.agents.by_name("MainAgent").id
        local.agents.tools.create(own, name="where", description="d", function_code=source, secure_execution=False)
        assert local.agents.tools.run(own, "where").result == "/"


def test_failures_are_told_to_the_model(client: AgentFlow, agent: str) -> None:
    source = "def fail(how: str) -> str:\n    if how == 'loop':\n        while True: pass\n    raise ValueError('no')\n"
    client.agents.tools.create(
        agent,
        name="fail",
        description="d",
        function_code=source,
        execution_timeout=0.5,
        param_descriptions={"how": "x"},
    )
    assert call(client, agent, "fail", '{"how": "loop"}').result["error"]["code"] == "tool_timeout"
    error = call(client, agent, "fail", '{"how": "raise"}').result["error"]
    assert error == {"code": "tool_error", "message": "ValueError: no"}
    assert call(client, agent, "fail", '{"what": 1}').result["error"]["code"] == "invalid_arguments"


def test_a_tool_is_shared_changed_and_taken_away(client: AgentFlow, agent: str, agent_id: str) -> None:
    tool = client.agents.tools.create(agent, name="add", description="Adds.", function_code=ADD, idempotent=True)
    other = client.agents.create(name="Other", tools=["add"])
    assert client.agents.tools.retrieve(other.id, tool.id).function_code == ADD
    assert sorted(client.agents.tools.retrieve(agent, "add").agent_ids) == sorted([agent, other.id])
    assert client.agents.tools.set_approval(other.id, "add", enabled=True, timeout=60).require_approval
    assert not client.agents.tools.retrieve(agent, "add").require_approval
    changed = client.agents.tools.update(
        agent,
        "add",
        function_code="def add(left: int) -> int:\n    return left + 100\n",
        description="More.",
        max_retries=2,
    )
    assert (changed.id, list(changed.parameters["properties"])) == (tool.id, ["left"])
    assert client.agents.tools.run(agent, "add", {"left": 1}).result == 101
    with pytest.raises(ValidationError, match="function_code"):
        client.agents.tools.update(agent, "add", function_code="import socket")
    client.agents.tools.unassign(agent, "add")
    with pytest.raises(NotFoundError, match="add"):
        client.agents.tools.retrieve(agent, "add")
    assert client.agents.tools.assign(agent, "add", require_approval=True).require_approval
    client.agents.tools.delete(other.id, "add")
    client.agents.tools.delete(agent, "add")
    with pytest.raises(NotFoundError):
        client.agents.tools.assign(agent, "add")
    with pytest.raises(NotFoundError, match="agent"):
        client.agents.tools.create("nobody", name="add", description="d", function_code=ADD)
    with pytest.raises(ConflictError, match="builtin"):
        client.agents.tools.update(agent_id, "current_time", description="x")
    assert "current_time" in [tool.name for tool in client.agents.tools.list()]
    client.agents.delete(other.id)


def test_a_dry_run_stores_nothing(client: AgentFlow, agent: str) -> None:
    source = "def add(left: int) -> int:\n    'Adds.'\n    print('adding')\n    progress(1)\n    return left + 1\n"
    good = client.agents.tools.test(agent, function_code=source, arguments={"left": 1})
    assert (good.ok, good.result, good.stdout, good.progress) == (True, 2, "adding\n", [1])
    assert (good.name, good.description) == ("add", "Adds.")
    bad = client.agents.tools.test(agent, function_code="import socket\ndef f(): ...")
    assert not bad.ok
    assert bad.error
    assert (bad.error["code"], bad.error["line"]) == ("tool_refused", 1)
    failed = client.agents.tools.test(agent, function_code="def f():\n    return 1 / 0\n")
    assert failed.error
    assert failed.error["code"] == "tool_error"
    assert not client.agents.tools.list(agent).items


def test_a_direct_run_is_a_run(client: AgentFlow, agent: str) -> None:
    source = "def count(n: int) -> int:\n    for i in range(n):\n        progress(i)\n    return n\n"
    tool = client.agents.tools.create(agent, name="count", description="Counts.", function_code=source)
    stream = client.agents.tools.stream(agent, "count", {"n": 2})
    events = list(stream)
    assert [type(event) for event in events] == [ToolStarted, ToolProgress, ToolProgress, FinalResponse]
    root = stream.call_id
    assert all((event.call_id, event.parent_call_id, event.root_call_id) == (root, None, root) for event in events)
    assert events[0].content["input"] == {"n": 2}
    assert events[-1].content["result"] == 2
    raw = list(client.agents.tools.stream_raw(agent, tool.id, {"n": 0}))
    assert [event["type"] for event in raw] == ["start", "end"]
    result = client.agents.tools.run(agent, "count", {"n": 1}, conversation_id="direct", message_id="m1")
    assert (result.result, result.is_error, result.name) == (1, False, "count")
    assert result.events
    assert [event["type"] for event in result.events] == ["start", "tool_progress", "end"]
    run = client.runs.retrieve(result.run_id)
    assert run.status == "completed"
    assert client.agents.tools.run(agent, "count", {"n": 1}, conversation_id="direct", message_id="m1").run_id == run.id
    with pytest.raises(ConflictError, match="m1"):
        client.agents.tools.run(agent, "count", {"n": 2}, conversation_id="direct", message_id="m1")
    assert client.conversations.messages("direct").total == 0
    calls = client.conversations.timeline("direct").calls
    assert [(one.name, one.role, one.status, one.result) for one in calls] == [("count", "tool", "completed", 1)]
    with pytest.raises(ValidationError, match="arguments"):
        client.agents.tools.run(agent, "count", {"m": 1})
    with pytest.raises(NotFoundError, match="current_time"):
        client.agents.tools.run(agent, "current_time")


def test_a_key_is_refused_while_its_run_goes_on(client: AgentFlow, agent: str) -> None:
    client.agents.tools.create(agent, name="slow", description="d", function_code=SLOW)
    first = client.agents.tools.stream(agent, "slow", idempotency_key="k")
    next(iter(first))
    with pytest.raises(ConflictError, match="idempotency_key"):
        client.agents.tools.run(agent, "slow", idempotency_key="k")
    body = {
        "arguments": {}, "conversation_id": first.conversation_id, "message_id": first.message_id,
        "idempotency_key": "k", "stream": False,
    }  # fmt: skip
    with pytest.raises(ConflictError, match="idempotency_key"):
        client.request("POST", f"/api/v1/agent/{agent}/tools/slow/run", body=body)
    first.cancel()
    assert first.result().finish_reason == "cancelled"
    client.agents.tools.update(agent, "slow", function_code="def slow() -> str:\n    return 'quick'\n")
    assert client.agents.tools.run(agent, "slow", idempotency_key="k").result == "quick"
    assert client.agents.tools.run(agent, "slow", idempotency_key="k").result == "quick"


def test_several_calls_run_side_by_side(client: AgentFlow, agent: str) -> None:
    source = "async def nap(n: int) -> int:\n    import asyncio\n    await asyncio.sleep(0.4)\n    return n\n"
    client.agents.tools.create(agent, name="nap", description="d", function_code=source)
    asked = " ".join(f'[[tool nap {{"n": {n}}}]]' for n in range(4))
    events = client.agents.stream(agent_id=agent, message=f"{asked} [[say done]]", options={"verbose": True})
    order = [type(event) for event in events if isinstance(event, ToolStarted | ToolFinished)]
    assert order == [ToolStarted] * 4 + [ToolFinished] * 4


CODE = '''
import threading
from agentflow_server.definitions import ToolContext, agent, tool

TRIES = []


@tool(agent="Shop", idempotent=True, max_retries=2)
def flaky(context: ToolContext, item: str = "apple") -> dict:
    """Fail once."""
    context.progress("trying")
    TRIES.append(context.idempotency_key)
    if len(TRIES) < 2:
        raise RuntimeError("not yet")
    return {"item": item, "same": len(set(TRIES)), "user": context.user_id, "main": threading.current_thread().name}


@tool(timeout=0.2)
async def late() -> None:
    """Be late."""
    import asyncio
    await asyncio.sleep(5)


@agent(system_prompt="You sell.", tools=["late", "nothing_like_this"])
class Shop:
    """Sells."""
'''


def test_code_defined_tools(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/shop.py").write_text(CODE)
    data = tmp_path / "data"
    with local_server(app=tmp_path / "app", data=data) as server, server.client() as client:
        shop = client.agents.by_name("Shop")
        assert client.agents.get_config(shop.id).tools == ["late", "flaky"]
        result = client.agents.tools.run(shop.id, "flaky")
        assert result.result == {"item": "apple", "same": 1, "user": "local-dev", "main": result.result["main"]}
        assert result.events
        reported = [event["content"]["progress"] for event in result.events if event["type"] == "tool_progress"]
        assert [one["retry"] for one in reported if isinstance(one, dict)] == [1]
        assert client.agents.tools.run(shop.id, "late").result["error"]["code"] == "tool_timeout"
        flaky = client.agents.tools.retrieve(shop.id, "flaky")
        with pytest.raises(ConflictError, match="code"):
            client.agents.tools.update(shop.id, "flaky", description="x")
    (tmp_path / "app/shop.py").write_text(CODE.replace("def late", "def later").replace('"late"', '"later"'))
    with local_server(app=tmp_path / "app", data=data) as server, server.client() as client:
        assert client.agents.by_name("Shop").id == shop.id
        assert client.agents.get_config(shop.id).tools == ["flaky", "later"]
        assert client.agents.tools.retrieve(shop.id, "flaky").id == flaky.id


def test_a_cancelled_run_stops_the_sandbox() -> None:
    spin = "def spin():\n    progress(1)\n    while True: pass\n"
    with local_server(sandbox_concurrency=1) as server, server.client() as client:
        own = client.agents.by_name("MainAgent").id
        client.agents.tools.create(own, name="spin", description="d", function_code=spin)
        client.agents.tools.create(own, name="add", description="d", function_code=ADD)
        stream = client.agents.tools.stream(own, "spin")
        next(event for event in stream if isinstance(event, ToolProgress))
        stream.cancel()
        assert stream.result().finish_reason == "cancelled"
        assert client.agents.tools.run(own, "add", {"left": 1}, timeout=10).result == 2, "the only place is free again"


def test_selected_tools_take_names_and_ids(agent_id: str) -> None:
    model = ScriptedModel([Reply("ok")])
    with local_server(providers={"test": model}) as server, server.client() as client:
        own = client.agents.by_name("MainAgent").id
        tool = client.agents.tools.create(own, name="add", description="d", function_code=ADD, llm_usage="Use it.")
        client.agents.run(agent_id=own, message="x", options={"model": "test/m", "selected_tools": [tool.id]})
        assert [spec.name for spec in model.requests[0].tools if spec.name != "read_cached_result"] == ["add"]
        assert model.requests[0].tools[0].description == "d\n\nUse it."
