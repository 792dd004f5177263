"""Tokens, keys, tenants and limits at the door, with an issuer of the test's own."""

import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from agentflow import AgentFlow
from agentflow.auth.profiles import Profile, Profiles, Secrets
from agentflow.errors import (
    AuthenticationError,
    ConfigurationError,
    PermissionDeniedError,
    ProfileDamagedError,
    RateLimitedError,
    UnavailableError,
)
from agentflow_server.kit.clock import ManualClock, SystemClock
from agentflow_server.kit.settings import Settings, SettingsError
from agentflow_server.testing import LocalServer, local_server
from joserfc import jwk

from tests.security.issuer import AUDIENCE, TENANT, LocalIssuer, local_issuer


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


def trusting(issuer: LocalIssuer, **settings: Any) -> Any:
    chosen: dict[str, Any] = {"dev_auth_bypass": False, "auth0_domain": issuer.url, "auth0_audience": AUDIENCE}
    return local_server(**{**chosen, **settings})


def client(server: LocalServer, token: str, **options: Any) -> AgentFlow:
    return AgentFlow(endpoint=server.endpoint, access_token=token, max_retries=0, **options)


def test_a_token_is_verified_once_and_its_keys_are_fetched_once(issuer: LocalIssuer) -> None:
    with trusting(issuer) as server, client(server, issuer.person(name="Alice", email="a@example.com")) as alice:
        me = alice.system.me()
        assert (me.tenant, me.user_id, me.kind, me.is_admin, me.scopes) == ("acme", "alice", "user", False, None)
        assert (me.name, me.email) == ("Alice", "a@example.com")
        for _ in range(5):
            alice.system.me()
    assert issuer.asked == ["/.well-known/openid-configuration", "/jwks"]


def test_a_new_key_is_found_and_made_up_ones_cost_the_issuer_nothing(issuer: LocalIssuer) -> None:
    clock = ManualClock(SystemClock().micros())
    rotated = jwk.RSAKey.generate_key(2048, {"kid": "second", "use": "sig"})
    with trusting(issuer, clock=clock) as server:
        with client(server, issuer.person()) as alice:
            alice.system.me()
        asked = len(issuer.asked)
        for _ in range(20):
            made_up = issuer.sign(issuer.claims(), header={"kid": os.urandom(4).hex()})
            with client(server, made_up) as stranger, pytest.raises(AuthenticationError, match="does not publish"):
                stranger.system.me()
        assert len(issuer.asked) == asked
        issuer.publish(rotated)
        clock.advance(11)
        with client(server, issuer.sign(issuer.claims(), header={"kid": "second"}, key=rotated)) as alice:
            assert alice.system.me().user_id == "alice"
        assert len(issuer.asked) == asked + 2


def test_an_issuer_that_is_away_is_not_the_callers_fault(issuer: LocalIssuer) -> None:
    clock = ManualClock(SystemClock().micros())
    document = issuer.documents.pop("/.well-known/openid-configuration")
    with trusting(issuer, clock=clock) as server, client(server, issuer.person()) as alice:
        with pytest.raises(UnavailableError, match="identity provider"):
            alice.system.me()
        issuer.documents["/.well-known/openid-configuration"] = {**document, "issuer": "https://evil.example"}
        clock.advance(11)
        with pytest.raises(UnavailableError):
            alice.system.me()
        issuer.documents["/.well-known/openid-configuration"] = document
        clock.advance(11)
        assert alice.system.me().user_id == "alice"
        issuer.documents.clear()
        with client(server, issuer.person(sub="bob", exp=int(clock.micros() / 1e6) + 4000)) as bob:
            clock.advance(1200)
            assert bob.system.me().user_id == "bob"  # by the keys there were


def test_the_profile_of_a_person_is_asked_for_once(issuer: LocalIssuer) -> None:
    seen: list[str] = []

    def told(authorization: str) -> Any:
        seen.append(authorization)
        return {"sub": "alice", TENANT: {"tenant": "from-userinfo", "roles": ["admin"]}, "name": "Alice"}

    issuer.documents["/userinfo"] = told
    with trusting(issuer) as server:
        for exp in (1, 2, 3):
            claims = issuer.claims(**{TENANT: None})
            with client(server, issuer.sign({**claims, "exp": claims["exp"] + exp})) as alice:
                me = alice.system.me()
                assert (me.tenant, me.name, me.is_admin) == ("from-userinfo", "Alice", True)
        assert len(seen) == 1
        with client(server, issuer.person(sub="mallory", **{TENANT: None})) as mallory:
            with pytest.raises(PermissionDeniedError, match="names no tenant"):
                mallory.system.me()  # the profile is another's


