"""Planning and reflection: own model calls, events, what the model sees, and what readers are told is void."""

import json
from typing import Any

from agentflow import AgentFlow
from agentflow.errors import ModelUnavailableError
from agentflow.events import Event, FinalResponse, PlanUpdated, Reflection, RunWarning, TextDelta, TextDiscarded
from agentflow_server.testing import Reply, ScriptedModel, local_server
from pydantic import BaseModel


def stream(client: AgentFlow, agent_id: str, message: str, **options: Any) -> list[Event]:
    return list(client.agents.stream(agent_id=agent_id, message=message, options=options))


def test_a_run_makes_a_plan_and_keeps_it_up_to_date(client: AgentFlow, agent_id: str) -> None:
    steps = [{"title": "Look", "status": "completed"}, {"title": "Tell", "status": "in_progress"}]
    update = f"[[tool update_plan {json.dumps({'steps': steps})}]]"
    message = f"[[plan Look; Tell]] {update} [[say told]]"
    events = stream(client, agent_id, message, enable_planning=True)
    plans = [event.content["steps"] for event in events if isinstance(event, PlanUpdated)]
    assert [(step["id"], step["title"], step["status"]) for step in plans[0]] == [
        ("1", "Look", "pending"),
        ("2", "Tell", "pending"),
    ]
    assert [step["status"] for step in plans[1]] == ["completed", "in_progress"]
    final = events[-1]
    assert isinstance(final, FinalResponse)
    assert final.text == "told"
    assert final.usage["requests"] == 3
    assert final.metrics["turns"] == 2
    assert final.conversation_id
    said = [message.content for message in client.conversations.messages(final.conversation_id)]
    assert said == [message, "told"]
    plain = stream(client, agent_id, message)
    assert not [event for event in plain if isinstance(event, PlanUpdated)]


def test_the_plan_is_shown_to_the_model() -> None:
    model = ScriptedModel(['{"steps": ["One", "Two"]}', "done", "again"])
    with local_server(providers={"test": model}) as server, server.client() as client:
        agent = client.agents.create(name="Planner", llm_config={"model": "test/m"}, enable_planning=True)
        assert client.agents.retrieve(agent.id).capabilities.planning
        conversation = client.conversations.create(agent_id=agent.id)
        assert conversation.send("go").text == "done"
        asked, answered = model.requests[:2]
        assert asked.output_name == "plan"
        assert asked.tools == ()
        assert asked.attribution
        assert asked.attribution.purpose == "planning"
        assert "1. [pending] One" in str(answered.messages[-1])
        assert [tool.name for tool in answered.tools] == ["update_plan"]
        conversation.send("more", options={"enable_planning": False})
        assert "1. [pending] One" in str(model.requests[2].messages)
        assert model.requests[2].tools == ()


def test_without_a_usable_plan_the_run_goes_on() -> None:
    model = ScriptedModel(["no json", "answer", ModelUnavailableError("away"), "answer"])
    with local_server(providers={"test": model}) as server, server.client() as client:
        agent = client.agents.create(name="Planner", llm_config={"model": "test/m"}, enable_planning=True)
        events = stream(client, agent.id, "go")
        assert events[-1].content["text"] == "answer"
        assert [event.code for event in events if isinstance(event, RunWarning)] == ["planning_failed"]
        assert [event.content["steps"] for event in events if isinstance(event, PlanUpdated)] == [[]]


def test_a_draft_is_sent_back_with_reasons(client: AgentFlow, agent_id: str) -> None:
    message = "[[say a draft]] [[revise too short]] [[revised a longer answer]]"
    events = stream(client, agent_id, message, enable_reflection=True, max_reflection_attempts=3, verbose=True)
    looks = [event.content for event in events if isinstance(event, Reflection)]
    assert looks == [
        {"attempt": 1, "decision": "revise", "reasons": ["too short"]},
        {"attempt": 2, "decision": "accept", "reasons": []},
    ]
    discarded = [event for event in events if isinstance(event, TextDiscarded)]
    first = next(event for event in events if isinstance(event, TextDelta))
    assert [(event.reason, event.since_seq) for event in discarded] == [("reflection", first.seq)]
    kept = [
        event.text for event in events if isinstance(event, TextDelta) and (event.seq or 0) > (discarded[0].seq or 0)
    ]
    final = events[-1]
    assert isinstance(final, FinalResponse)
    assert "".join(kept) == final.text == "a longer answer"
    assert final.usage["requests"] == 4
    assert final.conversation_id
    said = [message.content for message in client.conversations.messages(final.conversation_id)]
    assert said == [message, "a longer answer"]


def test_reflection_is_bounded(client: AgentFlow, agent_id: str) -> None:
    message = "[[say draft]] [[revise a]] [[revise b]] [[revise c]]"
    for attempts, looks in ((0, 0), (None, 1), (2, 2)):
        options: dict[str, Any] = {"enable_reflection": True}
        if attempts is not None:
            options["max_reflection_attempts"] = attempts
        events = stream(client, agent_id, message, **options)
        assert len([event for event in events if isinstance(event, Reflection)]) == looks
        assert len([event for event in events if isinstance(event, TextDiscarded)]) == looks
        assert events[-1].content["text"] == "draft"


def test_the_critic_sees_the_draft_and_the_results() -> None:
    model = ScriptedModel(
        [
            Reply("", [("current_time", {"timezone": "UTC"})]),
            "It is late.",
            '{"decision": "revise", "reasons": ["name the zone"]}',
            "It is late in UTC.",
        ]
    )
    with local_server(providers={"test": model}) as server, server.client() as client:
        agent = client.agents.create(
            name="Careful", llm_config={"model": "test/m"}, tools=["current_time"], enable_reflection=True
        )
        assert client.agents.retrieve(agent.id).capabilities.reflection
        result = client.agents.run(agent_id=agent.id, message="How late is it?")
        assert result.text == "It is late in UTC."
        critic = str(model.requests[2].messages)
        assert "It is late." in critic
        assert "timezone" in critic
        assert "How late is it?" in critic
        assert "name the zone" in str(model.requests[3].messages[-1])
        assert len(model.requests) == 4


def test_a_critique_that_cannot_be_read_lets_the_draft_pass() -> None:
    model = ScriptedModel(["draft", "no json"])
    with local_server(providers={"test": model}) as server, server.client() as client:
        agent = client.agents.create(name="Careful", llm_config={"model": "test/m"}, enable_reflection=True)
        events = stream(client, agent.id, "go")
        assert events[-1].content["text"] == "draft"
        assert [event.code for event in events if isinstance(event, RunWarning)] == ["reflection_failed"]


def test_reflection_goes_with_structured_output() -> None:
    class Count(BaseModel):
        count: int

    model = ScriptedModel(['{"count": 1}', '{"decision": "revise", "reasons": ["it is two"]}', '{"count": 2}'])
    with local_server(providers={"test": model}) as server, server.client() as client:
        agent = client.agents.create(name="Counter", llm_config={"model": "test/m"}, enable_reflection=True)
        assert client.agents.run(agent_id=agent.id, message="count", output_type=Count).output == Count(count=2)
