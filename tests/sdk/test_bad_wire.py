"""What the client does when the wire is bad: it retries what may be repeated, resumes what was cut, else says so."""

import asyncio
import json
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agentflow import AgentFlow, AsyncAgentFlow, Timeout
from agentflow.errors import (
    AgentFlowError,
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    DecodeError,
    InternalServerError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitedError,
    RequestTimeoutError,
    StreamInterruptedError,
    UnavailableError,
    ValidationError,
    api_error,
)
from agentflow.events import FinalResponse, RunError, RunStarted, TextDelta, UnknownEvent

from tests.sdk.wire import RESULT, Script, answer, event, stream, wire

START = event(0, "start", {"role": "agent", "run_id": "run-1"})
A, B, END = event(1, "delta", "a"), event(2, "delta", "b"), event(3, "end", RESULT)
HEALTH = b'{"status": "ok", "version": "1", "uptime_seconds": 1, "new_field": [1]}'
HTML = b"<html><body>Bad gateway</body></html>"
QUICK: dict[str, Any] = {"max_retries": 2, "timeout": Timeout(connect=2, idle=0.3, total=5)}

Colour = Callable[..., Any]


def sync_health(endpoint: str, **options: Any) -> Any:
    with AgentFlow(endpoint=endpoint, **{**QUICK, **options}) as client:
        return client.system.health()


def async_health(endpoint: str, **options: Any) -> Any:
    async def call() -> Any:
        async with AsyncAgentFlow(endpoint=endpoint, **{**QUICK, **options}) as client:
            return await client.system.health()

    return asyncio.run(call())


def sync_stream(endpoint: str, **options: Any) -> list[Any]:
    with AgentFlow(endpoint=endpoint, **{**QUICK, **options}) as client:
        return list(client.agents.stream(agent_id="a", message="hi"))


def async_stream(endpoint: str, **options: Any) -> list[Any]:
    async def call() -> list[Any]:
        async with AsyncAgentFlow(endpoint=endpoint, **{**QUICK, **options}) as client:
            return [event async for event in client.agents.stream(agent_id="a", message="hi")]

    return asyncio.run(call())


health = pytest.mark.parametrize("health", [sync_health, async_health])
streamed = pytest.mark.parametrize("streamed", [sync_stream, async_stream])


def envelope(code: str, message: str = "no", **more: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, **more}, "detail": message}).encode()


@health
def test_unknown_fields_are_kept(health: Colour) -> None:
    with wire([answer(HEALTH)]) as server:
        found = health(server.endpoint)
    assert found.status == "ok"
    assert found.new_field == [1]


@health
@pytest.mark.parametrize(
    "script",
    [
        answer(envelope("unavailable"), status="503 Service Unavailable", headers="Retry-After: 0\r\n"),
        answer(envelope("rate_limited"), status="429 Too Many Requests", headers="Retry-After: 0\r\n"),
        answer(HTML, status="502 Bad Gateway", kind="text/html"),
        lambda peer, _: peer.reset(),
        lambda peer, _: None,
        answer(HEALTH, length=len(HEALTH) + 10),
    ],
    ids=["503", "429", "html-502", "reset", "closed", "cut-body"],
)
def test_what_may_be_repeated_is_retried(health: Colour, script: Script) -> None:
    with wire([script, answer(HEALTH)]) as server:
        assert health(server.endpoint).status == "ok"
    assert len(server.requests) == 2
    assert len({request.headers["x-request-id"] for request in server.requests}) == 1


@health
def test_retries_are_bounded_and_told(health: Colour) -> None:
    with wire([answer(envelope("unavailable"), status="503 X", headers="Retry-After: 0\r\n")]) as server:
        with pytest.raises(UnavailableError) as caught:
            health(server.endpoint)
    assert caught.value.attempts == len(server.requests) == 3
    assert caught.value.retry_after == 0


@pytest.mark.parametrize("script", [answer(envelope("unavailable"), status="503 X"), lambda peer, _: peer.reset()])
def test_what_may_not_be_repeated_is_sent_once(script: Script) -> None:
    with wire([script]) as server, AgentFlow(endpoint=server.endpoint) as client, pytest.raises(AgentFlowError):
        client.request("POST", "/api/v1/anything", body={})
    assert len(server.requests) == 1


def test_an_idempotency_key_is_minted_once() -> None:
    created = b'{"id": "1", "name": "n"}'
    with wire([lambda peer, _: peer.reset(), answer(created, status="201 Created")]) as server:
        with AgentFlow(endpoint=server.endpoint) as client:
            client.agents.create(name="n")
            client.agents.create(name="n", idempotency_key="mine")
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys[0] == keys[1] != keys[2] == "mine"


