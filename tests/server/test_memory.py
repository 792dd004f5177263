"""Memory through the SDK: compare-and-set, limits, recall, what runs are given of it, what models may do with it."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agentflow import AgentFlow, MemoryPolicy, RunOptions
from agentflow.cli.main import root
from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow_server.gateway.messages import ModelRequest, SystemMessage, TextPart, UserMessage
from agentflow_server.gateway.stream import Chunk
from agentflow_server.kit.clock import ManualClock
from agentflow_server.testing import LocalServer, Reply, ScriptedModel, local_server
from click.testing import CliRunner

from tests.waiting import eventually

NOTES = [
    "Works as a product manager at Lumen Robotics in Porto.",
    "Son Tiago plays goalkeeper in the youth team.",
    "Is coeliac and eats no gluten.",
    "Takes the train whenever possible, is afraid of flying.",
    "The quarterly review with the board is in the second week of January.",
    "Dog Pipo stays with Marta during holidays.",
]


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def memory_server(model: ScriptedModel) -> Iterator[LocalServer]:
    """A backend of the test's own: memory belongs to the user, and the shared one has only one."""
    with local_server(providers={"test": model}) as running:
        yield running


@pytest.fixture
def own(memory_server: LocalServer) -> Iterator[AgentFlow]:
    with memory_server.client() as client:
        yield client


def agent_with(client: AgentFlow, **settings: Any) -> str:
    return client.agents.create(name="Keeper", llm_config={"model": "test/x"}, **settings).id


def texts(message: UserMessage) -> list[str]:
    return [part.text for part in message.parts if isinstance(part, TextPart)]


def test_blocks_come_and_go(own: AgentFlow) -> None:
    agent_id = agent_with(own)
    with pytest.raises(NotFoundError, match="core"):
        own.memory.get("core")
    made = own.memory.update("core", "Likes tea.\nLives in Graz.")
    assert (made.block_type, made.scope, made.agent_id, made.created_at) == ("core", "user", None, made.updated_at)
    assert own.memory.get("core").model_dump() == made.model_dump()
    mine = own.memory.update("archival", "Only for the keeper.", agent_id=agent_id)
    assert (mine.scope, mine.agent_id) == ("agent", agent_id)
    changed = own.memory.update("core", "Likes coffee.", expected_updated_at=made.updated_at)
    assert (changed.id, changed.created_at, changed.content) == (made.id, made.created_at, "Likes coffee.")
    assert changed.updated_at > made.updated_at
    assert [block.block_type for block in own.memory.list()] == ["core"]
    assert [block.scope for block in own.memory.list(scope="all")] == ["user", "agent"]
    assert [block.agent_id for block in own.memory.list(scope="agent")] == [agent_id]
    assert own.memory.list(scope="agent", agent_id="other").total == 0
    page = own.memory.list(scope="all", limit=1)
    assert (len(page), page.total, len(list(page))) == (1, 2, 2)
    with pytest.raises(ConflictError):
        own.memory.delete("core", expected_updated_at=made.updated_at)
    own.memory.delete("core", expected_updated_at=changed.updated_at)
    with pytest.raises(NotFoundError):
        own.memory.delete("core")
    with pytest.raises(NotFoundError, match="nobody"):
        own.memory.update("core", "x", agent_id="nobody")


def test_a_stale_writer_is_told_what_is_there(own: AgentFlow) -> None:
    first = own.memory.update("core", "One.")
    own.memory.update("core", "Two.", expected_updated_at=first.updated_at)
    for expected in (first.updated_at, first.updated_at.isoformat(), None):
        with pytest.raises(ConflictError) as caught:
            own.memory.update("core", "Three.", expected_updated_at=expected)
        current = caught.value.details["current"]
        assert current["content"] == "Two."
    own.memory.update("core", "Three.", expected_updated_at=current["updated_at"])
    own.memory.delete("core")
    with pytest.raises(ConflictError, match="gone") as caught:
        own.memory.update("core", "Four.", expected_updated_at=current["updated_at"])
    assert caught.value.details["current"] is None


