"""Artifacts: made and changed by the model, acted on by people, versions, conflicts, files, types of one's own."""

import csv
import io
import json
from email import message_from_bytes
from typing import Any
from urllib.request import urlopen

import pytest
from agentflow import AgentFlow
from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.events import ArtifactStatus, ToolFinished
from agentflow.types.artifacts import Artifact
from agentflow_server.testing import Reply, ScriptedModel, local_server

MISSING = "00000000-0000-0000-0000-000000000000"
MAIL = {"to": ["ann@example.org"], "subject": "Hello", "body": "Dear Ann"}


def create(type_: str, title: str, content: Any) -> str:
    return f"[[tool create_artifact {json.dumps({'type': type_, 'title': title, 'content': content})}]]"


@pytest.fixture(scope="module")
def _made() -> dict[str, str]:
    return {}


@pytest.fixture
def maker(client: AgentFlow, _made: dict[str, str]) -> str:
    """An agent that may make every type of artifact."""
    if "maker" not in _made:
        _made["maker"] = client.agents.create(name="Maker", artifact_types=["*"]).id
    return _made["maker"]


def made(client: AgentFlow, maker: str, type_: str, content: Any, title: str = "A thing") -> Artifact:
    result = client.agents.run(agent_id=maker, message=f"{create(type_, title, content)} [[say made]]")
    (artifact,) = client.artifacts.list(result.conversation_id).items
    return artifact


def test_the_model_makes_an_artifact(client: AgentFlow, maker: str) -> None:
    stream = client.agents.stream(agent_id=maker, message=f"{create('email_draft', 'To Ann', MAIL)} [[say made]]")
    events = list(stream)
    told = [event for event in events if isinstance(event, ArtifactStatus)]
    assert [event.type for event in told] == ["artifact_started", "artifact_completed"]
    assert told[0].artifact_id
    artifact = client.artifacts.retrieve(told[0].artifact_id)
    assert (artifact.artifact_type, artifact.title, artifact.content) == ("email_draft", "To Ann", MAIL)
    assert (artifact.state, artifact.version) == ({"status": "draft"}, 1)
    assert artifact.actions == ["send", "schedule", "cancel"]
    assert artifact.run_id == stream.run_id
    assert [item.id for item in client.artifacts.list(stream.conversation_id)] == [artifact.id]
    assert client.artifacts.list(artifact_type="table", conversation_id=stream.conversation_id).total == 0


def test_content_that_does_not_fit_is_refused(client: AgentFlow, maker: str) -> None:
    message = f"{create('email_draft', 'x', {'subject': 'x'})} [[say sorry]]"
    stream = client.agents.stream(agent_id=maker, message=message, options={"verbose": True})
    events = list(stream)
    assert [event.type for event in events if isinstance(event, ArtifactStatus)] == ["artifact_failed"]
    ended = next(event for event in events if isinstance(event, ToolFinished))
    assert ended.is_error
    assert ended.result["error"]["code"] == "invalid_content"
    assert client.artifacts.list(stream.conversation_id).total == 0


def test_the_model_changes_an_artifact(client: AgentFlow, maker: str) -> None:
    artifact = made(client, maker, "task", {"title": "Call Ann", "priority": "low"})
    patch = {"artifact_id": artifact.id, "content": {"priority": None, "due": "2026-12-01"}, "expected_version": 1}
    message = f"[[tool update_artifact {json.dumps(patch)}]] [[say done]]"
    again: dict[str, Any] = {"agent_id": maker, "message": message, "conversation_id": artifact.conversation_id}
    events = list(client.agents.stream(**again))
    assert [event.type for event in events if isinstance(event, ArtifactStatus)] == ["artifact_updated"]
    changed = client.artifacts.retrieve(artifact.id)
    assert (changed.version, changed.content) == (2, {"title": "Call Ann", "due": "2026-12-01"})
    stale = list(client.agents.stream(**again, options={"verbose": True}))
    ended = next(event for event in stale if isinstance(event, ToolFinished))
    assert "it stands at version 2" in str(ended.result)
    assert client.artifacts.retrieve(artifact.id).version == 2


