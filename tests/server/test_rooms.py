"""Agents, conversations, models and the system through the SDK: what they promise, and what they refuse."""

import sqlite3
import threading
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    ValidationError,
)
from agentflow_server.kit.settings import Settings, SettingsError
from agentflow_server.testing import LocalServer, ScriptedModel, local_server

MISSING = "00000000-0000-0000-0000-000000000000"


def test_agents_come_and_go(client: AgentFlow) -> None:
    agent = client.agents.create(
        name="Clerk", description="Files things.", llm_config={"model": "agentflow/scripted"}, tools=["current_time"]
    )
    assert client.agents.by_name("Clerk").id == agent.id
    assert agent.tool_count == 1
    assert client.agents.retrieve(agent.id).description == "Files things."
    config = client.agents.update(agent.id, llm_config={"temperature": 0.5}, system_prompt="Be brief.")
    assert config.llm_config == {"model": "agentflow/scripted", "temperature": 0.5}
    assert client.agents.update(agent.id, llm_config={"temperature": None}).llm_config == {
        "model": "agentflow/scripted"
    }
    assert client.agents.get_config(agent.id).system_prompt == "Be brief."
    assert client.agents.rename(agent.id, "Archivist").name == "Archivist"
    with pytest.raises(NotFoundError, match="Clerk"):
        client.agents.by_name("Clerk")
    with pytest.raises(ConflictError, match="MainAgent"):
        client.agents.create(name="MainAgent")
    with pytest.raises(ConflictError, match="MainAgent"):
        client.agents.rename(agent.id, "MainAgent")
    client.agents.delete(agent.id)
    with pytest.raises(NotFoundError):
        client.agents.delete(agent.id)


def test_a_repeated_creation_gives_the_same_agent(client: AgentFlow) -> None:
    first = client.agents.create(name="Once", idempotency_key="key-1")
    assert client.agents.create(name="Once", idempotency_key="key-1").id == first.id
    with pytest.raises(ConflictError, match="Idempotency-Key"):
        client.agents.create(name="Other", idempotency_key="key-1")
    client.agents.delete(first.id)


def test_system_agents_stay(client: AgentFlow, agent_id: str) -> None:
    with pytest.raises(ConflictError, match="system agent"):
        client.agents.delete(agent_id)
    assert client.agents.stats().system_agents == 1