def test_a_chat_keeps_its_ids_on_every_attempt() -> None:
    with wire([lambda peer, _: peer.reset(), answer(json.dumps(RESULT).encode())]) as server:
        with AgentFlow(endpoint=server.endpoint) as client:
            assert client.agents.run(agent_id="a", message="hi").text == "ab"
    bodies = [json.loads(request.body) for request in server.requests]
    assert bodies[0] == bodies[1]
    assert bodies[0]["message_id"]


@health
@pytest.mark.parametrize(
    ("script", "error"),
    [
        (answer(HTML, kind="text/html"), DecodeError),
        (answer(b"not json"), DecodeError),
        (answer(b"[]"), DecodeError),
        (answer(b'{"status": 1}'), DecodeError),
        (answer(b"", status="302 Found", headers="Location: /elsewhere\r\n"), DecodeError),
        (answer(HTML, status="404 Not Found", kind="text/html"), NotFoundError),
        (answer(HTML, status="500 X", kind="text/html"), InternalServerError),
        (answer(b"{}", status="418 Teapot"), BadRequestError),
        (answer(envelope("brand_new_code"), status="409 Conflict"), ConflictError),
    ],
    ids=["html", "not-json", "list", "wrong-type", "redirect", "html-404", "html-500", "418", "new-code"],
)
def test_answers_that_are_not_the_api(health: Colour, script: Script, error: type[Exception]) -> None:
    with wire([script]) as server, pytest.raises(error):
        health(server.endpoint)
    assert len(server.requests) == 1


@health
def test_a_server_that_is_down(health: Colour) -> None:
    with pytest.raises(ConnectionFailedError, match="could not be reached"):
        health("http://127.0.0.1:9", max_retries=0)


@health
def test_a_server_that_hangs(health: Colour) -> None:
    with wire([lambda peer, _: peer.hang()]) as server, pytest.raises(RequestTimeoutError):
        health(server.endpoint, timeout=0.3)


@health
def test_a_server_that_trickles_is_bound_by_the_whole_call(health: Colour) -> None:
    def trickle(peer: Any, _: Any) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
        while not peer.released.wait(0.05):
            peer.send(b" ")

    with wire([trickle]) as server, pytest.raises(RequestTimeoutError):
        health(server.endpoint, timeout=0.4)


@streamed
def test_a_stream_in_pieces(streamed: Colour) -> None:
    whole = b"\xef\xbb\xbf: hello\r\n\r\nretry: 5000\n\n" + START + A.replace(b"\n", b"\r\n") + B + END
    pieces = [whole[index : index + 7] for index in range(0, len(whole), 7)]
    with wire([stream(*pieces)]) as server:
        events = streamed(server.endpoint)
    assert [type(item) for item in events] == [RunStarted, TextDelta, TextDelta, FinalResponse]
    assert events[-1].text == "ab"


@streamed
@pytest.mark.parametrize("end", ["finish", "cut", "reset", "hang"])
def test_a_cut_stream_is_resumed(streamed: Colour, end: str) -> None:
    with wire([stream(START, A, end=end), stream(A, B, END)]) as server:
        events = streamed(server.endpoint)
    assert [item.seq for item in events] == [0, 1, 2, 3]
    assert server.requests[1].method == "GET"
    assert server.requests[1].path == "/api/v1/runs/run-1/stream"
    assert server.requests[1].headers["last-event-id"] == "1"


@streamed
def test_a_stream_cut_inside_an_event_is_resumed(streamed: Colour) -> None:
    with wire([stream(START, A, B[:20], end="reset"), stream(B, END)]) as server:
        assert [item.seq for item in streamed(server.endpoint)] == [0, 1, 2, 3]


@streamed
def test_a_stream_that_dies_before_its_answer_is_sent_again(streamed: Colour) -> None:
    with wire([lambda peer, _: peer.reset(), stream(START, A, B, END)]) as server:
        assert streamed(server.endpoint)[-1].text == "ab"
    assert [request.method for request in server.requests] == ["POST", "POST"]
    assert server.requests[0].body == server.requests[1].body