def test_people_act_and_the_model_is_told(client: AgentFlow, maker: str) -> None:
    artifact = made(client, maker, "email_draft", MAIL, "To Ann")
    sent = client.artifacts.act(artifact.id, "send", data={"sent_at": "today"}, expected_version=1)
    assert sent.state == {"status": "sent", "sent_at": "today"}
    assert (sent.version, sent.actions) == (2, [])
    with pytest.raises(ConflictError, match="is sent") as caught:
        client.artifacts.act(artifact.id, "send")
    assert caught.value.details["allowed"] == []
    with pytest.raises(ValidationError, match="no action 'burn'"):
        client.artifacts.act(artifact.id, "burn")
    conversation_id = artifact.conversation_id
    client.agents.run(agent_id=maker, message="[[say well]]", conversation_id=conversation_id)
    parts = [part for part in client.conversations.timeline(conversation_id).parts if part.type == "user"]
    hidden = str(parts[-1].content)
    assert "<system_events>" in hidden
    assert f"The user did 'send' with the artifact {artifact.id} 'To Ann': it is sent, version 2." in hidden
    assert f"{artifact.id} (email_draft, sent, version 2) 'To Ann': to: ['ann@example.org']; subject: Hello" in hidden
    client.agents.run(agent_id=maker, message="[[say well]]", conversation_id=conversation_id)
    parts = [part for part in client.conversations.timeline(conversation_id).parts if part.type == "user"]
    assert "<system_events>" not in str(parts[-1].content)


def test_changes_are_versions_and_conflicts_are_refused(client: AgentFlow, maker: str) -> None:
    artifact = made(client, maker, "document", {"body": "one"})
    second = client.artifacts.update_content(artifact.id, {"body": "two"}, title="Two", expected_version=1)
    assert (second.version, second.title, second.content) == (2, "Two", {"body": "two"})
    with pytest.raises(ConflictError, match="version 2") as caught:
        client.artifacts.update_content(artifact.id, {"body": "three"}, expected_version=1)
    assert caught.value.details["version"] == 2
    assert caught.value.details["content"] == {"body": "two"}
    with pytest.raises(ConflictError):
        client.artifacts.update_state(artifact.id, {"note": "x"}, expected_version=1)
    with pytest.raises(ConflictError):
        client.artifacts.act(artifact.id, "finalize", expected_version=7)
    with pytest.raises(ValidationError, match="content"):
        client.artifacts.update_content(artifact.id, {"body": None})
    third = client.artifacts.update_state(artifact.id, {"status": "final", "by": "me"})
    assert third.state == {"status": "final", "by": "me"}
    assert client.artifacts.update_state(artifact.id, {"by": None}).state == {"status": "final"}
    client.artifacts.act(artifact.id, "archive")
    with pytest.raises(ConflictError, match="no action leads"):
        client.artifacts.update_state(artifact.id, {"status": "draft"})
    with pytest.raises(ValidationError, match="no state 'lost'"):
        client.artifacts.update_state(artifact.id, {"status": "lost"})
    history = [(version.version, version.author, version.change) for version in client.artifacts.versions(artifact.id)]
    assert history == [
        (5, "user", "archive"), (4, "user", "state"), (3, "user", "finalize"), (2, "user", "content"),
        (1, "agent", "created"),
    ]  # fmt: skip
    assert client.artifacts.versions(artifact.id, limit=1, offset=4).items[0].content == {"body": "one"}


def test_two_people_at_once(client: AgentFlow, maker: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    artifact = made(client, maker, "email_draft", MAIL)

    def send(_: int) -> str:
        try:
            return client.artifacts.act(artifact.id, "send", expected_version=1).state["status"]
        except ConflictError:
            return "conflict"

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(send, range(8)))
    assert outcomes == ["conflict"] * 7 + ["sent"]


def test_files(client: AgentFlow, maker: str) -> None:
    document = made(client, maker, "document", {"body": "# Hä"}, "Re: port/1")
    assert client.artifacts.download(document.id).read().decode() == "# Hä"
    mail = made(client, maker, "email_draft", {**MAIL, "subject": "Hello\nBcc: x@example.org"})
    message = message_from_bytes(client.artifacts.download(mail.id).read())
    assert (message["To"], message["Subject"], message["Bcc"]) == ("ann@example.org", "Hello Bcc: x@example.org", None)
    table = made(client, maker, "table", {"columns": ["a", "b"], "rows": [[1, "x,y"], ["=1+1", None]]})
    rows = list(csv.reader(io.StringIO(client.artifacts.download(table.id).read().decode())))
    assert rows == [["a", "b"], ["1", "x,y"], ["'=1+1", ""]]
    task = made(client, maker, "task", {"title": "x"})
    assert json.loads(client.artifacts.download(task.id).read()) == {"title": "x"}
    with urlopen(f"{client.endpoint}/api/v1/artifacts/{document.id}/download") as raw:
        assert raw.headers["content-disposition"] == "attachment; filename*=UTF-8''Re_%20port_1.md"
        assert raw.headers["x-content-type-options"] == "nosniff"


