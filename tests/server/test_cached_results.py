"""Large tool results: the model gets a summary, everybody who may gets the whole, for a while."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from agentflow import AgentFlow
from agentflow.cli.main import root
from agentflow.errors import NotFoundError
from agentflow_server.gateway.messages import ToolMessage
from agentflow_server.kit.clock import ManualClock, SystemClock
from agentflow_server.testing import LocalServer, Reply, ScriptedModel, local_server
from click.testing import CliRunner

ROWS = "def rows(count: int) -> list:\n    'Rows.'\n    return [{'row': n, 'name': 'n' * 9} for n in range(count)]\n"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().micros())


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def backend(tmp_path: Path, clock: ManualClock, model: ScriptedModel) -> Iterator[LocalServer]:
    with local_server(data=tmp_path, providers={"test": model}, clock=clock, cached_result_seconds=60) as running:
        yield running


@pytest.fixture
def own(backend: LocalServer) -> Iterator[AgentFlow]:
    with backend.client() as connected:
        yield connected


def say(model: ScriptedModel, *replies: Reply) -> None:
    model.requests.clear()
    model.replies = replies


def cached(client: AgentFlow, model: ScriptedModel, count: int = 2000) -> tuple[str, str, str]:
    """A conversation with a large result: its agent, its id, and the text that the model was given."""
    agent = client.agents.create(name="Clerk", llm_config={"model": "test/any"}).id
    client.agents.tools.create(agent, name="rows", description="Lists rows.", function_code=ROWS)
    say(model, Reply(calls=[("rows", {"count": count})]), Reply("There are many."))
    conversation = client.agents.run(agent_id=agent, message="List them").conversation_id
    told = model.requests[-1].messages[-1]
    assert isinstance(told, ToolMessage)
    return agent, conversation, told.content


def test_the_model_gets_a_summary_and_pages_through_the_rest(own: AgentFlow, model: ScriptedModel) -> None:
    agent, conversation, told = cached(own, model)
    (entry,) = own.cached_results.list(conversation)
    assert entry.tool_name == "rows"
    assert entry.cache_id in told
    assert len(told) < 3000 < entry.size
    whole = own.cached_results.retrieve(conversation, entry.cache_id)
    assert [row["row"] for row in whole.json_value()] == list(range(2000))
    piece = own.cached_results.retrieve(conversation, entry.cache_id, offset=1000, limit=500)
    assert (piece.content, piece.next_offset) == (whole.content[1000:1500], 1500)

    read = {"cache_id": entry.cache_id, "offset": entry.size - 40, "limit": 100}
    say(model, Reply(calls=[("read_cached_result", read)]), Reply("That was the end."))
    own.agents.run(agent_id=agent, message="How does it end?", conversation_id=conversation)
    seen = model.requests[-1].messages[-1]
    assert isinstance(seen, ToolMessage)
    assert seen.content.startswith(whole.content[-40:])
    assert own.cached_results.list(conversation).total == 1


def test_a_small_result_is_not_kept(own: AgentFlow, model: ScriptedModel) -> None:
    _, conversation, told = cached(own, model, count=3)
    assert len(json.loads(told)) == 3
    assert own.cached_results.list(conversation).total == 0


def test_its_time_ends(own: AgentFlow, model: ScriptedModel, clock: ManualClock) -> None:
    agent, conversation, _ = cached(own, model)
    (entry,) = own.cached_results.list(conversation)
    assert entry.created_at is not None
    assert entry.expires_at is not None
    assert (entry.expires_at - entry.created_at).total_seconds() == 60
    clock.advance(61)
    with pytest.raises(NotFoundError):
        own.cached_results.retrieve(conversation, entry.cache_id)
    assert own.cached_results.list(conversation).total == 0
    say(model, Reply(calls=[("read_cached_result", {"cache_id": entry.cache_id})]), Reply("It is gone."))
    assert own.agents.run(agent_id=agent, message="Again", conversation_id=conversation).text == "It is gone."


def test_it_goes_with_its_conversation_and_belongs_to_it(own: AgentFlow, model: ScriptedModel) -> None:
    agent, conversation, _ = cached(own, model)
    (entry,) = own.cached_results.list(conversation)
    other = own.conversations.create(agent_id=agent).id
    with pytest.raises(NotFoundError):
        own.cached_results.retrieve(other, entry.cache_id)
    own.conversations.delete(conversation)
    with pytest.raises(NotFoundError):
        own.cached_results.retrieve(conversation, entry.cache_id)


def test_the_command(own: AgentFlow, backend: LocalServer, model: ScriptedModel) -> None:
    _, conversation, _ = cached(own, model)

    def agentflow(*arguments: str) -> str:
        done = CliRunner().invoke(root, ["cached-results", *arguments, "--endpoint", backend.endpoint])
        assert done.exit_code == 0, done.output
        return done.output

    (entry,) = json.loads(agentflow("list", conversation, "--json"))["cached_results"]
    assert "rows" in agentflow("list", conversation)
    assert '"row": 1999' in agentflow("show", conversation, entry["cache_id"]).replace('":1999', '": 1999')