@pytest.mark.parametrize(
    ("settings", "claims", "admin"),
    [
        ({}, {"scope": "agentflow:admin"}, True),
        ({}, {"permissions": ["agentflow:admin"]}, True),
        ({}, {"https://agentflow.ai/roles": ["admin"]}, True),
        ({}, {"https://agentflow.ai/permissionType": "admin"}, True),
        ({}, {"roles": ["admin"], "permissionType": "admin"}, False),
        ({"admin_scope_names": "ops:all, ops:some"}, {"scope": "ops:some"}, True),
        ({"admin_scope_names": "ops:all"}, {"scope": "agentflow:admin"}, False),
        ({"auth0_claim_namespace": "urn:x", "auth0_claim_key": "org"}, {"urn:x/org": "acme", TENANT: None}, False),
    ],
)
def test_claims(issuer: LocalIssuer, settings: dict[str, Any], claims: dict[str, Any], admin: bool) -> None:
    with trusting(issuer, **settings) as server, client(server, issuer.person(**claims)) as alice:
        me = alice.system.me()
        assert (me.tenant, me.is_admin) == ("acme", admin)


def test_machines_may_have_an_issuer_of_their_own(issuer: LocalIssuer) -> None:
    with local_issuer() as other:
        own = {"auth0_m2m_issuer": other.url, "auth0_m2m_audience": "machines", "auth0_m2m_required_scope": "m2m"}
        headers = {"snc-tenant": "acme", "snc-userid": "svc-bot"}
        with trusting(issuer, **own) as server:
            good = other.machine("m2m agentflow:conversations", aud=["x", "machines"], sub="robot@clients")
            with client(server, good, default_headers=headers) as robot:
                assert (robot.system.me().user_id, robot.system.me().client_id) == ("svc-bot", "robot@clients")
            with client(server, issuer.machine("m2m"), default_headers=headers) as robot:
                with pytest.raises(AuthenticationError, match="issuer"):
                    robot.system.me()
            with client(server, other.machine("", aud="machines"), default_headers=headers) as robot:
                with pytest.raises(PermissionDeniedError, match="m2m"):
                    robot.system.me()


def test_tenants_are_set_up_when_settings_allow(issuer: LocalIssuer) -> None:
    with trusting(issuer, tenant_auto_setup=False, tenant_names="known, other") as server:
        with client(server, issuer.person(**{TENANT: "known"})) as known:
            assert known.agents.by_name("MainAgent").name == "MainAgent"
        with client(server, issuer.person(**{TENANT: "new"})) as new:
            with pytest.raises(PermissionDeniedError, match="not set up"):
                new.agents.list()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AUTH0_DOMAIN": "x.auth0.com"}, "AUTH0_AUDIENCE"),
        ({"AUTH0_DOMAIN": "http://x.example", "AUTH0_AUDIENCE": "a"}, "AUTH0_ISSUER"),
        ({"AUTH0_DOMAIN": "x", "AUTH0_AUDIENCE": "a", "AUTH0_ALGORITHMS": "RS256,none"}, "'none' is not accepted"),
        ({"AUTH0_DOMAIN": "x", "AUTH0_AUDIENCE": "a", "AUTH0_ALGORITHMS": "HS256"}, "'HS256' is not accepted"),
    ],
)
def test_settings_that_would_let_everybody_in_are_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Settings.from_env(environ)


def test_the_rate_limit_holds_over_processes_and_says_when_to_come_back() -> None:
    clock = ManualClock()
    with local_server(clock=clock, principal_rate_limit=10) as one:
        with httpx2.Client(base_url=one.endpoint) as http, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: http.get("/api/v1/system/me"), range(30)))
            taken = [answer for answer in answers if answer.status_code == 200]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert (len(taken), len(refused)) == (10, 20)
            assert all(answer.headers["retry-after"] == "6" for answer in refused)
            assert min(answer.headers["ratelimit"].split(";")[1] for answer in taken) == "r=0"
            assert taken[0].headers["ratelimit-policy"] == '"principal";q=10;w=60'
            clock.advance(6.1)
            assert http.get("/api/v1/system/me").status_code == 200
            assert http.get("/api/v1/system/me").status_code == 429
            clock.advance(61)
            assert [http.get("/api/v1/system/me").status_code for _ in range(11)] == [200] * 10 + [429]
        with one.client(max_retries=0) as limited, pytest.raises(RateLimitedError) as caught:
            limited.system.me()
        assert caught.value.retry_after == 6