def test_types_of_ones_own(client: AgentFlow) -> None:
    names = [found.name for found in client.artifacts.types()]
    assert {"document", "email_draft", "task", "table"} <= set(names)
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    made_type = client.artifacts.define_type(
        "invoice",
        label="Invoice",
        description="Asks for money.",
        content_schema=schema,
        initial_state="open",
        actions={"pay": {"from": ["open"], "to": "paid"}},
    )
    assert (made_type.states, made_type.source) == (["open", "paid"], "tenant")
    agent = client.agents.create(name="Biller", artifact_types=["invoice", "no_such_type"])
    invoice = made(client, agent.id, "invoice", {"amount": 3})
    assert client.artifacts.act(invoice.id, "pay").state == {"status": "paid"}
    bad: list[tuple[str, dict[str, Any], type[Exception]]] = [
        ("document", {"label": "x", "content_schema": {}}, ConflictError),
        ("odd", {"label": "x", "content_schema": {"type": "nothing"}}, ValidationError),
        ("odd", {"label": "x", "content_schema": {}, "actions": {"a": {"from": ["lost"], "to": "b"}}}, ValidationError),
        ("Odd", {"label": "x", "content_schema": {}}, ValidationError),
    ]
    for name, definition, error in bad:
        with pytest.raises(error):
            client.artifacts.define_type(name, **definition)
    client.artifacts.delete_type("invoice")
    with pytest.raises(NotFoundError):
        client.artifacts.delete_type("invoice")
    with pytest.raises(ConflictError):
        client.artifacts.delete_type("task")
    assert client.artifacts.retrieve(invoice.id).content == {"amount": 3}
    with pytest.raises(ConflictError, match="removed"):
        client.artifacts.update_content(invoice.id, {"amount": 4})


def test_what_the_model_is_given() -> None:
    content = {"type": "task", "title": "One", "content": {"title": "Do it"}}
    model = ScriptedModel([Reply("", [("create_artifact", content)]), "made", "seen", "chosen"])
    with local_server(providers={"test": model}) as server, server.client() as client:
        maker = client.agents.create(name="Maker", llm_config={"model": "test/m"}, artifact_types=["task"])
        plain = client.agents.create(name="Plain", llm_config={"model": "test/m"})
        conversation = client.conversations.create(agent_id=maker.id)
        conversation.send("make one")
        assert (
            "<available_artifacts>\n- task: Something somebody has to do."
            in model.requests[0].messages[0].model_dump()["text"]
        )
        assert [tool.name for tool in model.requests[0].tools] == ["create_artifact", "update_artifact"]
        assert model.requests[0].tools[0].parameters["properties"]["type"] == {"enum": ["task"]}
        conversation.send("what is there?")
        assert "Artifacts of this conversation" in str(model.requests[2].messages[-1])
        assert model.requests[2].messages[0] == model.requests[0].messages[0]
        (artifact,) = client.artifacts.list(conversation.id).items
        client.agents.run(agent_id=plain.id, message="look", options={"artifacts": [artifact.id]})
        asked = model.requests[3]
        assert "The artifact the user has chosen" in str(asked.messages)
        assert "Do it" in str(asked.messages)
        assert [tool.name for tool in asked.tools] == ["update_artifact"]
        with pytest.raises(ValidationError, match="artifacts: there is no artifact"):
            client.agents.run(agent_id=plain.id, message="look", options={"artifacts": [MISSING]})


def test_strangers_find_nothing(client: AgentFlow) -> None:
    calls: list[Any] = [
        lambda: client.artifacts.retrieve(MISSING),
        lambda: client.artifacts.versions(MISSING),
        lambda: client.artifacts.update_content(MISSING, {}),
        lambda: client.artifacts.update_state(MISSING, {}),
        lambda: client.artifacts.act(MISSING, "send"),
        lambda: client.artifacts.download(MISSING).read(),
    ]
    for call in calls:
        with pytest.raises(NotFoundError):
            call()


def test_a_deleted_conversation_takes_its_artifacts(client: AgentFlow, maker: str) -> None:
    artifact = made(client, maker, "task", {"title": "x"})
    client.conversations.delete(artifact.conversation_id)
    with pytest.raises(NotFoundError):
        client.artifacts.retrieve(artifact.id)
