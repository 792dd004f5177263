"""The folder of `agentflow serve --app`: what its decorators define, and what becomes of mistakes in it."""

from pathlib import Path

import pytest
from agentflow_server.definitions import DefinitionError, load
from agentflow_server.kit.settings import SettingsError
from agentflow_server.testing import local_server

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
    assert found.agents["Shop"].config == {"description": "Sells.", "system_prompt": "You sell."}
    assert found.sub_agents["Counter"].parents == ("Shop",)
    assert set(found.prompt_blocks) == {"stock", "greeting"}
    assert found.artifacts["order"].json_schema["required"] == ["item"]
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
        ("from agentflow_server.definitions import sub_agent\n@sub_agent(parents=[])\nclass A: ...", "description"),
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
