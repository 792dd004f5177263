"""Runs: de-duplication, views, tools, structured output, limits, cancellation, queueing, compaction."""

import asyncio
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import (
    ConflictError,
    ModelError,
    ModelUnavailableError,
    NotAvailableError,
    NotFoundError,
    PayloadTooLargeError,
    RunCancelledError,
    ValidationError,
)
from agentflow.events import (
    FinalResponse,
    ReasoningDelta,
    RunError,
    RunStarted,
    TextDelta,
    TextDiscarded,
    ToolFinished,
    ToolStarted,
    UsageReport,
)
from agentflow_server.gateway.messages import AssistantMessage, ToolMessage, UserMessage
from agentflow_server.testing import LocalServer, Reply, ScriptedModel, local_server
from pydantic import BaseModel


class Fruit(BaseModel):
    name: str
    count: int


def with_model(model: ScriptedModel, **settings: Any) -> Any:
    return local_server(providers={"test": model}, **settings)


def test_a_repeated_message_gives_the_same_result(client: AgentFlow, agent_id: str) -> None:
    first = client.agents.run(agent_id=agent_id, message="hi", conversation_id="dedupe-1", message_id="m1")
    again = client.agents.run(agent_id=agent_id, message="hi", conversation_id="dedupe-1", message_id="m1")
    assert again.run_id == first.run_id
    assert again.text == first.text
    streamed = list(client.agents.stream(agent_id=agent_id, message="hi", conversation_id="dedupe-1", message_id="m1"))
    assert isinstance(streamed[0], RunStarted)
    assert streamed[-1].content["run_id"] == first.run_id
    with pytest.raises(ConflictError, match="m1"):
        client.agents.run(agent_id=agent_id, message="other", conversation_id="dedupe-1", message_id="m1")
    assert client.conversations.messages("dedupe-1").total == 2


def test_a_repeat_while_running_attaches(client: AgentFlow, agent_id: str) -> None:
    message = "[[words 30]] [[delay 10]]"
    sent: dict[str, Any] = {"agent_id": agent_id, "message": message, "conversation_id": "attach", "message_id": "m"}
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: client.agents.run(**sent), range(8)))
    assert len({result.run_id for result in results}) == 1
    assert len({result.text for result in results}) == 1
    assert client.conversations.messages("attach").total == 2


def test_views(client: AgentFlow, agent_id: str) -> None:
    message = "[[reason thinking]] [[tool current_time {}]] [[say done]]"
    plain = list(client.agents.stream(agent_id=agent_id, message=message))
    assert {type(event) for event in plain} == {RunStarted, ReasoningDelta, TextDelta, FinalResponse}
    verbose = list(client.agents.stream(agent_id=agent_id, message=message, options={"verbose": True}))
    kinds = [type(event) for event in verbose]
    assert kinds.count(ToolStarted) == kinds.count(ToolFinished) == 1
    assert kinds.count(UsageReport) == 2
    root = verbose[0].call_id
    tool = next(event for event in verbose if isinstance(event, ToolStarted))
    assert tool.parent_call_id == root
    assert all(event.root_call_id == root for event in verbose)
    numbers = [event.seq for event in verbose]
    assert numbers == list(range(numbers[0] or 0, (numbers[0] or 0) + len(numbers)))


def test_parallel_tools_and_bad_calls(client: AgentFlow, agent_id: str) -> None:
    message = (
        '[[tool current_time {"timezone": "Europe/Vienna"}]] [[tool current_time {"timezone": "Mars/Base"}]]'
        ' [[tool current_time {"zone": 1}]] [[tool unknown {}]] [[say done]]'
    )
    events = list(client.agents.stream(agent_id=agent_id, message=message, options={"verbose": True}))
    finished = [event for event in events if isinstance(event, ToolFinished)]
    assert [event.is_error for event in finished].count(False) == 1
    codes = {event.result["error"]["code"] for event in finished if event.is_error}
    assert codes == {"invalid_arguments", "unknown_tool"}
    assert events[-1].content["text"] == "done"
    assert events[-1].content["metrics"]["tool_calls"] == 4


