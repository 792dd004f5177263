"""The folder of `agentflow serve --app`: what its decorators define, and what becomes of mistakes in it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agentflow import AgentFlow
from agentflow.errors import AgentFlowError, ConflictError
from agentflow_server.definitions import DefinitionError, load
from agentflow_server.kit.settings import SettingsError
from agentflow_server.testing import Reply, ScriptedModel, local_server

from tests.crash.backend import free_port

EVERYTHING = '''
from pydantic import BaseModel

from agentflow_server.definitions import (
    ToolContext, agent, artifact, entity_resolver, prompt_block, static_block, sub_agent, tool,
)
from lib.numbers import ANSWER


@tool(agent=["Shop", "MainAgent"], tags=["a"], max_retries=1)
def add(left: int, context: ToolContext, right: int = ANSWER) -> int:
    """Add two numbers.

    Args:
        left: the first.
    """
    return left + right


@agent(system_prompt="You sell.")
class Shop:
    """Sells."""


@sub_agent(parents=["Shop"], role="careful")
class Counter:
    """Counts."""


@prompt_block(tags=["x"], ttl=5)
async def stock(context):
    """What there is."""
    return "3 apples"


static_block("greeting", "Be kind.")


@artifact("order", label="Order")
class Order(BaseModel):
    item: str


@entity_resolver("crm", "account")
async def account(context, id):
    return id
'''


def test_everything_that_is_decorated_is_found(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/numbers.py").write_text("ANSWER = 42\n")
    (tmp_path / "everything.py").write_text(EVERYTHING)
    (tmp_path / "_private.py").write_text("raise RuntimeError('is not loaded')\n")
    found = load(tmp_path)
    add = found.tools["add"]
    assert add.description == "Add two numbers."
    assert add.parameters["properties"] == {
        "left": {"type": "integer", "description": "the first."},
        "right": {"type": "integer", "default": 42},
    }
    assert add.parameters["required"] == ["left"]
    assert (add.context_parameter, add.agents, add.idempotent) == ("context", ("Shop", "MainAgent"), True)
    assert found.agents["Counter"].config == {"description": "Counts.", "system_prompt": "Your role: careful"}
    assert found.agents["Shop"].config == {"description": "Sells.", "system_prompt": "You sell."}
    assert found.sub_agents["Counter"].parents == ("Shop",)
    assert set(found.prompt_blocks) == {"stock", "greeting"}
    assert found.artifacts["order"].definition.content_schema["required"] == ["item"]
    assert ("crm", "account") in found.entity_resolvers
    assert load(tmp_path).tools.keys() == {"add"}, "a second server of the process loads it anew"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_like_this", "broken.py: ModuleNotFoundError"),
        ("from agentflow_server.definitions import tool\n@tool('no name')\ndef f(): ...", "no tool name"),
        ("from agentflow_server.definitions import tool\n@tool()\ndef f(*a): ...", "named arguments only"),
        ("from agentflow_server.definitions import prompt_block\n@prompt_block()\ndef f(c): ...", "async def"),
        ("from agentflow_server.definitions import static_block as s\ns('a', '')\ns('a', '')", "defined twice"),
        ("from agentflow_server.definitions import sub_agent\n@sub_agent(parents=['B'])\nclass A: ...", "description"),
        (
            "from agentflow_server.definitions import sub_agent\n@sub_agent(parents=[])\nclass A: 'Does.'",
            "needs parents",
        ),
        (
            "from agentflow_server.definitions import sub_agent as s\n@s(parents='B', agent_id='x')\nclass A: 'a'",
            "UUID",
        ),
        ("from agentflow_server.definitions import artifact\n@artifact('A', json_schema={})\nclass A: ...", "no type"),
        ("from agentflow_server.definitions import artifact as a\n@a('b', json_schema={}, odd=1)\nclass A: ...", "odd"),
        ("from agentflow_server.definitions import artifact\n@artifact('a')\nclass A: ...", "needs a schema"),
        (
            "from agentflow_server.definitions import tool\nimport socket\n@tool()\ndef f(a: socket.socket): ...",
            "JSON cannot hold",
        ),
    ],
)
def test_a_mistake_names_its_file(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(DefinitionError, match=message):
        load(tmp_path)
    with pytest.raises(SettingsError, match=r"AGENTFLOW_APP: .*broken\.py"), local_server(app=tmp_path):
        pass


def test_a_circle_of_subagents_is_refused(tmp_path: Path) -> None:
    source = "from agentflow_server.definitions import sub_agent\n\n"
    for name, parent in (("A", "B"), ("B", "A")):
        source += f"@sub_agent(parents='{parent}')\nclass {name}:\n    'Does.'\n"
    (tmp_path / "team.py").write_text(source)
    with pytest.raises(SettingsError, match="circle: "), local_server(app=tmp_path):
        pass


TEAM = """
from pydantic import BaseModel