def test_a_repeated_update_is_answered_the_same(own: AgentFlow) -> None:
    first = own.memory.update("core", "One.", idempotency_key="k")
    assert own.memory.update("core", "One.", idempotency_key="k").model_dump() == first.model_dump()
    with pytest.raises(ConflictError, match="Idempotency-Key"):
        own.memory.update("core", "Other.", idempotency_key="k")


@pytest.mark.parametrize(
    ("block", "content", "over"),
    [
        ("core", "x" * 4_003, 3),
        ("core", "\n".join(f"entry {number}" for number in range(22)), 2),
        ("archival", "x" * 8_001, 1),
    ],
)
def test_what_is_too_large_is_refused_by_how_much(own: AgentFlow, block: str, content: str, over: int) -> None:
    with pytest.raises(ValidationError) as caught:
        own.memory.update(block, content)
    detail = caught.value.details[0]
    assert (detail["field"], detail["over"], detail["actual"] - detail["limit"]) == ("content", over, over)
    assert str(over) in caught.value.message


def test_blank_lines_are_no_entries(own: AgentFlow) -> None:
    own.memory.update("core", "\n\n".join(f"entry {number}" for number in range(20)))
    assert own.memory.recall("entry 19").pop(0).line_number == 39


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/memory/diary", None),
        ("PUT", "/api/v1/memory/diary", {"content": "x"}),
        ("PUT", "/api/v1/memory/core", {}),
        ("PUT", "/api/v1/memory/core", {"content": "a\x00b"}),
        ("PUT", "/api/v1/memory/core", {"content": "x", "expected_updated_at": "yesterday"}),
        ("PUT", "/api/v1/memory/core", {"content": "x", "scope": "user"}),
        ("GET", "/api/v1/memory?scope=tenant", None),
        ("POST", "/api/v1/memory/recall", {"query": ""}),
        ("POST", "/api/v1/memory/recall", {"query": "x", "limit": 0}),
        ("POST", "/api/v1/memory/recall", {"query": "x", "min_score": 2}),
    ],
)
def test_what_does_not_hold_is_refused(client: AgentFlow, method: str, path: str, body: Any) -> None:
    with pytest.raises(ValidationError):
        client.request(method, path, body=body)


def test_fifty_writers_and_none_is_lost_silently(own: AgentFlow) -> None:
    """Everybody adds a line to what they have read; in each round one wins, and the others hear of it."""
    own.memory.update("archival", "start")
    gate = threading.Barrier(50)

    def attempt(name: int) -> bool:
        seen = own.memory.get("archival")
        gate.wait()
        try:
            own.memory.update("archival", f"{seen.content}\n{name}", expected_updated_at=seen.updated_at)
        except ConflictError as error:
            return str(name) in error.details["current"]["content"].splitlines()
        return True

    winners: list[int] = []
    with ThreadPoolExecutor(50) as pool:
        for round_ in range(5):
            names = range(round_ * 50, round_ * 50 + 50)
            won = [name for name, first in zip(names, pool.map(attempt, names), strict=True) if first]
            assert len(won) == 1
            winners += won
    assert own.memory.get("archival").content.splitlines() == ["start", *map(str, winners)]


def test_fifty_tool_calls_are_all_kept(own: AgentFlow, memory_server: LocalServer) -> None:
    agent_id = own.agents.by_name("MainAgent").id

    def note(number: int) -> None:
        call = f'{{"action": "add", "block": "archival", "entry": "Fact number {number}."}}'
        own.agents.run(agent_id=agent_id, message=f"[[tool update_memory {call}]] [[say done]]")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(note, range(50)))
    assert sorted(own.memory.get("archival").content.splitlines()) == sorted(f"Fact number {n}." for n in range(50))