def test_structured_output_is_repaired() -> None:
    model = ScriptedModel(["no json", '{"name": "apple"}', '{"name": "apple", "count": 3}'])
    with with_model(model) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        result = client.agents.run(
            agent_id=agent_id, message="three apples", output_type=Fruit, options={"model": "test/m"}
        )
        assert result.output == Fruit(name="apple", count=3)
        assert "count" in str(model.requests[2].messages[-1])
        assert [message.role for message in client.conversations.messages(result.conversation_id)] == [
            "user",
            "assistant",
        ]
        model.replies = ["never json"]
        events = list(
            client.agents.stream(agent_id=agent_id, message="x", output_type=Fruit, options={"model": "test/m"})
        )
        assert isinstance(events[-1], RunError)
        assert len([event for event in events if isinstance(event, TextDiscarded)]) == 2
        with pytest.raises(ModelError, match="does not fit the schema"):
            client.agents.run(agent_id=agent_id, message="x", output_type=Fruit, options={"model": "test/m"})


def test_max_turns_ends_with_an_answer() -> None:
    model = ScriptedModel([Reply("calling", [("current_time", {})])])
    with with_model(model) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        result = client.agents.run(agent_id=agent_id, message="x", options={"model": "test/m", "max_turns": 3})
        assert result.finish_reason == "max_turns"
        assert result.metrics.turns == 3
        assert model.requests[-1].tool_choice == "none"


def test_options_reach_the_model() -> None:
    model = ScriptedModel(["ok"])
    with with_model(model) as server, server.client() as client:
        agent = client.agents.create(
            name="Opt",
            system_prompt="Be Opt.",
            custom_instructions="Brief.",
            llm_config={"temperature": 0.9, "top_p": 0.5},
        )
        client.agents.run(
            agent_id=agent.id,
            message="x",
            options={
                "model": "test/m",
                "temperature": 0.1,
                "max_tokens": 5,
                "frequency_penalty": 0.5,
                "presence_penalty": -0.5,
                "reasoning_effort": "low",
                "reasoning_summary": "auto",
                "client_timezone": "Europe/Vienna",
                "session_context": {"page": "deals"},
                "selected_tools": [],
            },
        )
        request = model.requests[0]
        assert (request.temperature, request.top_p, request.max_tokens) == (0.1, 0.5, 5)
        assert (request.frequency_penalty, request.presence_penalty) == (0.5, -0.5)
        assert (request.reasoning_effort, request.reasoning_summary) == ("low", "auto")
        assert request.messages[0].model_dump()["text"] == "Be Opt.\n\nBrief."
        hidden = request.messages[1].model_dump_json()
        assert "Europe/Vienna" in hidden
        assert "deals" in hidden
        assert request.tools == ()
        shown = client.conversations.list(limit=1).items[0]
        assert client.conversations.messages(shown.id).items[0].content == "x"


def test_source_fields_go_to_the_conversation(client: AgentFlow, agent_id: str) -> None:
    options = {"source": "crm", "source_id": "deal-7", "source_metadata": {"stage": 2}}
    result = client.agents.run(agent_id=agent_id, message="x", options=options)
    found = client.conversations.list(source="crm", source_ref_id="deal-7", all_users=True)
    assert [item.id for item in found.items] == [result.conversation_id]
    assert found.items[0].metadata == {"stage": 2}


def test_a_failed_model_fails_the_run(client: AgentFlow, agent_id: str) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        client.agents.run(agent_id=agent_id, message="[[fail unavailable]]", timeout=20)
    assert caught.value.attempts == 1
    events = list(client.agents.stream(agent_id=agent_id, message="[[fail auth]]"))
    assert isinstance(events[-1], RunError)
    assert events[-1].code == "model_auth_error"
    assert client.runs.retrieve(events[0].content["run_id"]).status == "failed"


def test_a_model_that_breaks_off_is_asked_again() -> None:
    from agentflow.errors import ModelInterruptedError

    model = ScriptedModel([Reply("one two three four", fail=ModelInterruptedError("cut")), "whole answer"])
    with with_model(model) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        events = list(client.agents.stream(agent_id=agent_id, message="x", options={"model": "test/m"}))
        discarded = next(event for event in events if isinstance(event, TextDiscarded))
        first = next(event for event in events if isinstance(event, TextDelta))
        assert discarded.since_seq == first.seq
        assert events[-1].content["text"] == "whole answer"


def test_messages_of_one_conversation_wait_their_turn(client: AgentFlow, agent_id: str) -> None:
    conversation = client.conversations.create(agent_id=agent_id)
    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(lambda n: conversation.send(f"[[say answer {n}]] [[delay 20]]"), range(5)))
    assert {result.text for result in results} == {f"answer {n}" for n in range(5)}
    roles = [message.role for message in conversation.messages(limit=100)]
    assert roles == ["user", "assistant"] * 5


