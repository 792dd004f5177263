"""Background work: handles, waiting, cancelling, messages, collecting on the next turn; tools nobody waits for."""

import json
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import NotFoundError, RequestTimeoutError, ValidationError
from agentflow.events import BackgroundTask, FinalResponse, SubAgentStarted, TextDelta, ToolFinished, ToolStarted
from agentflow_server.testing import Reply, ScriptedModel, local_server

MISSING = "00000000-0000-0000-0000-000000000000"


def directive(tool: str, **arguments: Any) -> str:
    return f"[[tool {tool} {json.dumps(arguments)}]]"


@pytest.fixture(scope="module")
def _made() -> dict[str, str]:
    return {}


@pytest.fixture
def boss(client: AgentFlow, _made: dict[str, str]) -> str:
    """An agent with a sub-agent, `digger`, that it may call without waiting."""
    if "boss" not in _made:
        _made["boss"] = client.agents.create(name="BackgroundBoss").id
        client.agents.subagents.create(_made["boss"], name="Digger", description="Digs.", background=True)
    return _made["boss"]


def dig(client: AgentFlow, boss: str, message: str, conversation_id: str | None = None) -> str:
    """Begin a background task; its id."""
    call = directive("digger", message=message, background=True)
    result = client.agents.run(agent_id=boss, message=f"{call} [[say begun]]", conversation_id=conversation_id)
    assert result.text == "begun"
    (handle,) = result.background_tasks
    assert result.metrics.background_tasks == [handle]
    assert handle["status"] == "running"
    return handle["task_id"]


def test_a_task_is_begun_awaited_and_told_on_the_next_turn(client: AgentFlow, boss: str) -> None:
    conversation = client.conversations.create(agent_id=boss)
    task_id = dig(client, boss, "[[words 40]] [[delay 10]]", conversation.id)
    task = client.background.retrieve(task_id)
    assert (task.status, task.kind, task.name, task.conversation_id) == (
        "running",
        "sub_agent",
        "Digger",
        conversation.id,
    )
    assert not conversation.refresh().has_active_generation
    assert conversation.send("[[say meanwhile]]").text == "meanwhile"
    done = client.background.wait(task_id, timeout=20)
    assert done.status == "completed"
    assert done.text.endswith("word40")
    assert done.result
    assert done.result["usage"]["output_tokens"] == 40
    assert done.ended_at
    timeline = conversation.timeline()
    conversation.send("[[say thanks]]")
    newest = [part for part in conversation.timeline().parts if part.type == "user"][-1]
    hidden = str(newest.content)
    assert "<system_events>" in hidden
    assert f"Background task {task_id} (Digger) is completed: word1 word2" in hidden
    conversation.send("[[say again]]")
    assert "<system_events>" not in str(
        [part for part in conversation.timeline().parts if part.type == "user"][-1].content
    )
    tree = timeline.calls[0]
    assert tree.calls[0].calls[0].status == "completed"
    page = client.background.list(conversation_id=conversation.id, status="completed")
    assert [item.task_id for item in page] == [task_id]
    assert client.background.list(conversation_id=conversation.id, status="running").total == 0


def test_events_tell_of_a_task(client: AgentFlow, boss: str) -> None:
    call = directive("digger", message="[[say dug]]", background=True)
    message = f"{call} [[words 30]] [[delay 10]]"
    events = list(client.agents.stream(agent_id=boss, message=message))
    told = [event for event in events if isinstance(event, BackgroundTask)]
    assert [event.content["status"] for event in told] == ["running", "completed"]
    assert told[0].task_id == told[1].task_id
    assert told[1].content["text"] == "dug"
    final = events[-1]
    assert isinstance(final, FinalResponse)
    assert final.background_tasks[0]["task_id"] == told[0].task_id


def test_the_model_collects_a_result(client: AgentFlow, boss: str) -> None:
    conversation = client.conversations.create(agent_id=boss)
    task_id = dig(client, boss, "[[words 30]] [[delay 20]]", conversation.id)
    early = conversation.send(directive("get_background_sub_agent_result", task_id=task_id))
    assert '"status": "running"' in early.text
    late = conversation.send(directive("get_background_sub_agent_result", task_id=task_id, wait=True))
    assert late.text.endswith("word30")
    conversation.send("[[say on]]")
    # what was collected is not told again
    assert "<system_events>" not in str(conversation.timeline().parts[-2].content)
    stranger = client.conversations.create(agent_id=boss)
    unknown = stranger.send(directive("get_background_sub_agent_result", task_id=task_id))
    assert "there is no background task" in unknown.text or "no tool" in unknown.text