@streamed
def test_a_stream_that_cannot_be_resumed_raises(streamed: Colour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow.transport.pipeline._MAX_PAUSE", 0.01)
    with wire([stream(START, A, end="reset"), stream(end="reset")]) as server:
        with pytest.raises(StreamInterruptedError, match="could not be resumed"):
            streamed(server.endpoint)


@streamed
def test_a_refused_resume_is_the_servers_error(streamed: Colour) -> None:
    gone = answer(envelope("not_found"), status="404 Not Found")
    with wire([stream(START, A, end="reset"), gone]) as server, pytest.raises(NotFoundError):
        streamed(server.endpoint)


@streamed
def test_unknown_events_are_handed_on(streamed: Colour) -> None:
    odd = event(2, "hologram", {"x": 1})
    wrong = event(3, "delta", {"not": "text"})
    with wire([stream(START, A, odd, wrong, event(4, "end", RESULT))]) as server:
        events = streamed(server.endpoint)
    assert isinstance(events[2], UnknownEvent)
    assert events[2].raw["type"] == "hologram"
    assert isinstance(events[3], UnknownEvent)


@streamed
@pytest.mark.parametrize("data", [b"data: {broken\n\n", b"data: [1]\n\n"])
def test_events_that_are_not_json_raise(streamed: Colour, data: bytes) -> None:
    with wire([stream(START, data)]) as server, pytest.raises(DecodeError):
        streamed(server.endpoint)


@streamed
def test_html_where_a_stream_should_be(streamed: Colour) -> None:
    with wire([answer(HTML, kind="text/html")]) as server, pytest.raises(DecodeError):
        streamed(server.endpoint)


@streamed
def test_a_failed_run_ends_with_its_error(streamed: Colour) -> None:
    failed = event(2, "error", {"code": "model_timeout", "message": "slow", "status": 502})
    with wire([stream(START, A, failed)]) as server:
        events = streamed(server.endpoint)
    assert isinstance(events[-1], RunError)
    assert events[-1].code == "model_timeout"


def test_a_stream_that_is_left_gives_its_connection_back() -> None:
    with wire([stream(START, A, end="hang")]) as server, AgentFlow(endpoint=server.endpoint) as client:
        with client.agents.stream(agent_id="a", message="hi") as events:
            assert isinstance(next(events), RunStarted)
        assert list(events) == []
        http: Any = client._transport._http()
        pool = http._transport._pool
        assert not pool.connections


def test_many_threads_share_a_client() -> None:
    with (
        wire([answer(HEALTH)]) as server,
        AgentFlow(endpoint=server.endpoint) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        assert all(item.status == "ok" for item in pool.map(lambda _: client.system.health(), range(100)))


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        (400, "bad_request", BadRequestError),
        (401, "unauthenticated", AuthenticationError),
        (403, "permission_denied", PermissionDeniedError),
        (413, "payload_too_large", PayloadTooLargeError),
        (422, "validation_error", ValidationError),
        (429, "rate_limited", RateLimitedError),
    ],
)
def test_errors_pickle_and_keep_what_they_carry(status: int, code: str, cls: type[APIError]) -> None:
    error = api_error(
        status, json.loads(envelope(code, "why", details={"a": 1}, hint="do", request_id="r")), attempts=2
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) is cls
    assert (copy.code, copy.status, copy.details, copy.hint, copy.request_id, copy.attempts) == (
        code,
        status,
        {"a": 1},
        "do",
        "r",
        2,
    )
    assert str(copy) == str(error)


def test_secrets_are_not_shown() -> None:
    client = AgentFlow(endpoint="http://127.0.0.1:9", access_token="secret-token", max_retries=0)
    with pytest.raises(ConnectionFailedError) as caught:
        client.system.health()
    assert "secret-token" not in repr(client) + repr(client._config.credentials) + repr(caught.value) + str(
        caught.value
    )


@pytest.mark.parametrize(
    "endpoint", ["", "nonsense", "ftp://x", "http://", "http://x:99999", "http://u:p@x", "http://x?a=1"]
)
def test_endpoints_are_checked(endpoint: str) -> None:
    with pytest.raises(ConfigurationError):
        AgentFlow(endpoint=endpoint or None).system.health()


def test_a_token_is_sent_with_every_request() -> None:
    with wire([answer(HEALTH)]) as server, AgentFlow(endpoint=server.endpoint, access_token="abc") as client:
        client.system.health()
        assert client.request("GET", "/health").json()["status"] == "ok"
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer abc"] * 2
    assert all(request.headers["user-agent"].startswith("agentflow-python/") for request in server.requests)


def test_raw_responses() -> None:
    with (
        wire([answer(HEALTH, headers="X-Request-ID: r-1\r\n")]) as server,
        AgentFlow(endpoint=server.endpoint) as client,
    ):
        found = client.system.health()
        assert found.response.request_id == "r-1"
        assert found.response.status == 200
        raw = client.request("GET", "/health")
        assert raw.headers["content-type"] == "application/json"
        assert raw.json()["version"] == "1"


def test_two_clients_share_one_tls_context() -> None:
    from agentflow.transport import tls

    first = threading.Thread(target=tls.shared_context)
    first.start()
    first.join()
    assert tls.shared_context() is tls.shared_context()


@pytest.mark.parametrize("value", [float("nan"), print, object()])
def test_what_json_cannot_say_is_refused_before_it_is_sent(value: object) -> None:
    with wire([answer(b"{}")]) as server, AgentFlow(endpoint=server.endpoint) as client:
        with pytest.raises(ConfigurationError, match="cannot be sent as JSON"):
            client.request("POST", "/api/v1/agents", body={"name": value})
        assert not server.requests