def test_recall_by_words_and_meaning(own: AgentFlow) -> None:
    agent_id = agent_with(own)
    own.memory.update("archival", "\n".join(NOTES))
    own.memory.update("core", "Secret handshake of the keeper.", agent_id=agent_id)
    found = own.memory.recall("In which position does the child play football?", limit=3)
    assert "Tiago" in found[0].content
    assert (found[0].block_type, found[0].scope, found[0].line_number) == ("archival", "user", 2)
    assert found[0].updated_at == own.memory.get("archival").updated_at
    scores = [result.score for result in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    eventually(lambda: own.memory.recall("x").pending == 0)
    known = own.memory.recall("What food must be avoided?")
    assert known.mode == "hybrid"
    assert known[0].content == NOTES[2]
    assert all(result.agent_id is None for result in own.memory.recall("secret handshake"))
    assert own.memory.recall("secret handshake", agent_id=agent_id)[0].agent_id == agent_id
    best = known[0].score
    assert [result.content for result in own.memory.recall("What food must be avoided?", min_score=best)] == [NOTES[2]]
    assert own.memory.recall("zzz", min_score=1.0) == []


def test_recall_follows_every_change(own: AgentFlow) -> None:
    block = own.memory.update("archival", "The alpaca is called Bruno.\nThe code of the door is 1234.")
    assert own.memory.recall("door code")[0].line_number == 2
    block = own.memory.update(
        "archival", "New first line.\nThe alpaca is called Bruno.", expected_updated_at=block.updated_at
    )
    assert "door" not in " ".join(result.content for result in own.memory.recall("door code"))
    assert own.memory.recall("alpaca")[0].line_number == 2
    own.memory.delete("archival")
    assert own.memory.recall("alpaca") == []


def test_memory_outlives_the_server(tmp_path: Any) -> None:
    with local_server(data=tmp_path) as server, server.client() as client:
        client.memory.update("archival", "\n".join(NOTES))
        eventually(lambda: client.memory.recall("x").pending == 0)
    with local_server(data=tmp_path) as server, server.client() as client:
        found = client.memory.recall("What food must be avoided?")
        assert (found[0].content, found.pending, found.mode) == (NOTES[2], 0, "hybrid")


def test_core_memory_is_in_the_prompt_and_stays_the_same(own: AgentFlow, model: ScriptedModel) -> None:
    agent_id = agent_with(own)
    own.memory.update("core", "Likes tea.")
    own.memory.update("core", "Reports to Ada.", agent_id=agent_id)
    other = own.agents.create(name="Other", llm_config={"model": "test/x"}).id
    conversation = own.conversations.create(agent_id=agent_id)
    conversation.send("one")
    conversation.send("two")
    prefixes = [[m.text for m in request.messages if isinstance(m, SystemMessage)] for request in model.requests]
    assert prefixes[0] == prefixes[1]
    block = prefixes[0][-1]
    assert block.startswith("<user_memory>\n")
    assert block.endswith("\n</user_memory>")
    assert "Likes tea." in block
    assert "Reports to Ada." in block
    for agent, policy, there in [
        (agent_id, MemoryPolicy(include_user_core=False), ["Reports to Ada."]),
        (agent_id, MemoryPolicy(include_agent_core=False), ["Likes tea."]),
        (agent_id, MemoryPolicy(include_user_core=False, include_agent_core=False), []),
        (other, MemoryPolicy(archival_mode="off"), ["Likes tea."]),
    ]:
        own.agents.run(agent_id=agent, message="three", options=RunOptions(memory_policy=policy))
        shown = " ".join(m.text for m in model.requests[-1].messages if isinstance(m, SystemMessage))
        assert [text for text in ("Likes tea.", "Reports to Ada.") if text in shown] == sorted(there)


def test_core_memory_is_a_prompt_block_like_others(own: AgentFlow, model: ScriptedModel) -> None:
    agent_id = agent_with(own)
    block = own.memory.update("core", "Likes tea.")
    conversation = own.conversations.create(agent_id=agent_id)
    conversation.send("one")
    own.memory.update("core", "Likes coffee.", expected_updated_at=block.updated_at)
    conversation.send("two")
    own.prompt_blocks.update("user_memory", enabled=False)
    conversation.send("three")
    told = [" ".join(m.text for m in request.messages if isinstance(m, SystemMessage)) for request in model.requests]
    assert ["tea" in text for text in told] == [True, False, False]
    assert ["coffee" in text for text in told] == [False, True, False]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, None),
        ({"archival_mode": "off"}, None),
        ({"archival_mode": "tool_only"}, None),
        ({"archival_mode": "auto"}, 6),
        ({"archival_mode": "auto", "archival_limit": 2}, 2),
        ({"archival_mode": "auto", "archival_min_score": 1.0}, None),
    ],
)
def test_archival_matches_are_hidden_reminders_of_the_turn(
    own: AgentFlow, model: ScriptedModel, policy: dict[str, Any], expected: int | None
) -> None:
    agent_id = agent_with(own)
    own.memory.update("archival", "\n".join(NOTES))
    eventually(lambda: own.memory.recall("x").pending == 0)
    conversation = own.conversations.create(agent_id=agent_id)
    conversation.send("Who looks after the dog?", options={"memory_policy": policy})
    conversation.send("And then?")
    first, second = (request.messages for request in model.requests)
    user = first[-1]
    assert isinstance(user, UserMessage)
    hidden = [text for text in texts(user) if text.startswith("<system_reminders>")]
    if expected is None:
        assert not hidden
    else:
        assert hidden[0].count("\n- ") == expected
        assert NOTES[5] in hidden[0]
    assert texts(user)[-1] == "Who looks after the dog?"
    assert second[: len(first)] == first, "what was injected is replayed with its turn"
    assert conversation.messages().items[0].content == "Who looks after the dog?"