def test_pages_walk_on_by_themselves(client: AgentFlow) -> None:
    made = [client.agents.create(name=f"Page {number:02}") for number in range(7)]
    names = [agent.name for agent in client.agents.list(limit=3) if agent.name.startswith("Page")]
    assert names == [agent.name for agent in made]
    page = client.agents.list(limit=3, offset=1)
    assert (len(page), page.limit, page.offset) == (3, 3, 1)
    assert page.total >= 8
    assert page.agents == page.items
    for agent in made:
        client.agents.delete(agent.id)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": 3}, "name"),
        ({"max_turns": 0}, "max_turns"),
        ({"max_turns": "many"}, "max_turns"),
        ({"llm_config": {"temperature": 9}}, "llm_config.temperature"),
        ({"llm_config": {"model": "nobody/x"}}, "llm_config.model"),
        ({"llm_config": []}, "llm_config"),
        ({"tools": ["nope"]}, "tools"),
        ({"knowledge_bases": ["kb"]}, "knowledge_bases"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_agents_refuse_what_does_not_hold(client: AgentFlow, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        client.request("POST", "/api/v1/agents", body={"name": "Refused", **settings})
    assert caught.value.details[0]["field"] == field


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", f"/api/v1/agent/{MISSING}", NotFoundError),
        ("GET", "/api/v1/agent/%00", NotFoundError),
        ("GET", "/api/v1/agent/' OR 1=1 --", NotFoundError),
        ("GET", f"/api/v1/conversations/{MISSING}", NotFoundError),
        ("GET", f"/api/v1/conversations/{MISSING}/messages", NotFoundError),
        ("GET", f"/api/v1/conversations/{MISSING}/timeline", NotFoundError),
        ("GET", f"/api/v1/conversations/{MISSING}/watch", NotFoundError),
        ("POST", f"/api/v1/conversations/{MISSING}/resume", NotFoundError),
        ("POST", f"/api/v1/conversations/{MISSING}/title/generate", NotFoundError),
        ("DELETE", f"/api/v1/conversations/{MISSING}", NotFoundError),
        ("GET", f"/api/v1/runs/{MISSING}", NotFoundError),
        ("GET", f"/api/v1/runs/{MISSING}/stream", NotFoundError),
        ("POST", f"/api/v1/cancellations/runs/{MISSING}", NotFoundError),
        ("POST", f"/api/v1/cancellations/calls/{MISSING}", NotFoundError),
        ("POST", f"/api/v1/cancellations/conversations/{MISSING}/messages/m", NotFoundError),
        ("GET", "/api/v1/models/nobody/nothing", NotFoundError),
        ("GET", "/api/v1/nothing", NotFoundError),
        ("PUT", "/api/v1/agents", BadRequestError),
        ("GET", "/api/v1/agents?limit=0", ValidationError),
        ("GET", "/api/v1/agents?limit=101", ValidationError),
        ("GET", "/api/v1/agents?offset=-1", ValidationError),
        ("GET", "/api/v1/agents?limit=ten", ValidationError),
        ("GET", "/api/v1/conversations?limit=101", ValidationError),
        ("GET", "/api/v1/conversations?all_users=true", ValidationError),
        ("GET", "/api/v1/conversations/search", ValidationError),
    ],
)
def test_what_is_not_there_is_said_in_the_one_envelope(
    client: AgentFlow, method: str, path: str, error: type[APIError]
) -> None:
    with pytest.raises(error) as caught:
        client.request(method, path)
    assert caught.value.request_id
    assert caught.value.code == error.code
    assert caught.value.message


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        (b"{", "application/json", BadRequestError),
        (b"\xff\xfe", "application/json", BadRequestError),
        (b"[]", "application/json", ValidationError),
        (b'"text"', "application/json", ValidationError),
        (b"", "application/json", ValidationError),
        (b"a=b", "application/x-www-form-urlencoded", ValidationError),
        (b'{"name": "' + b"x" * 5_000_000 + b'"}', "application/json", APIError),
        (b"[" * 100_000, "application/json", BadRequestError),
    ],
    ids=["cut", "bytes", "list", "text", "empty", "form", "huge", "deep"],
)
def test_bodies_that_cannot_be_read(server: LocalServer, body: bytes, kind: str, error: type[APIError]) -> None:
    import httpx2
    from agentflow.errors import api_error

    with httpx2.Client() as http:
        response = http.post(f"{server.endpoint}/api/v1/agents", content=body, headers={"Content-Type": kind})
    found = api_error(response.status_code, response.json())
    assert isinstance(found, error)
    assert response.status_code in (400, 413, 422)
    assert response.json()["error"]["request_id"] == response.headers["x-request-id"]


def test_a_body_without_a_length_is_bounded(server: LocalServer) -> None:
    import httpx2

    with httpx2.Client() as http:
        response = http.post(
            f"{server.endpoint}/api/v1/agents",
            content=(b"x" * 65536 for _ in range(100)),
            headers={"Content-Type": "application/json"},
        )
    assert response.status_code == 413


def test_conversations_are_listed_by_their_filters(client: AgentFlow, agent_id: str) -> None:
    other = client.agents.create(name="Filter")
    crm = client.conversations.create(
        agent_id=agent_id, source="crm", source_ref_id="r1", metadata={"a": 1}, title="One"
    )
    mail = client.conversations.create(agent_id=other.id, source="mail", source_ref_id="r1")
    found = client.conversations
    assert [item.id for item in found.list(source="crm", source_ref_id="r1")] == [crm.id]
    assert [item.id for item in found.list(agent_id=other.id)] == [mail.id]
    assert crm.id not in [item.id for item in found.list(exclude_source="crm")]
    assert found.list(source_ref_id="r1", all_users=True).total == 2
    assert found.list(source="crm", limit=1).items[0].metadata == {"a": 1}
    client.agents.delete(other.id)
    assert found.detail(mail.id).id == mail.id


def test_a_conversation_id_may_be_ones_own(client: AgentFlow, agent_id: str) -> None:
    first = client.conversations.create(agent_id=agent_id, conversation_id="my-own-id")
    again = client.conversations.create(agent_id=agent_id, conversation_id="my-own-id")
    assert first.id == again.id == "my-own-id"
    other = client.agents.create(name="Taker")
    with pytest.raises(ConflictError):
        client.conversations.create(agent_id=other.id, conversation_id="my-own-id")
    client.agents.delete(other.id)


def test_search_finds_words_and_takes_wildcards_as_they_are(client: AgentFlow, agent_id: str) -> None:
    conversation = client.conversations.create(agent_id=agent_id)
    conversation.send("The quarterly Zebra report is 100% done_now")
    search = client.conversations.search
    assert [item.id for item in search("zebra REPORT")] == [conversation.id]
    assert [item.id for item in search("100% done_")] == [conversation.id]
    assert search("100%done").total == 0
    assert search("' OR '1'='1").total == 0