@pytest.mark.parametrize("how", ["run", "call", "message", "handle"])
def test_cancellation(client: AgentFlow, agent_id: str, how: str) -> None:
    conversation = client.conversations.create(agent_id=agent_id)
    handle = conversation.run_handle("[[words 2000]] [[delay 20]]", message_id="m1")
    events = [next(iter(handle)) for _ in range(3)]
    if how == "run":
        assert handle.run_id
        client.cancellations.cancel_run(handle.run_id)
    elif how == "call":
        assert events[0].call_id
        client.cancellations.cancel_call(events[0].call_id)
    elif how == "message":
        client.cancellations.cancel_message(conversation.id, "m1")
    else:
        assert handle.cancel().cancelled
    rest = list(handle)
    final = rest[-1]
    assert isinstance(final, FinalResponse)
    assert final.finish_reason == "cancelled"
    assert final.text.startswith("word1 word2")
    assert handle.run_id
    assert client.runs.retrieve(handle.run_id).status == "cancelled"
    assert not client.cancellations.cancel_run(handle.run_id).cancelled
    assert conversation.send("[[say next]]").text == "next"


def test_a_queued_run_can_be_cancelled(client: AgentFlow, agent_id: str) -> None:
    conversation = client.conversations.create(agent_id=agent_id)
    first = conversation.run_handle("[[words 100]] [[delay 10]]")
    next(iter(first))
    second = conversation.run_handle("[[say second]]", message_id="waits")
    third = threading.Thread(target=lambda: conversation.send("[[say third]]"))
    answers: list[Any] = []
    reader = threading.Thread(target=lambda: answers.append(second.result()))
    reader.start()
    while conversation.refresh().message_count != 2:
        pass
    client.cancellations.cancel_message(conversation.id, "waits")
    reader.join(10)
    assert answers[0].finish_reason == "cancelled"
    third.start()
    first.cancel()
    third.join(10)
    assert [message.content for message in conversation.messages()][-1] == "third"


def test_a_cancelled_run_has_no_output(client: AgentFlow, agent_id: str) -> None:
    ids: dict[str, Any] = {"conversation_id": "cancel-output", "message_id": "m"}

    def cancel() -> None:
        while True:
            try:
                client.cancellations.cancel_message("cancel-output", "m")
            except NotFoundError:
                continue
            return

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(RunCancelledError):
        client.agents.run(agent_id=agent_id, message="[[words 500]] [[delay 20]]", output_type=Fruit, **ids)
    canceller.join()


def test_a_long_thread_is_compacted() -> None:
    model = ScriptedModel(["Summary: the user likes green."])
    with with_model(model) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        conversation = client.conversations.create(agent_id=agent_id)
        for number in range(6):
            conversation.send(f"{number} " + "green " * 15_000, options={"model": "test/m"})
        shown = model.requests[-1].messages
        assert sum(len(str(message)) for message in shown) < 128_000 * 4
        assert any("summarised" in str(message) for message in shown)
        assert conversation.messages(limit=100).total == 12
        timeline = conversation.timeline()
        assert "compaction" in {part.type for part in timeline.parts}


def test_history_is_what_the_model_sees() -> None:
    model = ScriptedModel([Reply("", [("current_time", {})]), "first", "second"])
    with with_model(model) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        conversation = client.conversations.create(agent_id=agent_id)
        conversation.send("one", options={"model": "test/m"})
        conversation.send("two", options={"model": "test/m"})
        kinds = [type(message) for message in model.requests[-1].messages[1:]]
        assert kinds == [UserMessage, AssistantMessage, ToolMessage, AssistantMessage, UserMessage]


def test_conversations_that_memory_has_no_room_for_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow_server.runtime.history._MAX_CACHED", 8_000)  # two conversations or so
    model = ScriptedModel(["hello"] * 40)
    with with_model(model) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        conversations = [client.conversations.create(agent_id=agent_id) for _ in range(5)]
        for turn in range(4):
            for number, conversation in enumerate(conversations):
                conversation.send(f"turn {turn} of {number}", options={"model": "test/m"})
                said = [message for message in model.requests[-1].messages if isinstance(message, UserMessage)]
                assert [str(message.parts[-1]).count(f"of {number}") for message in said] == [1] * (turn + 1)


