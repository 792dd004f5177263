"""Both colours have the same surface, and what is public is what is promised."""

import inspect

import agentflow
import pytest
from agentflow import _sync, events, resources
from agentflow.client import AgentFlow, AsyncAgentFlow

ROOMS = [
    "attachments",
    "batches",
    "completions",
    "agents",
    "artifacts",
    "background",
    "cached_results",
    "cancellations",
    "conversations",
    "knowledge_bases",
    "memory",
    "models",
    "prompt_blocks",
    "runs",
    "system",
    "usage",
]
NESTED = ["subagents"]


def surface(cls: type) -> dict[str, list[tuple[str, object]]]:
    return {
        name.replace("aclose", "close"): [
            (parameter.name, parameter.default) for parameter in inspect.signature(member).parameters.values()
        ]
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("room", ROOMS + NESTED)
def test_resources_are_the_same_in_both_colours(room: str) -> None:
    __import__(f"agentflow.resources.{room}")
    __import__(f"agentflow._sync.{room}")
    asynchronous, synchronous = getattr(resources, room), getattr(_sync, room)
    for name, cls in inspect.getmembers(asynchronous, inspect.isclass):
        if name.startswith("Async") and cls.__module__ == asynchronous.__name__:
            assert surface(cls) == surface(getattr(synchronous, name.removeprefix("Async")))


def test_the_clients_are_the_same() -> None:
    assert surface(AgentFlow) == surface(AsyncAgentFlow)
    for room in ROOMS:
        assert isinstance(inspect.getattr_static(AgentFlow, room), type(inspect.getattr_static(AsyncAgentFlow, room)))


def test_public_names() -> None:
    for name in agentflow.__all__:
        assert getattr(agentflow, name) is not None
    assert set(agentflow.__all__) <= set(dir(agentflow))
    with pytest.raises(AttributeError):
        agentflow.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("raw", "cls"),
    [
        ({"type": "start", "call_id": "r", "root_call_id": "r", "content": {"role": "agent"}}, events.RunStarted),
        ({"type": "start", "call_id": "t", "root_call_id": "r", "content": {"role": "tool"}}, events.ToolStarted),
        (
            {"type": "start", "call_id": "s", "root_call_id": "r", "content": {"role": "sub_agent"}},
            events.SubAgentStarted,
        ),
        ({"type": "delta", "content": "a"}, events.TextDelta),
        ({"type": "end", "call_id": "r", "root_call_id": "r", "content": {}}, events.FinalResponse),
        ({"type": "end", "call_id": "t", "root_call_id": "r", "content": {"role": "tool"}}, events.ToolFinished),
        ({"type": "end", "call_id": "s", "root_call_id": "r", "content": {}}, events.SubAgentFinished),
        ({"type": "error", "call_id": "r", "root_call_id": "r", "content": {}}, events.RunError),
        ({"type": "approval_denied", "content": {}}, events.ApprovalResolved),
        ({"type": "question_expired", "content": {}}, events.QuestionAnswered),
        ({"type": "artifact_completed", "content": {"artifact_id": "a"}}, events.ArtifactStatus),
        ({"type": "new", "content": None}, events.UnknownEvent),
        ({}, events.UnknownEvent),
        ({"type": 7}, events.UnknownEvent),
    ],
)
def test_events_have_their_class(raw: dict[str, object], cls: type) -> None:
    event = events.event_of(raw)
    assert type(event) is cls
    assert event.raw is raw