def test_models_recall_and_edit(own: AgentFlow, model: ScriptedModel) -> None:
    agent_id = agent_with(own, tools=["recall_memory", "update_memory"])
    own.memory.update("archival", "\n".join(NOTES))

    def call(name: str, **arguments: Any) -> str:
        model.replies = [Reply(calls=[(name, arguments)]), "done"]
        model.requests.clear()
        policy = {"memory_policy": {"archival_mode": "off"}}
        own.agents.run(agent_id=agent_id, message="go", options=policy)
        return str(getattr(model.requests[-1].messages[-1], "content", ""))

    assert NOTES[2] in call("recall_memory", query="gluten", limit=1)
    assert '"changed": true' in call("update_memory", action="add", entry="Likes\ntea.")
    assert '"changed": false' in call("update_memory", action="add", entry="likes tea.")
    assert own.memory.get("core").content == "Likes tea."
    call("update_memory", action="replace", old_entry="tea", entry="Likes coffee.")
    assert own.memory.get("core").content == "Likes coffee."
    call("update_memory", action="add", entry="Only for me.", scope="agent")
    assert own.memory.get("core", agent_id=agent_id).content == "Only for me."
    call("update_memory", action="remove", entry=NOTES[0], block="archival")
    assert own.memory.get("archival").content == "\n".join(NOTES[1:])
    assert "no entry" in call("update_memory", action="remove", entry="nothing like it")
    assert "entries contain" in call("update_memory", action="remove", entry="the", block="archival")
    assert "old_entry" in call("update_memory", action="replace", entry="x")
    assert "invalid" in call("update_memory", action="burn", entry="x") or "burn" in call(
        "update_memory", action="burn", entry="x"
    )
    full = call("update_memory", action="add", entry="x" * 5_000)
    assert "too many" in full
    assert "archival" in full
    assert own.memory.get("core").content == "Likes coffee."


def test_main_agent_has_the_tools(own: AgentFlow) -> None:
    config = own.agents.get_config(own.agents.by_name("MainAgent").id)
    assert {"recall_memory", "update_memory"} <= set(config.tools)