def test_titles(client: AgentFlow, agent_id: str) -> None:
    conversation = client.conversations.create(agent_id=agent_id)
    assert conversation.title is None
    with pytest.raises(ValidationError, match="no messages"):
        conversation.generate_title()
    conversation.send("Plan the  move\nto the new office " + "and more " * 30)
    assert conversation.refresh().title.startswith("Plan the move to the new office")  # type: ignore[union-attr]
    assert len(conversation.title or "") <= 81
    assert conversation.set_title("Moving").title == "Moving"
    conversation.send("something else")
    assert conversation.refresh().title == "Moving"
    assert conversation.generate_title().title


def test_a_generated_title_is_the_models() -> None:
    with (
        local_server(providers={"test": ScriptedModel(["answer", '"Office move"'])}) as server,
        server.client() as client,
    ):
        agent = client.agents.create(name="Titles", llm_config={"model": "test/m"})
        conversation = client.conversations.create(agent_id=agent.id)
        conversation.send("Plan the move")
        assert conversation.generate_title().title == "Office move"


def test_deleting_stops_what_runs(client: AgentFlow, agent_id: str) -> None:
    conversation = client.conversations.create(agent_id=agent_id)
    handle = conversation.run_handle("[[words 2000]] [[delay 20]]")
    next(iter(handle))
    ended: list[Any] = []
    reader = threading.Thread(target=lambda: ended.append(handle.result()))
    reader.start()
    conversation.delete()
    reader.join(10)
    assert ended[0].finish_reason == "cancelled"
    with pytest.raises(NotFoundError):
        conversation.refresh()
    assert handle.run_id
    with pytest.raises(NotFoundError):
        client.runs.retrieve(handle.run_id)


def test_watching(client: AgentFlow, agent_id: str) -> None:
    conversation = client.conversations.create(agent_id=agent_id)
    snapshots = client.conversations.watch(conversation.id)
    first = next(snapshots)
    assert first.type == "conversation_update"
    assert first.content["messages"] == []
    conversation.send("[[say hello]]")
    said: list[str] = []
    snapshot = first
    while len(said) < 2:
        snapshot = next(snapshots)
        said += [message["content"] for message in snapshot.content["messages"]]
    assert said == ["[[say hello]]", "hello"]
    last_seq = str(snapshot.seq)
    snapshots.close()
    conversation.set_title("Later")
    resumed = client.conversations.watch(conversation.id, last_event_id=last_seq)
    changes: list[Any] = []
    reader = threading.Thread(target=lambda: changes.extend(resumed))
    reader.start()
    conversation.send("[[say again]]")
    conversation.delete()
    reader.join(10)
    assert not reader.is_alive()
    assert changes[-1].content["deleted"]
    assert [m["content"] for change in changes for m in change.content["messages"]][:1] == ["[[say again]]"]


def test_the_timeline_is_a_tree(client: AgentFlow, agent_id: str) -> None:
    conversation = client.conversations.create(agent_id=agent_id)
    conversation.send("[[tool current_time {}]] [[say done]]")
    timeline = conversation.timeline()
    assert [(call.role, call.status) for call in timeline.calls] == [("agent", "completed")]
    assert [(call.name, call.status) for call in timeline.calls[0].calls] == [("current_time", "completed")]
    assert [part.type for part in timeline.parts] == ["user", "tool_request", "tool_response", "agent_text"]
    numbers = [part.seq for part in timeline.parts]
    assert numbers == sorted(numbers)


def test_models(client: AgentFlow) -> None:
    catalogue = client.models.list()
    assert catalogue.default == "agentflow/scripted"
    by_id = {model.id: model for model in catalogue.models}
    assert by_id["agentflow/scripted"].available
    assert not by_id["openai/gpt-5"].available
    assert by_id["openai/gpt-5"].pricing
    assert by_id["openai/gpt-5"].capabilities.contextWindow >= 100_000
    assert client.models.retrieve("openai/gpt-5").supportedReasoningEfforts


def test_the_system(client: AgentFlow) -> None:
    assert client.system.health().status == "ok"
    assert client.system.ready().checks["database"] == "ok"
    info = client.system.info()
    assert info.api_version == "v1"
    assert info.features["agents"]
    assert info.features["knowledge_bases"] is False
    assert info.limits["max_message_chars"] == 500_000