from agentflow_server.definitions import agent, artifact, prompt_block, sub_agent


@agent(artifact_types=["order"])
class Shop:
    'Sells.'


@sub_agent(parents=["Shop", "MainAgent", "Nobody"], role="a careful counter", agent_id="{id}", background=True)
class StockCounter:
    'Counts what there is.'


@prompt_block(ttl=0)
async def stock(context):
    return "3 apples"


@artifact("order", actions={{"pay": {{"from": ["draft"], "to": "paid"}}}}, default={{"currency": "EUR"}})
class Order(BaseModel):
    'What somebody buys.'

    item: str
    currency: str

    @staticmethod
    def summarize(content):
        return f"{{content['item']}} in {{content['currency']}}"
"""
COUNTER = "0197f1a2-0000-7000-8000-00000000c0de"


def test_subagents_and_artifacts_of_the_folder_are_used(tmp_path: Path) -> None:
    app, data = tmp_path / "app", tmp_path / "data"
    app.mkdir()
    (app / "team.py").write_text(TEAM.format(id=COUNTER))
    content = {"type": "order", "title": "Tea", "content": {"item": "tea"}}
    model = ScriptedModel([
        Reply("", [("stock_counter", {"message": "how many?"}), ("create_artifact", content)]), "three", "made", "seen",
    ])  # fmt: skip
    with local_server(app=app, data=data, providers={"test": model}) as server, server.client() as client:
        shop, main = client.agents.by_name("Shop"), client.agents.by_name("MainAgent")
        for parent in (shop, main):
            [counter] = client.agents.subagents.list(parent.id).items
            assert (counter.id, counter.tool_name, counter.background) == (COUNTER, "stock_counter", True)
            assert counter.system_prompt == "Your role: a careful counter"
        conversation = client.conversations.create(agent_id=shop.id)
        conversation.send("sell", options={"model": "test/m"})
        [order] = client.artifacts.list(conversation.id).items
        assert (order.artifact_type, order.content) == ("order", {"item": "tea", "currency": "EUR"})
        assert client.artifacts.act(order.id, "pay").state["status"] == "paid"
        conversation.send("what is there?", options={"model": "test/m"})
        assert "tea in EUR" in str(model.requests[-1].messages)
        assert "3 apples" in str(model.requests[-1].messages)
        assert next(one for one in client.artifacts.types() if one.name == "order").source == "code"
        with pytest.raises(ConflictError, match="server's own"):
            client.artifacts.delete_type("order")
    renamed = TEAM.format(id=COUNTER).replace("StockCounter", "Teller").replace("a careful counter", "a teller")
    (app / "team.py").write_text(renamed)
    with local_server(app=app, data=data) as server, server.client() as client:
        shop = client.agents.by_name("Shop")
        [teller] = client.agents.subagents.list(shop.id).items
        assert (teller.id, teller.name, teller.system_prompt) == (COUNTER, "Teller", "Your role: a teller")
    (app / "team.py").write_text(
        "from agentflow_server.definitions import artifact\n@artifact('task', json_schema={})\nclass A: ..."
    )
    with pytest.raises(SettingsError, match="built-in type"), local_server(app=app):
        pass


@pytest.mark.embedded
@pytest.mark.slow
def test_a_change_of_the_folder_starts_the_server_again(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    shop = "from agentflow_server.definitions import agent\n@agent()\nclass Shop:\n    '{0}'\n"
    (app / "shop.py").write_text(shop.format("Sells."))
    port = free_port()
    command = [str(Path(sys.executable).with_name("agentflow")), "serve", "--reload", "--app", str(app), "--port"]
    command += [str(port), "--data", str(tmp_path / "data"), "--log-level", "error"]
    process = subprocess.Popen(command, env={**os.environ, "DEV_AUTH_BYPASS": "true"})
    try:
        with AgentFlow(endpoint=f"http://127.0.0.1:{port}", max_retries=0) as client:
            _until(client, "Sells.")
            (app / "shop.py").write_text(shop.format("Sells more."))
            _until(client, "Sells more.")
    finally:
        process.terminate()
        process.wait(20)


def _until(client: AgentFlow, description: str) -> None:
    deadline, found = time.monotonic() + 20, None
    while found != description:
        assert time.monotonic() < deadline, found
        try:
            found = client.agents.by_name("Shop").description
        except AgentFlowError:
            time.sleep(0.1)