def edits(*wanted: dict[str, Any]) -> Reply:
    whole = [{"block": "core", "scope": "user", "old_entry": None, **edit} for edit in wanted]
    return Reply(json.dumps({"edits": whole}))


def purposes(model: ScriptedModel) -> list[str]:
    return [request.attribution.purpose for request in model.requests if request.attribution]


@pytest.fixture
def sleepy(model: ScriptedModel) -> Iterator[AgentFlow]:
    """A backend where a conversation has settled as soon as its run has ended."""
    with local_server(providers={"test": model}, memory_idle_seconds=0.0) as server, server.client() as client:
        yield client


def test_a_settled_conversation_is_kept_in_memory(sleepy: AgentFlow, model: ScriptedModel) -> None:
    agent_id = agent_with(sleepy)
    sleepy.memory.update("core", "Likes tea.\nOwns a bicycle.")
    model.replies = [
        "Noted.",
        edits(
            {"action": "replace", "old_entry": "Likes tea.", "entry": "Likes coffee since May 2025."},
            {"action": "remove", "entry": "Owns a bicycle."},
            {"action": "add", "entry": "Met Ada in Graz.", "block": "archival"},
            {"action": "add", "entry": "Wants short reports.", "scope": "agent"},
            {"action": "remove", "entry": "never there"},
        ),
    ]
    sleepy.agents.run(agent_id=agent_id, message="I prefer coffee now, and my bicycle is gone.")
    eventually(lambda: "coffee" in sleepy.memory.get("core").content)
    assert sleepy.memory.get("core").content == "Likes coffee since May 2025."
    assert sleepy.memory.get("archival").content == "Met Ada in Graz."
    assert sleepy.memory.get("core", agent_id=agent_id).content == "Wants short reports."
    assert purposes(model) == ["answer", "memory"]
    asked = model.requests[1].messages[-1]
    assert isinstance(asked, UserMessage)
    known, said = texts(asked)
    assert "Likes tea." in known
    assert said == "User: I prefer coffee now, and my bicycle is gone.\nAssistant: Noted."


def test_only_what_is_new_is_consolidated(sleepy: AgentFlow, model: ScriptedModel) -> None:
    agent_id = agent_with(sleepy)
    model.replies = ["One.", edits(), "Two.", edits({"action": "add", "entry": "Done."})]
    conversation = sleepy.conversations.create(agent_id=agent_id)
    conversation.send("first")
    eventually(lambda: len(model.requests) == 2)
    conversation.send("second")
    eventually(lambda: sleepy.memory.list().total)
    asked = model.requests[3].messages[-1]
    assert isinstance(asked, UserMessage)
    assert texts(asked)[-1] == "User: second\nAssistant: Two."


class Meddler(ScriptedModel):
    """Changes memory while it thinks about it, the first `times` times."""

    client: AgentFlow
    times = 2

    def stream(self, request: ModelRequest, model: str) -> AsyncGenerator[Chunk, None]:
        speaking = super().stream(request, model)
        if request.output_name != "memory_edits" or self.times == 0:
            return speaking
        self.times -= 1

        async def meddle() -> AsyncGenerator[Chunk, None]:
            def edit() -> None:
                block = self.client.memory.get("core")
                content = f"{block.content}\nEdit {self.times}."
                self.client.memory.update("core", content, expected_updated_at=block.updated_at)

            await asyncio.to_thread(edit)
            async for chunk in speaking:
                yield chunk

        return meddle()


def test_consolidation_never_overwrites_a_newer_edit() -> None:
    model = Meddler(["Noted.", *(edits({"action": "add", "entry": f"Try {n}."}) for n in range(3))])
    with local_server(providers={"test": model}, memory_idle_seconds=0.0) as server, server.client() as client:
        model.client = client
        client.memory.update("core", "Start.")
        client.agents.run(agent_id=agent_with(client), message="hello")
        eventually(lambda: "Try" in client.memory.get("core").content)
        assert client.memory.get("core").content.splitlines() == ["Start.", "Edit 1.", "Edit 0.", "Try 2."]
        last = model.requests[-1].messages[-1]
        assert isinstance(last, UserMessage)
        assert "Edit 0." in texts(last)[0]


