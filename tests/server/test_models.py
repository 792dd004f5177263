"""Models: the catalogue, a user's choice, the tenant's policy, its own keys; and that a key is never seen again."""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import (
    ConflictError,
    ModelAuthError,
    NotFoundError,
    PermissionDeniedError,
    ValidationError,
)
from agentflow_server.gateway import GatewaySettings
from agentflow_server.gateway.settings import Endpoint
from agentflow_server.testing import LocalServer, ScriptedModel, local_server
from pydantic import SecretStr

from tests.server.openai_like import OpenAILike, openai_like

FIRST, SECOND, PLATFORM = "sk-tenant-1111111111aaaa", "sk-tenant-2222222222bbbb", "sk-platform-000000000000"


@pytest.fixture
def provider() -> Iterator[OpenAILike]:
    with openai_like() as running:
        yield running


@pytest.fixture
def own(provider: OpenAILike, tmp_path: Path) -> Iterator[LocalServer]:
    settings = GatewaySettings(
        endpoints={"openai": Endpoint(kind="openai", base_url=provider.url, api_key=SecretStr(PLATFORM))}
    )
    scripted = {"test": ScriptedModel(["tested"])}
    with local_server(
        data=tmp_path / "data", gateway_settings=settings, providers=scripted, allow_private_addresses=True
    ) as running:
        yield running


def ask(client: AgentFlow, model: str | None = None) -> str:
    agent_id = client.agents.by_name("MainAgent").id
    return client.agents.run(agent_id=agent_id, message="hi", options={"model": model} if model else None).text


def test_the_catalogue_has_prices_and_windows(client: AgentFlow) -> None:
    model = client.models.retrieve("openai/gpt-5")
    assert model.pricing is not None
    assert model.pricing.input_per_million
    assert model.pricing.cached_input_per_million
    assert model.pricing.cached_input_per_million < model.pricing.input_per_million
    assert model.capabilities.maxOutputTokens


def test_a_users_choice_stands_between_the_request_and_the_agent(own: LocalServer, provider: OpenAILike) -> None:
    with own.client() as client:
        agent = client.agents.create(name="Own", llm_config={"model": "agentflow/scripted"})
        run = client.agents.run
        assert client.models.get_setting().model is None
        assert client.models.set_setting("test/any").model == "test/any"
        assert run(agent_id=agent.id, message="hi").text == "tested"
        assert run(agent_id=agent.id, message="hi", options={"model": "openai/gpt-5"}).text == "hello"
        assert client.models.list().default == "test/any"
        client.models.set_setting(None)
        assert run(agent_id=agent.id, message="[[say agent]]").text == "agent"
        assert ask(client) == "hello"
        with pytest.raises(ValidationError, match="nobody"):
            client.models.set_setting("nobody/x")


def test_byo_uses_the_tenants_keys_alone(own: LocalServer, provider: OpenAILike) -> None:
    with own.client() as client:
        assert ask(client, "openai/gpt-5") == "hello"
        assert provider.used == [PLATFORM]
        with pytest.raises(ValidationError, match="key"):
            client.models.set_policy(mode="byo")
        kept = client.models.set_key("openai", FIRST, base_url=provider.url)
        assert (kept.last_four, kept.base_url) == ("aaaa", provider.url)
        assert kept.checked_at
        assert provider.tried == [FIRST]
        assert ask(client, "openai/gpt-5") == "hello"
        assert provider.used[-1] == PLATFORM
        policy = client.models.set_policy(mode="byo", allowed_models=["openai/gpt-5", "openai/gpt-4o"])
        assert (policy.mode, policy.updated_by) == ("byo", "local-dev")
        assert ask(client, "openai/gpt-5") == "hello"
        assert provider.used[-1] == FIRST
        assert ask(client) == "hello", "the server's default is remapped to an allowed model"
        catalogue = client.models.list()
        assert [model.id for model in catalogue.models if model.available] == ["openai/gpt-5", "openai/gpt-4o"]
        assert catalogue.default == "openai/gpt-5"
        for refused in ("openai/gpt-5.4", "agentflow/scripted", "test/any", "anthropic/claude-opus-5-5"):
            with pytest.raises(PermissionDeniedError, match="allows"):
                ask(client, refused)
        with pytest.raises(NotFoundError):
            client.models.retrieve("openai/gpt-5.4")
        client.models.set_policy(allow_all=True)
        with pytest.raises(PermissionDeniedError, match="none for anthropic"):
            ask(client, "anthropic/claude-opus-5-5")
        assert ask(client, "openai/gpt-5.4") == "hello"