@pytest.mark.embedded
def test_a_packed_run_resumes_anywhere(tmp_path: Path) -> None:
    with local_server(data=tmp_path) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        told = list(
            client.agents.stream(agent_id=agent_id, message="[[words 200]] [[delay 2]]", options={"verbose": True})
        )
        deadline = time.monotonic() + 30
        with closing(sqlite3.connect(tmp_path / "agentflow.db")) as connection:
            while not connection.execute("SELECT COUNT(*) FROM events WHERE type = 'packed'").fetchone()[0]:
                assert time.monotonic() < deadline
            assert connection.execute("SELECT COUNT(*) FROM events").fetchone()[0] < len(told) / 5
        run_id = told[-1].content["run_id"]
        assert list(client.runs.stream(run_id, verbose=True)) == told
        for place in (1, len(told) // 2, len(told) - 4):
            resumed = client.runs.stream(run_id, last_event_id=str(told[place].seq), verbose=True)
            assert list(resumed) == told[place + 1 :]


def test_a_restart_keeps_everything(tmp_path: Any) -> None:
    model = ScriptedModel(["first", "second"])
    with local_server(data=tmp_path, providers={"test": model}) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        conversation = client.conversations.create(agent_id=agent_id)
        conversation.send("one", options={"model": "test/m"})
    with local_server(data=tmp_path, providers={"test": model}) as server, server.client() as client:
        resumed = client.conversations.resume(conversation.id)
        resumed.send("two", options={"model": "test/m"})
        assert [message.content for message in resumed.messages()] == ["one", "first", "two", "second"]
        assert len(model.requests[-1].messages) == 4


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"message": ""}, ValidationError, "message"),
        ({"message": "   "}, ValidationError, "message"),
        ({"message": "x" * 2_000_000}, PayloadTooLargeError, "message"),
        ({"options": {"model": "nobody/nothing"}}, ValidationError, "model"),
        ({"options": {"model": "openai/gpt-5"}}, NotAvailableError, "model"),
        ({"options": {"selected_tools": ["nope"]}}, ValidationError, "selected_tools"),
        ({"options": {"client_timezone": "Mars/Base"}}, ValidationError, "client_timezone"),
        ({"options": {"attachment_ids": ["a"]}}, NotFoundError, "attachment"),
        ({"agent_id": "00000000-0000-0000-0000-000000000000"}, NotFoundError, "agent"),
        ({"agent_id": "MainAgent"}, NotFoundError, "agent"),
        ({"message_id": "not/allowed"}, ValidationError, "message_id"),
        ({"conversation_id": "x" * 300}, ValidationError, "conversation_id"),
    ],
)
def test_bad_input_names_the_field(
    client: AgentFlow, agent_id: str, change: dict[str, Any], error: type[Exception], field: str
) -> None:
    request: dict[str, Any] = {"agent_id": agent_id, "message": "hi", **change}
    with pytest.raises(error, match=field):
        client.agents.run(**request)
    with pytest.raises(error, match=field):
        list(client.agents.stream(**request))


def test_too_many_runs_wait_and_then_are_refused() -> None:
    with local_server(max_concurrent_runs=1, max_streams=3) as server, server.client(max_retries=0) as client:
        agent_id = client.agents.by_name("MainAgent").id
        from agentflow.errors import UnavailableError

        streams = [
            client.agents.stream(agent_id=agent_id, message="[[words 400]] [[delay 10]]", timeout=20) for _ in range(3)
        ]
        next(iter(streams[0]))
        readers = [threading.Thread(target=stream.result) for stream in streams[1:]]
        for reader in readers:
            reader.start()
        while client.conversations.list().total < 3:
            pass
        fourth = client.request  # a plain call is still answered
        assert fourth("GET", "/health").status == 200
        with pytest.raises(UnavailableError) as caught:
            client.request("POST", f"/api/v1/agent/{agent_id}/chat", body={"message": "x"})
        assert caught.value.retry_after
        for run in client.conversations.list().items:
            client.conversations.delete(run.id)
        for reader in readers:
            reader.join(10)


@pytest.mark.embedded
def test_another_server_of_the_same_folder_is_refused(server: LocalServer) -> None:
    from agentflow_server.kit.settings import SettingsError

    with pytest.raises(SettingsError, match="in use"), local_server(data=server.data):
        pass


@pytest.mark.anyio
async def test_runs_cancelled_the_moment_they_begin_end(server: LocalServer) -> None:
    async with server.async_client(timeout=30) as client:
        agent_id = (await client.agents.by_name("MainAgent")).id

        async def one(number: int) -> str:
            call_id = f"at-once-{number}"
            message = "[[words 300]] [[delay 20]]"
            run = asyncio.create_task(
                client.agents.run(agent_id=agent_id, message=message, options={"call_id": call_id})
            )
            while True:
                try:
                    await client.cancellations.cancel_call(call_id)
                except NotFoundError:
                    continue
                break
            return (await run).finish_reason

        for batch in range(5):
            reasons = await asyncio.gather(*(one(batch * 8 + number) for number in range(8)))
            assert reasons == ["cancelled"] * 8