@pytest.mark.embedded
def test_lots_of_two_processes_share_one_limit(tmp_path: Path) -> None:
    from agentflow_server.http.limits import Limits
    from agentflow_server.storage.sqlite import SqliteDatabase

    with local_server(data=tmp_path):
        pass  # the schema
    clock = ManualClock()

    async def spend() -> int:
        databases = [SqliteDatabase(tmp_path / "agentflow.db") for _ in range(2)]
        processes = [Limits(database, clock, tenant=1000, principal=0) for database in databases]
        given = 0
        for number in range(1400):
            try:
                await processes[number % 2].spend("acme", "alice")
            except RateLimitedError:
                continue
            given += 1
        for database in databases:
            await database.close()
        return given

    import asyncio

    assert 990 <= asyncio.run(spend()) <= 1000


def test_the_tenants_limit_counts_all_its_principals(issuer: LocalIssuer) -> None:
    with trusting(issuer, clock=ManualClock(SystemClock().micros()), tenant_rate_limit=5) as server:
        with client(server, issuer.person()) as alice, client(server, issuer.person(sub="bob")) as bob:
            for _ in range(2):
                alice.system.me()
                bob.system.me()
            bob.system.me()
            with pytest.raises(RateLimitedError, match="tenant"):
                alice.system.me()
        with client(server, issuer.person(**{TENANT: "rival"})) as rival:
            rival.system.me()


def test_no_more_runs_at_once_than_allowed() -> None:
    with local_server(principal_max_runs=2) as server, server.client(max_retries=0) as user:
        agent_id = user.agents.by_name("MainAgent").id
        begun = threading.Barrier(3)
        results: list[str] = []

        def hold() -> None:
            with user.agents.stream(agent_id=agent_id, message="[[words 3000]] [[delay 20]]") as stream:
                next(iter(stream))
                begun.wait(20)
                begun.wait(20)
                user.cancellations.cancel_run(stream.run_id or "")
                results.append(list(stream)[-1].type)

        threads = [threading.Thread(target=hold) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait(20)
        with pytest.raises(RateLimitedError, match="2 runs under way"):
            user.agents.run(agent_id=agent_id, message="[[say hello]]")
        begun.wait(20)
        for thread in threads:
            thread.join(20)
        assert results == ["end", "end"]
        assert user.agents.run(agent_id=agent_id, message="[[say hello]]").text == "hello"


def test_changes_are_audited_and_reads_are_not() -> None:
    with local_server() as server, server.client() as admin:
        made = admin.agents.create(name="Audited")
        admin.agents.list()
        admin.agents.delete(made.id)
        page = admin.system.audit()
        assert [entry.action for entry in page.items] == ["agents.delete", "agents.create", "tenant.set_up"]
        deleted = page.items[0]
        assert (deleted.actor, deleted.actor_kind, deleted.status) == ("local-dev", "dev", 204)
        assert deleted.target == f"/api/v1/agent/{made.id}"
        assert deleted.request_id
        assert [entry.action for entry in admin.system.audit(action="agents.create")] == ["agents.create"]
        assert admin.system.audit(actor="nobody").total == 0


def test_secrets_that_others_can_read_are_refused() -> None:
    profiles = Profiles(os.environ)
    profiles.save(Profile("prod", "https://x.example", "token", secrets=Secrets(access_token="t")))
    path = profiles.folder / "credentials/prod"
    path.chmod(path.stat().st_mode | stat.S_IROTH)
    with pytest.raises(ProfileDamagedError, match="chmod 600"):
        profiles.load("prod")


def test_the_environment_signs_a_machine_in(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFLOW_CLIENT_ID", "robot")
    with trusting(issuer) as server:
        with AgentFlow(endpoint=server.endpoint) as robot, pytest.raises(ConfigurationError, match="client_secret"):
            robot.system.me()
        with AgentFlow(endpoint=server.endpoint, access_token=issuer.person()) as alice:
            assert alice.system.me().kind == "user"  # the argument wins
    with pytest.raises(ConfigurationError, match="pass one of"):
        AgentFlow(endpoint="http://127.0.0.1:1", access_token="a", client_id="b").system.me()


def test_a_client_that_signs_in_is_made_without_touching_anything() -> None:
    options: dict[str, Any] = {"client_id": "x", "client_secret": "hush", "tenant": "t", "on_behalf_of": "u"}
    made = AgentFlow(endpoint="https://x.example", auth0_domain="login.example", **options)
    assert "hush" not in repr(made)
    assert "hush" not in repr(made._config.credentials)