def test_what_does_not_fit_into_core_goes_to_the_archive(sleepy: AgentFlow, model: ScriptedModel) -> None:
    full = "\n".join(f"Fact {number}." for number in range(20))
    sleepy.memory.update("core", full)
    model.replies = ["Noted.", edits({"action": "add", "entry": "One more."})]
    sleepy.agents.run(agent_id=agent_with(sleepy), message="hello")
    eventually(lambda: sleepy.memory.list().total == 2)
    assert sleepy.memory.get("core").content == full
    assert sleepy.memory.get("archival").content == "One more."


def test_consolidation_can_be_switched_off(sleepy: AgentFlow, model: ScriptedModel) -> None:
    quiet = sleepy.agents.create(name="Quiet", llm_config={"model": "test/x"}, memory={"consolidation": False})
    assert sleepy.agents.get_config(quiet.id).memory == {"consolidation": False}
    other = agent_with(sleepy)
    model.replies = ["One.", "Two.", edits({"action": "add", "entry": "Done."})]
    sleepy.agents.run(agent_id=quiet.id, message="first")
    sleepy.agents.run(agent_id=other, message="second")
    eventually(lambda: sleepy.memory.list().total)
    assert purposes(model) == ["answer", "answer", "memory"]
    with local_server(providers={"test": model}, memory_consolidation=False, memory_idle_seconds=0.0) as server:
        with server.client() as client:
            model.requests.clear()
            client.agents.run(agent_id=agent_with(client), message="hello")
            client.agents.run(agent_id=client.agents.by_name("Keeper").id, message="hello")
            assert purposes(model) == ["answer", "answer"]


def test_a_failing_model_is_asked_again_later(model: ScriptedModel) -> None:
    clock = ManualClock()
    with local_server(providers={"test": model}, memory_idle_seconds=5.0, clock=clock) as server:
        with server.client() as client:
            model.replies = ["Noted.", "this is no JSON", edits({"action": "add", "entry": "Kept."})]
            client.agents.run(agent_id=agent_with(client), message="hello")
            clock.advance(6)
            client.memory.update("archival", "wakes the worker")
            eventually(lambda: len(model.requests) == 2)
            assert client.memory.list(scope="all").total == 1
            clock.advance(61)
            eventually(lambda: client.memory.list().total == 2, seconds=15)
            assert client.memory.get("core").content == "Kept."


def test_the_scripted_model_keeps_what_it_is_told(sleepy: AgentFlow) -> None:
    agent_id = sleepy.agents.create(name="Plain", llm_config={"model": "agentflow/scripted"}).id
    sleepy.agents.run(agent_id=agent_id, message="Please remember that my dog is called Pipo. Thanks!")
    eventually(lambda: sleepy.memory.list().total)
    assert sleepy.memory.get("core").content == "My dog is called Pipo."


def test_words_alone_where_there_is_no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow_server.retrieval.embedding.PACKAGE", "not_installed")
    with local_server() as server, server.client() as client:
        client.memory.update("archival", "\n".join(NOTES))
        found = client.memory.recall("Who works at Lumen Robotics?")
        assert (found.mode, found.pending, found[0].content) == ("keyword", 0, NOTES[0])
        assert client.memory.recall("nourishment") == []