def test_keys_rotate_and_go(own: LocalServer, provider: OpenAILike) -> None:
    with own.client() as client:
        client.models.set_key("openai", FIRST, base_url=provider.url)
        client.models.set_policy(mode="byo")
        client.models.set_key("openai", SECOND, base_url=provider.url)
        assert [key.last_four for key in client.models.keys().keys] == ["bbbb"]
        ask(client, "openai/gpt-5")
        assert provider.used == [SECOND]
        assert client.models.test_key("openai").checked_at
        provider.keys.remove(SECOND)
        with pytest.raises(ModelAuthError):
            client.models.test_key("openai")
        with pytest.raises(ConflictError, match="last key"):
            client.models.delete_key("openai")
        assert len(client.models.keys().keys) == 1
        client.models.set_policy(mode="platform")
        client.models.delete_key("openai")
        with pytest.raises(NotFoundError):
            client.models.delete_key("openai")
        assert ask(client, "openai/gpt-5") == "hello"
        assert provider.used[-1] == PLATFORM


def test_defaults_are_by_use_case(own: LocalServer) -> None:
    with own.client() as client:
        client.models.set_policy(defaults={"agent_chat": "test/any"})
        assert ask(client) == "tested"
        assert client.models.set_policy(defaults={"agent_chat": None}).defaults == {}
        client.models.set_policy(allowed_models=["test/*"])
        with pytest.raises(ValidationError, match="allowed_models"):
            client.models.set_policy(defaults={"titles": "openai/gpt-5"})
        for wrong in (["plain"], ["nobody/x"], []):
            with pytest.raises((ValidationError, ValueError), match="allowed_models"):
                client.models.set_policy(allowed_models=wrong)


def test_a_key_is_refused_for_a_reason(own: LocalServer, provider: OpenAILike) -> None:
    with own.client() as client:
        with pytest.raises(ValidationError, match="does not accept"):
            client.models.set_key("openai", "sk-wrong-0123456789", base_url=provider.url)
        with pytest.raises(ValidationError, match="provider"):
            client.models.set_key("nobody", FIRST)
        with pytest.raises(ValidationError, match="base_url"):
            client.models.set_key("azure", FIRST)
        with pytest.raises(ValidationError, match="could not be reached"):
            client.models.set_key("openai", FIRST, base_url="http://127.0.0.1:9/v1")
        assert client.models.keys().keys == []
        kept = client.models.set_key("openai", "sk-wrong-0123456789", base_url=provider.url, test=False)
        assert kept.checked_at is None


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/v1", "http://169.254.169.254/latest", "http://[::1]/v1", "ftp://example.com", "x"]
)
def test_a_tenant_cannot_point_the_server_at_its_own_network(client: AgentFlow, address: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        client.models.set_key("openai", FIRST, base_url=address, test=False)


@pytest.mark.embedded
def test_a_key_is_never_seen_again(
    own: LocalServer, provider: OpenAILike, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    wrong = "sk-wrong-very-secret-0123456789"
    with caplog.at_level(logging.DEBUG), own.client() as client:
        client.models.set_key("openai", FIRST, base_url=provider.url)
        client.models.set_policy(mode="byo")
        ask(client, "openai/gpt-5")
        for key, url in ((wrong, None), ("short", None), (f"{wrong} x", None), (wrong, "x")):
            with pytest.raises((ValidationError, ValueError)) as caught:
                client.models.set_key("openai", key, base_url=url or provider.url)
            said.append(f"{caught.value} {caught.value!r} {getattr(caught.value, 'details', '')}")
        client.models.set_key("openai", wrong, base_url=provider.url, test=False)
        with pytest.raises(ModelAuthError) as refused:
            ask(client, "openai/gpt-5")
        said.append(f"{refused.value} {refused.value.details}")
        for path in ("/api/v1/admin/models/keys", "/api/v1/admin/models/policy", "/api/v1/system", "/openapi.json",
                     "/api/v1/usage/calls", "/api/v1/models"):  # fmt: skip
            try:
                said.append(client.request("GET", path).content.decode())
            except NotFoundError:
                continue
    said += [caplog.text, *capsys.readouterr()]
    with sqlite3.connect(own.data / "agentflow.db") as connection:
        tables = connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
        for (name,) in tables.fetchall():
            said += map(str, connection.execute(f"SELECT * FROM {name}"))
    stored = b"".join(path.read_bytes() for path in own.data.rglob("*") if path.is_file())
    for secret in (FIRST, SECOND, wrong, PLATFORM):
        assert not [text for text in said if secret in text]
        assert secret.encode() not in stored
    assert "aaaa" in "".join(said) or "6789" in "".join(said)


@pytest.mark.embedded
def test_a_key_is_bound_to_its_tenant(tmp_path: Path, provider: OpenAILike) -> None:
    options: dict[str, Any] = {"data": tmp_path, "allow_private_addresses": True}
    with local_server(**options) as server, server.client() as client:
        client.models.set_key("openai", FIRST, base_url=provider.url)
    with sqlite3.connect(tmp_path / "agentflow.db") as connection:
        connection.execute("UPDATE provider_keys SET tenant = 'thief'")
    with local_server(dev_tenant_name="thief", **options) as server, server.client() as client:
        assert len(client.models.keys().keys) == 1
        client.models.set_policy(mode="byo")
        agent_id = client.agents.by_name("MainAgent").id
        with pytest.raises(Exception, match=r"internal_error|server"):
            client.agents.run(agent_id=agent_id, message="hi", options={"model": "openai/gpt-5"})
        assert provider.used == []