def test_another_user_sees_nothing(tmp_path: Any) -> None:
    with local_server(data=tmp_path) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        result = client.agents.run(agent_id=agent_id, message="secret", conversation_id="mine")
    with local_server(data=tmp_path, dev_user_id="someone-else") as server, server.client() as client:
        assert client.conversations.list().total == 0
        assert client.conversations.search("secret").total == 0
        for look in (
            lambda: client.conversations.detail("mine"),
            lambda: client.conversations.timeline("mine"),
            lambda: client.conversations.delete("mine"),
            lambda: client.conversations.set_title("mine", "x"),
            lambda: client.runs.retrieve(result.run_id),
            lambda: client.runs.stream(result.run_id).result(),
            lambda: client.cancellations.cancel_run(result.run_id),
            lambda: client.cancellations.cancel_call(result.call_id),
            lambda: client.cancellations.cancel_message("mine", result.message_id),
            lambda: client.agents.run(agent_id=agent_id, message="hi", conversation_id="mine"),
            lambda: list(client.agents.stream(agent_id=agent_id, message="hi", conversation_id="mine")),
        ):
            with pytest.raises(NotFoundError):
                look()


def test_another_tenant_sees_nothing(tmp_path: Any) -> None:
    with local_server(data=tmp_path) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        result = client.agents.run(agent_id=agent_id, message="secret", conversation_id="mine")
    with local_server(data=tmp_path, dev_tenant_name="other") as server, server.client() as client:
        own = client.agents.by_name("MainAgent").id
        assert own != agent_id
        assert client.agents.list().total == 1
        with pytest.raises(NotFoundError):
            client.agents.retrieve(agent_id)
        with pytest.raises(NotFoundError):
            client.agents.run(agent_id=agent_id, message="hi")
        with pytest.raises(NotFoundError):
            client.runs.retrieve(result.run_id)
        mine = client.agents.run(agent_id=own, message="hi", conversation_id="mine")
        assert client.conversations.messages("mine").total == 2
        assert mine.run_id != result.run_id


def test_without_the_bypass_everybody_is_refused(tmp_path: Any) -> None:
    with local_server(data=tmp_path) as server:
        endpoint = server.endpoint
        with AgentFlow(endpoint=endpoint, access_token="forged") as client, pytest.raises(AuthenticationError):
            client.agents.list()
        with AgentFlow(endpoint=endpoint, default_headers={"Origin": "https://evil.example"}) as client:
            with pytest.raises(PermissionDeniedError):
                client.agents.list()
        with AgentFlow(endpoint=endpoint, default_headers={"Host": "evil.example"}) as client:
            with pytest.raises(PermissionDeniedError):
                client.agents.list()


@pytest.mark.embedded
def test_a_database_that_cannot_be_written_is_told(tmp_path: Any) -> None:
    with local_server(data=tmp_path) as server, server.client(max_retries=0, timeout=20) as client:
        agent_id = client.agents.by_name("MainAgent").id
        kept = client.agents.run(agent_id=agent_id, message="kept")
        blocker = sqlite3.connect(tmp_path / "agentflow.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="cannot be written"):
            client.request("POST", "/api/v1/agents", body={"name": "NotNow"})
        blocker.execute("ROLLBACK")
        blocker.close()
        assert client.runs.retrieve(kept.run_id).status == "completed"
        assert client.agents.create(name="Now").name == "Now"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"AGENTFLOW_PORT": "many"}, "AGENTFLOW_PORT"),
        ({"AGENTFLOW_PORT": "70000"}, "AGENTFLOW_PORT"),
        ({"DEV_AUTH_BYPASS": "perhaps"}, "DEV_AUTH_BYPASS"),
        ({"DEV_AUTH_BYPASS": "true", "AGENTFLOW_HOST": "0.0.0.0"}, "loopback"),
        ({"AGENTFLOW_SQLITE_SYNCHRONOUS": "off"}, "AGENTFLOW_SQLITE_SYNCHRONOUS"),
        ({"AGENTFLOW_LOG_LEVEL": "loud"}, "AGENTFLOW_LOG_LEVEL"),
    ],
)
def test_settings_name_the_variable(environ: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Settings.from_env(environ)


def test_the_bypass_may_be_opened_on_purpose() -> None:
    settings = Settings.from_env(
        {"DEV_AUTH_BYPASS": "true", "AGENTFLOW_HOST": "0.0.0.0", "AGENTFLOW_DEV_ALLOW_REMOTE": "true"}
    )
    assert settings.dev_allow_remote
