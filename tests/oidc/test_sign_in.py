"""Signing in at a real provider, through the command and through the SDK: device grant, client credentials, refresh."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow, AsyncAgentFlow
from agentflow.auth.profiles import Profiles
from agentflow.errors import ConfigurationError, LoginError, PermissionDeniedError
from agentflow_server.testing import LocalServer, local_server

from tests.oidc import AUDIENCE, RealProvider, confirm_device, real_provider

pytestmark = pytest.mark.slow
COMMAND = str(Path(sys.executable).with_name("agentflow"))
SCOPES = "agentflow:conversations agentflow:cancellations"


@pytest.fixture(scope="module")
def provider() -> Iterator[RealProvider]:
    with real_provider() as running:
        yield running


@pytest.fixture(scope="module")
def backend(provider: RealProvider) -> Iterator[LocalServer]:
    with local_server(dev_auth_bypass=False, auth0_domain=provider.issuer, auth0_audience=AUDIENCE) as running:
        yield running


def told(*arguments: str, **environ: str) -> Any:
    done = subprocess.run(
        [COMMAND, *arguments, "--json"], capture_output=True, text=True, env={**os.environ, **environ}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def device_login(backend: LocalServer, provider: RealProvider, profile: str, *more: str, login: str = "alice") -> Any:
    """`agentflow login --method device` in a process of its own, and a person who confirms."""
    options = ["--client-id", "cli", "--audience", AUDIENCE, "--auth0-domain", provider.issuer, "--no-browser"]
    command = [COMMAND, "login", "--endpoint", backend.endpoint, "--profile", profile, "--method", "device", *options]
    running = subprocess.Popen(
        [*command, *more, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert running.stderr is not None
    prompt = json.loads(running.stderr.readline())
    confirm_device(f"{prompt['verification_uri']}?user_code={prompt['user_code']}", login=login)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    return json.loads(out)


def machine(backend: LocalServer, provider: RealProvider, how: str = "post", **changed: Any) -> dict[str, Any]:
    options = {
        "endpoint": backend.endpoint, "client_id": f"machine-{how}", "client_secret": "machine-secret",
        "tenant": "acme", "on_behalf_of": "svc-bot", "scope": SCOPES, "audience": AUDIENCE,
        "auth0_domain": provider.issuer,
    }  # fmt: skip
    return {**options, **changed}


def test_a_person_signs_in_with_the_device_grant(backend: LocalServer, provider: RealProvider) -> None:
    made = device_login(backend, provider, "prod")
    assert (made["user_id"], made["tenant"], made["method"]) == ("alice", "acme", "device")
    me = told("whoami", "--profile", "prod")
    assert (me["user_id"], me["kind"], me["is_admin"], me["scopes"]) == ("alice", "user", False, None)
    result = told("agents", "run", "MainAgent", "[[say hello]]", "--no-stream", "--profile", "prod")
    assert result["text"] == "hello"
    assert told("conversations", "list", "--profile", "prod")["total"] == 1
    kept = Profiles(os.environ)
    assert "eyJ" not in (kept.folder / "profiles.toml").read_text()
    assert (kept.folder / "credentials/prod").stat().st_mode & 0o777 == 0o600
    with AgentFlow.from_profile("prod") as client:
        assert client.system.me().user_id == "alice"
        with pytest.raises(PermissionDeniedError, match="admin"):
            client.system.audit()


def test_an_admin_reads_what_was_refused(backend: LocalServer, provider: RealProvider) -> None:
    device_login(backend, provider, "alice")
    device_login(backend, provider, "root", "--scope", "agentflow:admin", login="root")
    with AgentFlow.from_profile("alice") as alice, pytest.raises(PermissionDeniedError):
        alice.system.audit()
    told("agents", "create", "Audited", "--profile", "root")
    entries = told("system", "audit", "--profile", "root")["entries"]
    seen = {(entry["actor"], entry["action"], entry["status"]) for entry in entries}
    assert {("alice", "system.audit", 403), ("root", "agents.create", 201)} <= seen
    assert any(action == "tenant.set_up" for _, action, _ in seen)


def test_a_refresh_token_is_used_once_by_many_processes_and_the_rotated_one_is_kept(
    backend: LocalServer, provider: RealProvider
) -> None:
    device_login(backend, provider, "many")
    profiles = Profiles(os.environ)
    profile = profiles.load("many")
    first = profile.secrets
    profiles.keep(profile, replace(first, expires_at=1.0))
    before = provider.counts()["refresh"]
    with ThreadPoolExecutor(6) as pool:
        tokens = set(pool.map(lambda _: told("token", "--profile", "many")["access_token"], range(6)))
    assert len(tokens) == 1
    assert tokens != {first.access_token}
    assert provider.counts()["refresh"] == before + 1
    second = profiles.load("many").secrets
    assert second.refresh_token not in (None, first.refresh_token)
    assert told("token", "--profile", "many", "--renew")["access_token"] not in tokens
    assert provider.counts()["refresh"] == before + 2


def test_threads_and_tasks_renew_once(backend: LocalServer, provider: RealProvider) -> None:
    device_login(backend, provider, "threads")
    profiles = Profiles(os.environ)
    profile = profiles.load("threads")
    profiles.keep(profile, replace(profile.secrets, expires_at=1.0))
    before = provider.counts()["token"]
    with AgentFlow.from_profile("threads") as client, ThreadPoolExecutor(8) as pool:
        assert {me.user_id for me in pool.map(lambda _: client.system.me(), range(16))} == {"alice"}
    assert provider.counts()["token"] == before + 1

    async def tasks() -> None:
        async with AsyncAgentFlow(**machine(backend, provider)) as client:
            found = await asyncio.gather(*(client.system.me() for _ in range(16)))
        assert {(me.user_id, me.kind, me.client_id) for me in found} == {("svc-bot", "machine", "machine-post")}

    asyncio.run(tasks())
    assert provider.counts()["token"] == before + 2


@pytest.mark.parametrize("how", ["post", "basic"])
def test_a_machine_signs_in_with_the_constructor_of_the_seed_page(
    backend: LocalServer, provider: RealProvider, how: str
) -> None:
    with AgentFlow(**machine(backend, provider, how)) as client:
        agent_id = client.agents.by_name("MainAgent").id
        assert client.agents.run(agent_id=agent_id, message="[[say hello]]").text == "hello"
        me = client.system.me()
        assert me.scopes == sorted(SCOPES.split())
        with pytest.raises(PermissionDeniedError, match="agentflow:agents"):
            client.agents.create(name="Forbidden")
        with pytest.raises(PermissionDeniedError, match="admin"):
            client.system.audit()


def test_a_machine_acts_in_its_own_tenant_only(backend: LocalServer, provider: RealProvider) -> None:
    with AgentFlow(**machine(backend, provider, tenant="rival")) as client, pytest.raises(PermissionDeniedError):
        client.conversations.list()
    with AgentFlow(**machine(backend, provider, client_secret="wrong")) as client:
        with pytest.raises(LoginError, match="invalid_client"):
            client.conversations.list()
    with AgentFlow(**machine(backend, provider, on_behalf_of=None)) as client:
        with pytest.raises(ConfigurationError, match="on_behalf_of"):
            client.conversations.list()


def test_a_machine_signs_in_with_the_command(backend: LocalServer, provider: RealProvider) -> None:
    options = [
        "--endpoint", backend.endpoint, "--profile", "ci", "--method", "m2m", "--client-id", "machine-basic",
        "--tenant", "acme", "--on-behalf-of", "svc-bot", "--scope", SCOPES,
    ]  # fmt: skip
    made = told("login", *options, AGENTFLOW_CLIENT_SECRET="machine-secret")
    assert (made["user_id"], made["tenant"]) == ("svc-bot", "acme")
    assert told("whoami", "--profile", "ci")["client_id"] == "machine-basic"
    profile = Profiles(os.environ).load("ci")
    assert (profile.auth0_domain, profile.audience) == (provider.issuer, AUDIENCE)  # as the server told
    Profiles(os.environ).keep(profile, replace(profile.secrets, expires_at=1.0))
    assert told("conversations", "list", "--profile", "ci")["total"] >= 0
    shown = told("token", "--profile", "ci")
    assert shown["headers"] == {"snc-tenant": "acme", "snc-userid": "svc-bot"}
    with AgentFlow.from_profile("ci", on_behalf_of="someone-else") as client:
        assert client.system.me().user_id == "someone-else"


def test_a_refused_token_is_renewed_and_the_call_repeated_once(backend: LocalServer, provider: RealProvider) -> None:
    device_login(backend, provider, "stale")
    profiles = Profiles(os.environ)
    profile = profiles.load("stale")
    token = profile.secrets.access_token or ""
    profiles.keep(profile, replace(profile.secrets, access_token=token[:-4] + "AAAA"))
    with AgentFlow.from_profile("stale") as client:
        assert client.system.me().user_id == "alice"
        assert client.agents.create(name="After a 401").name == "After a 401"


def test_logout_forgets_and_tells_the_provider(backend: LocalServer, provider: RealProvider) -> None:
    device_login(backend, provider, "leaving")
    kept = Profiles(os.environ).load("leaving").secrets
    assert told("logout", "--profile", "leaving") == {"profile": "leaving", "revoked": True}
    profile = Profiles(os.environ).load("leaving")
    assert not profile.secrets
    with AgentFlow.from_profile("leaving") as client, pytest.raises(LoginError, match="not signed in"):
        client.system.me()
    Profiles(os.environ).keep(profile, replace(kept, expires_at=1.0))
    with AgentFlow.from_profile("leaving") as client, pytest.raises(LoginError, match="invalid_grant"):
        client.system.me()


def test_ctrl_c_while_waiting_keeps_nothing(backend: LocalServer, provider: RealProvider) -> None:
    import signal

    options = ["--client-id", "cli", "--auth0-domain", provider.issuer, "--no-browser", "--json"]
    command = [COMMAND, "login", "--endpoint", backend.endpoint, "--profile", "never", "--method", "device", *options]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert running.stderr is not None
    assert "user_code" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "never" not in Profiles(os.environ).names()


def test_tokens_are_renewed_before_they_expire(tmp_path: Path) -> None:
    with real_provider(lifetime=3) as provider:
        with local_server(dev_auth_bypass=False, auth0_domain=provider.issuer, auth0_audience=AUDIENCE) as backend:
            with AgentFlow(**machine(backend, provider), max_retries=0) as client:
                done = threading.Event()
                for _ in range(8):
                    assert client.system.me().user_id == "svc-bot"
                    done.wait(0.5)  # the life of a token passes: nothing else can be waited for
            assert 2 <= provider.counts()["token"] <= 4