def test_a_task_is_cancelled(client: AgentFlow, boss: str) -> None:
    task_id = dig(client, boss, "[[words 2000]] [[delay 20]]")
    assert client.background.cancel(task_id).task_id == task_id
    done = client.background.wait(task_id, timeout=30)
    assert done.status == "cancelled"
    assert client.background.cancel(task_id).status == "cancelled"


def test_waiting_has_an_end(client: AgentFlow, boss: str) -> None:
    task_id = dig(client, boss, "[[words 2000]] [[delay 20]]")
    with pytest.raises(RequestTimeoutError, match="goes on"):
        client.background.wait(task_id, timeout=0.2)
    client.background.cancel(task_id)


def test_cancelling_the_run_cancels_what_it_began(client: AgentFlow, boss: str) -> None:
    call = directive("digger", message="[[words 2000]] [[delay 20]]", background=True)
    stream = client.agents.stream(
        agent_id=boss, message=f"{call} [[words 2000]] [[delay 20]]", options={"verbose": True}
    )
    handle = next(event for event in stream if isinstance(event, ToolFinished)).result
    stream.cancel()
    list(stream)
    assert client.background.wait(handle["task_id"], timeout=5).status == "cancelled"


def test_a_failed_task_is_told(client: AgentFlow, boss: str) -> None:
    conversation = client.conversations.create(agent_id=boss)
    task_id = dig(client, boss, "[[fail auth]]", conversation.id)
    done = client.background.wait(task_id, timeout=5)
    assert done.status == "failed"
    assert done.error
    assert done.error["code"] == "model_auth_error"
    collected = conversation.send(directive("get_background_sub_agent_result", task_id=task_id))
    assert "Error: Digger: scripted failure: auth" in collected.text


def test_messages_are_read_between_two_turns() -> None:
    worker = ScriptedModel(
        [
            Reply("working " * 30, [("current_time", {})], delay=0.02),
            "first answer",
            "second answer",
        ]
    )
    with local_server(providers={"w": worker}) as server, server.client() as client:
        boss = client.agents.by_name("MainAgent").id
        client.agents.subagents.create(
            boss, name="Digger", description="Digs.", background=True,
            llm_config={"model": "w/m"}, tool_assignments=["current_time"],
        )  # fmt: skip
        task_id = dig(client, boss, "dig here")
        sent = client.background.message(task_id, "and look for gold")
        assert sent.status == "running"
        assert client.background.wait(task_id, timeout=10).text == "first answer"
        asked = worker.requests[1].messages
        assert "and look for gold" in str(asked[-1])
        assert [message.role for message in asked[-3:]] == ["assistant", "tool", "user"]
        # a message to one that has ended takes its thread up again
        again = client.background.message(task_id, "anything else?", mode="send_and_wait")
        assert (again.status, again.text) == ("completed", "second answer")
        thread = str(worker.requests[2].messages)
        assert "dig here" in thread
        assert "first answer" in thread
        assert "anything else?" in thread


def test_a_message_that_comes_with_the_answer_is_read() -> None:
    worker = ScriptedModel([Reply("answer " * 20, delay=0.02), "second thought"])
    with local_server(providers={"w": worker}) as server, server.client() as client:
        boss = client.agents.by_name("MainAgent").id
        client.agents.subagents.create(
            boss, name="Digger", description="Digs.", background=True, llm_config={"model": "w/m"}
        )
        task_id = dig(client, boss, "dig here")
        client.background.message(task_id, "wait, also this")
        done = client.background.wait(task_id, timeout=10)
        assert done.text == "second thought"
        assert "wait, also this" in str(worker.requests[1].messages[-1])
        assert done.result
        assert done.result["metrics"]["turns"] == 2


