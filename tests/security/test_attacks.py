"""What must be refused, on every route there is: the attacks of one table against the routes of another."""

import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from agentflow_server.testing import LocalServer
from joserfc import jwk

from tests.security.issuer import TENANT, LocalIssuer
from tests.security.table import MAKERS, TABLE, Row

PRIVATE = {route: row for route, row in TABLE.items() if not row.public}
STRANGER = jwk.RSAKey.generate_key(2048, {"kid": "first"})
UNPUBLISHED = jwk.RSAKey.generate_key(2048, {"kid": "other"})
Headers = dict[str, str]
Attack = Callable[[LocalIssuer, Row], Headers]


def bearer(token: str, **more: str) -> Headers:
    return {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in more.items()}}


def wanted(row: Row) -> str:
    return f"agentflow:{row.scope}" if row.scope else "agentflow:conversations"


def now() -> int:
    return int(time.time())


ATTACKS: dict[str, tuple[int, str | None, Attack]] = {
    "no token": (401, None, lambda issuer, row: {}),
    "garbage": (401, "malformed", lambda issuer, row: bearer("garbage")),
    "three parts of garbage": (401, "malformed", lambda issuer, row: bearer("a.b.c")),
    "basic": (401, "malformed", lambda issuer, row: {"Authorization": "Basic YTpi"}),
    "too large": (401, "malformed", lambda issuer, row: bearer("a" * 17_000 + ".b.c")),
    "expired": (401, "expired", lambda issuer, row: bearer(issuer.person(exp=now() - 60, iat=now() - 900))),
    "without expiry": (401, "expired", lambda issuer, row: bearer(issuer.person(exp=None))),
    "not yet valid": (401, "not_yet_valid", lambda issuer, row: bearer(issuer.person(nbf=now() + 300))),
    "issued in the future": (401, "not_yet_valid", lambda issuer, row: bearer(issuer.person(iat=now() + 300))),
    "wrong issuer": (401, "issuer", lambda issuer, row: bearer(issuer.person(iss="https://evil.example/"))),
    "wrong audience": (401, "audience", lambda issuer, row: bearer(issuer.person(aud="https://other.example"))),
    "no audience": (401, "audience", lambda issuer, row: bearer(issuer.person(aud=None))),
    "wrong algorithm": (
        401, "algorithm", lambda issuer, row: bearer(issuer.sign(issuer.claims(), header={"alg": "RS512"})),
    ),
    "none": (401, "algorithm", lambda issuer, row: bearer(issuer.unsigned({"alg": "none"}))),
    "NONE": (401, "algorithm", lambda issuer, row: bearer(issuer.unsigned({"alg": "NONE"}))),
    "no signature": (401, "signature", lambda issuer, row: bearer(issuer.person().rsplit(".", 1)[0] + ".")),
    "unknown key": (
        401, "key", lambda issuer, row: bearer(issuer.sign(issuer.claims(), header={"kid": "other"}, key=UNPUBLISHED)),
    ),
    "another's key under a known id": (
        401, "signature", lambda issuer, row: bearer(issuer.sign(issuer.claims(), key=STRANGER)),
    ),
    "key confusion": (401, "algorithm", lambda issuer, row: bearer(issuer.confused("HS256"))),
    "key confusion under the right name": (401, "signature", lambda issuer, row: bearer(issuer.confused("RS256"))),
    "an id token's type": (
        401, "type", lambda issuer, row: bearer(issuer.sign(issuer.claims(), header={"typ": "logout+jwt"})),
    ),
    "an unknown critical header": (
        401, "critical", lambda issuer, row: bearer(issuer.unsigned({"alg": "RS256", "crit": ["exp"]}, "AAAA")),
    ),
    "no subject": (401, "subject", lambda issuer, row: bearer(issuer.person(sub=None))),
    "missing tenant": (403, "tenant", lambda issuer, row: bearer(issuer.person(**{TENANT: None}))),
    "a person's tenant is not the header's": (
        403, "tenant", lambda issuer, row: bearer(issuer.person(), snc_tenant="other"),
    ),
    "a person acts for another": (403, "user", lambda issuer, row: bearer(issuer.person(), snc_userid="bob")),
    "a machine's tenant is not the header's": (
        403, "tenant", lambda issuer, row: bearer(issuer.machine(wanted(row)), snc_tenant="other", snc_userid="u"),
    ),
    "a machine names no tenant": (
        403, "tenant", lambda issuer, row: bearer(issuer.machine(wanted(row)), snc_userid="u"),
    ),
    "a machine acts for nobody": (
        403, "user", lambda issuer, row: bearer(issuer.machine(wanted(row)), snc_tenant="acme"),
    ),
    "a machine acts for an empty name": (
        403, "user", lambda issuer, row: bearer(issuer.machine(wanted(row)), snc_tenant="acme", snc_userid=""),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def http(guarded: LocalServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.endpoint, timeout=30) as client:
        yield client


def path_of(route: str, ids: dict[str, str]) -> str:
    plain = {"block_type": "core", "model_id": "agentflow/scripted", "provider": "openai"}
    path = route.split(" ", 1)[1]
    return re.sub(r"\{([a-z_]+)\}", lambda found: {**plain, **ids}.get(found[1]) or str(uuid.uuid4()), path)


def send(http: httpx2.Client, route: str, headers: Headers, ids: dict[str, str] | None = None) -> httpx2.Response:
    row = TABLE[route]
    method = route.split(" ", 1)[0]
    return http.request(method, path_of(route, ids or {}), headers=headers, params=row.query, json=row.body)


def reason(answer: httpx2.Response) -> str | None:
    error = answer.json()["error"]
    return (error["details"] or {}).get("reason")


def test_every_route_has_its_row(http: httpx2.Client) -> None:
    paths: dict[str, dict[str, Any]] = http.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert routes == set(TABLE), "tests/security/table.py must have one row for every route"
    for route, row in TABLE.items():
        assert set(row.ids) <= set(MAKERS), f"{route}: MAKERS must know how to make {set(row.ids) - set(MAKERS)}"


def test_the_document_says_what_the_table_says(http: httpx2.Client) -> None:
    paths: dict[str, dict[str, Any]] = http.get("/openapi.json").json()["paths"]
    for route, row in TABLE.items():
        method, path = route.split(" ", 1)
        told = paths[path][method.lower()].get("security", [{}])[0].get("bearer")
        expected = ["agentflow:admin"] if row.admin else [f"agentflow:{row.scope}"] if row.scope else []
        assert row.public or told == expected, route


@pytest.mark.parametrize("route", [route for route, row in TABLE.items() if row.public])
def test_public_routes_need_nothing(http: httpx2.Client, route: str) -> None:
    assert send(http, route, {}).status_code == 200


@pytest.mark.parametrize("route", PRIVATE)
def test_attacks_are_refused(http: httpx2.Client, issuer: LocalIssuer, route: str) -> None:
    for attack, (status, why, forge) in ATTACKS.items():
        answer = send(http, route, forge(issuer, TABLE[route]))
        assert (answer.status_code, reason(answer)) == (status, why), f"{attack}: {answer.text}"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        secret = answer.request.headers.get("authorization", "").removeprefix("Bearer ")
        assert len(secret) < 20 or secret not in answer.text


@pytest.mark.parametrize("route", PRIVATE)
def test_scopes_are_asked_for(http: httpx2.Client, issuer: LocalIssuer, route: str) -> None:
    row = TABLE[route]
    machine = {"snc_tenant": "acme", "snc_userid": "svc-bot"}
    others = " ".join(f"agentflow:{each.scope}" for each in TABLE.values() if each.scope and each.scope != row.scope)
    admin = bearer(issuer.person(sub="root", scope="agentflow:admin"))
    assert send(http, route, admin).status_code not in (401, 403, 429)
    if row.admin:
        for token in (issuer.machine(f"agentflow:admin {others}"), issuer.machine(others)):
            assert send(http, route, bearer(token, **machine)).status_code == 403
        for scope in ("openid", others, "agentflow:administrator", "admin"):
            answer = send(http, route, bearer(issuer.person(scope=scope)))
            assert answer.status_code == 403
        return
    assert send(http, route, bearer(issuer.machine(wanted(row)), **machine)).status_code not in (401, 403)
    assert send(http, route, bearer(issuer.person())).status_code not in (401, 403)
    if row.scope is not None:
        for headers in (
            bearer(issuer.machine(others), **machine),
            bearer(issuer.machine(""), **machine),
            bearer(issuer.person(scope=others)),
        ):
            answer = send(http, route, headers)
            assert (answer.status_code, reason(answer)) == (403, "scope")
            assert f'scope="{wanted(row)}"' in answer.headers["www-authenticate"]


def owner(guarded: LocalServer, issuer: LocalIssuer, **claims: Any) -> httpx2.Client:
    return httpx2.Client(base_url=guarded.endpoint, headers=bearer(issuer.person(**claims)), timeout=30)


@pytest.mark.parametrize("route", [route for route, row in TABLE.items() if row.ids])
def test_what_is_anothers_is_as_if_it_were_not_there(
    http: httpx2.Client, guarded: LocalServer, issuer: LocalIssuer, route: str
) -> None:
    row = TABLE[route]
    with owner(guarded, issuer, sub="bob") as bob:
        ids = MAKERS[list(row.ids)[-1]](bob)
    ids = {name: ids[name] for name in row.ids}
    nothing = {name: str(uuid.uuid4()) for name in ids}
    of_another_tenant = bearer(issuer.person(sub="bob", **{TENANT: "rival"}))
    strangers = [of_another_tenant]
    if "user" in row.ids.values():
        strangers += [
            bearer(issuer.person(sub="mallory")),
            bearer(issuer.person(sub="root", scope="agentflow:admin")),
            bearer(issuer.machine(wanted(row)), snc_tenant="acme", snc_userid="mallory"),
        ]
    for stranger in strangers:
        theirs, none = send(http, route, stranger, ids), send(http, route, stranger, nothing)
        assert theirs.status_code == none.status_code == 404, theirs.text
        assert _without(theirs, ids) == _without(none, nothing)
    headers = bearer(issuer.machine(wanted(row)), snc_tenant="acme", snc_userid="bob")
    method, path = route.split(" ", 1)[0], path_of(route, ids)
    with http.stream(method, path, headers=headers, params=row.query, json=row.body) as mine:
        assert mine.status_code != 404  # only the status: some streams never end


def _without(answer: httpx2.Response, ids: dict[str, str]) -> Any:
    text = answer.text
    for value in (*ids.values(), answer.headers["x-request-id"]):
        text = text.replace(value, "…")
    return text