def test_export_and_erase_everything(own: AgentFlow) -> None:
    agent_id = own.agents.by_name("MainAgent").id
    own.memory.update("core", "Likes tea.")
    own.memory.update("core", "Mine.", agent_id=agent_id)
    conversation = own.conversations.create(agent_id=agent_id)
    conversation.send("[[say hello]]")
    own.conversations.create(agent_id=agent_id, conversation_id="running")
    stream = own.agents.stream(agent_id=agent_id, message="[[words 500]] [[delay 20]]", conversation_id="running")
    next(iter(stream))
    exported = own.memory.export()
    assert exported.user_id == "local-dev"
    assert [block["content"] for block in exported.data["memory"]] == ["Likes tea.", "Mine."]
    said = {item["id"]: item["messages"] for item in exported.data["conversations"]}
    assert [message["content"] for message in said[conversation.id]] == ["[[say hello]]", "hello"]
    assert own.memory.erase().erased == {"memory": 2}
    assert own.memory.list(scope="all").total == 0
    assert own.memory.recall("tea") == []
    assert own.conversations.list().total == 2
    own.memory.update("core", "Again.")
    assert own.memory.erase(everything=True).erased == {"memory": 1, "conversations": 2, "attachments": 0}
    emptied = own.memory.export().data
    assert not any(emptied.values())


def test_what_was_erased_is_not_remembered_again(model: ScriptedModel) -> None:
    clock = ManualClock()
    with local_server(providers={"test": model}, memory_idle_seconds=5.0, clock=clock) as server:
        with server.client() as client:
            agent_id = agent_with(client)
            client.agents.run(agent_id=agent_id, message="my secret", conversation_id="c")
            client.memory.erase()
            model.replies = ["Sure.", edits({"action": "add", "entry": "Kept."})]
            model.requests.clear()
            client.agents.run(agent_id=agent_id, message="something else", conversation_id="c")
            clock.advance(6)
            client.memory.update("archival", "wakes the worker")
            eventually(lambda: client.memory.list().total == 2)
            asked = model.requests[-1].messages[-1]
            assert isinstance(asked, UserMessage)
            assert texts(asked)[-1] == "User: something else\nAssistant: Sure."


def test_another_user_sees_nothing(tmp_path: Any) -> None:
    with local_server(data=tmp_path, dev_user_id="ada") as server, server.client() as client:
        client.memory.update("core", "Ada's secret.")
    with local_server(data=tmp_path, dev_user_id="bob") as server, server.client() as client:
        assert client.memory.list(scope="all").total == 0
        assert client.memory.recall("secret") == []
        with pytest.raises(NotFoundError):
            client.memory.get("core")
        client.memory.update("core", "Bob's.")
        assert client.memory.erase(everything=True).erased["memory"] == 1
    with local_server(data=tmp_path, dev_tenant_name="other", dev_user_id="ada") as server, server.client() as client:
        assert client.memory.export().data["memory"] == []
    with local_server(data=tmp_path, dev_user_id="ada") as server, server.client() as client:
        assert client.memory.get("core").content == "Ada's secret."


def test_the_command(own: AgentFlow, memory_server: LocalServer) -> None:
    def told(*arguments: str, text: str | None = None) -> Any:
        command = ["memory", *arguments, "--json", "--endpoint", memory_server.endpoint]
        result = CliRunner().invoke(root, command, input=text)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert told("update", "core", "Likes tea.")["content"] == "Likes tea."
    assert told("update", "core", text="Likes coffee.\n")["content"] == "Likes coffee."
    assert told("update", "archival", "For the agent.", "--agent", "MainAgent")["scope"] == "agent"
    assert told("get", "core")["content"] == "Likes coffee."
    assert [block["block_type"] for block in told("list")["blocks"]] == ["core", "archival"]
    assert told("recall", "coffee", "--limit", "1")["results"][0]["line_number"] == 1
    assert told("recall", "agent", "--agent", "MainAgent")["results"][0]["content"] == "For the agent."
    assert told("delete", "core") == {"deleted": "core"}
    assert len(told("export")["data"]["memory"]) == 1
    assert told("erase", "--yes") == {"erased": {"memory": 1}}
    stale = CliRunner().invoke(
        root,
        ["memory", "update", "core", "x", "--expected-updated-at", "2020-01-01T00:00:00Z",
         "--endpoint", memory_server.endpoint],
    )  # fmt: skip
    assert isinstance(stale.exception, ConflictError)