def test_the_model_speaks_to_a_worker_and_asks_for_progress(client: AgentFlow, boss: str) -> None:
    conversation = client.conversations.create(agent_id=boss)
    task_id = dig(client, boss, "[[words 60]] [[delay 20]]", conversation.id)
    progress = conversation.send(directive("fetch_sub_agent_progress", task_id=task_id, question="[[say half way]]"))
    assert progress.text == "The tool fetch_sub_agent_progress says: half way"
    assert progress.usage.requests == 3
    sent = conversation.send(directive("message_sub_agent", task_id=task_id, message="[[say new orders]]"))
    assert '"delivered"' in sent.text
    assert client.background.wait(task_id, timeout=20).text == "new orders"
    answered = conversation.send(
        directive("message_sub_agent", task_id=task_id, message="[[say last words]]", mode="send_and_wait")
    )
    assert answered.text.endswith("says: last words")
    events = list(client.runs.stream(answered.run_id, verbose=True))
    assert any(isinstance(event, SubAgentStarted) for event in events)
    assert next(event.text for event in events if isinstance(event, TextDelta)).startswith("last")


def test_a_repeated_message_is_said_once(client: AgentFlow, boss: str) -> None:
    task_id = dig(client, boss, "[[say dug]]")
    client.background.wait(task_id, timeout=5)
    body = {"message": "[[say more]]", "mode": "send_and_wait"}
    from agentflow.transport.request import Request

    for _ in range(2):
        headers = {"Idempotency-Key": "letter-1"}
        client._transport.raw(
            Request("POST", f"/api/v1/background/{task_id}/messages", {"wait": 10}, body, headers=headers)
        )
    run_id = client.background.retrieve(task_id).run_id
    assert run_id
    parts = client.conversations.timeline(client.runs.retrieve(run_id).conversation_id).parts
    assert [part.content["parts"][-1]["text"] for part in parts if part.type == "sub_agent_request"] == [
        "[[say dug]]",
        "[[say more]]",
    ]


def test_a_tool_is_not_waited_for() -> None:
    with local_server() as server, server.client() as client:
        agent = client.agents.create(name="Timer", tools=["current_time"], background_tools=["current_time"])
        conversation = client.conversations.create(agent_id=agent.id)
        result = conversation.send(f"{directive('current_time', background=True, timezone='UTC')} [[say begun]]")
        (handle,) = result.background_tasks
        assert (handle["kind"], handle["name"]) == ("tool", "current_time")
        done = client.background.wait(handle["task_id"], timeout=5)
        assert done.status == "completed"
        assert done.result
        assert done.result["output"]["timezone"] == "UTC"
        assert done.input == {"timezone": "UTC"}
        with pytest.raises(ValidationError, match="tool's"):
            client.background.message(done.task_id, "hello")
        bad = conversation.send(f"{directive('current_time', background=True, timezone='Mars')} [[say begun]]")
        failed = client.background.wait(bad.background_tasks[0]["task_id"], timeout=5)
        assert failed.status == "failed"
        assert failed.error
        assert failed.error["code"] == "invalid_arguments"
        plain = conversation.send(f"{directive('current_time')} [[say now]]")
        assert plain.background_tasks == []
        assert "Background task" in str(
            [part for part in conversation.timeline().parts if part.type == "user"][-1].content
        )


def test_only_what_may_runs_in_the_background(client: AgentFlow) -> None:
    boss = client.agents.create(name="StrictBoss").id
    client.agents.subagents.create(boss, name="Bound", description="x")
    message = directive("bound", message="[[say x]]", background=True)
    events = list(client.agents.stream(agent_id=boss, message=message, options={"verbose": True}))
    assert next(event for event in events if isinstance(event, ToolFinished)).is_error
    assert not [event for event in events if isinstance(event, ToolStarted)]


def test_strangers_find_no_task(client: AgentFlow) -> None:
    for call in (
        lambda: client.background.retrieve(MISSING),
        lambda: client.background.wait(MISSING),
        lambda: client.background.cancel(MISSING),
        lambda: client.background.message(MISSING, "x"),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_a_deleted_conversation_takes_its_tasks(client: AgentFlow, boss: str) -> None:
    conversation = client.conversations.create(agent_id=boss)
    task_id = dig(client, boss, "[[words 2000]] [[delay 20]]", conversation.id)
    client.conversations.delete(conversation.id)
    with pytest.raises(NotFoundError):
        client.background.retrieve(task_id)
