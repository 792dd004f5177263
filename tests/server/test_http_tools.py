"""HTTP tools against a hostile service: where they may go, what they give away, how much they take in."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.types.tools import ToolRunResult
from agentflow_server.kit import outbound
from agentflow_server.testing import local_server

SECRET = "sk-very-secret-token"
Seen = list[dict[str, Any]]


class Service:
    """A service on loopback that notes what it is asked, and answers as its path says."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self.fail_first = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.answer(self)

            do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names that the standard library looks for

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is overridden
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.elsewhere = ""
        self.stop = threading.Event()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        request = {
            "method": handler.command, "path": handler.path, "headers": dict(handler.headers.items()),
            "body": body.decode(),
        }  # fmt: skip
        self.seen.append(request)
        path = handler.path.split("?")[0]
        if path == "/flaky" and len(self.seen) <= self.fail_first:
            self.send(handler, 503, b"busy")
        elif path == "/hang":
            self.stop.wait(20)
        elif path == "/flood":
            self.flood(handler)
        elif path in (fixed := self.fixed()):
            self.send(handler, *fixed[path])
        else:
            self.send(handler, 200, json.dumps(request).encode(), {"Content-Type": "application/json"})

    def fixed(self) -> dict[str, tuple[int, bytes, dict[str, str]]]:
        return {
            "/away": (307, b"", {"Location": f"{self.elsewhere}/echo"}),
            "/loop": (302, b"", {"Location": "/loop"}),
            "/file": (302, b"", {"Location": "file:///etc/passwd"}),
            "/missing": (404, f"no such thing, {SECRET}".encode(), {}),
            "/bomb": (200, gzip.compress(b"0" * 30_000_000), {"Content-Encoding": "gzip"}),
            "/binary": (200, b"\x00\x01\x02", {}),
            "/liar": (200, b"<html>", {"Content-Type": "application/json"}),
        }

    def send(self, handler: Any, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def flood(self, handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            for _ in range(100_000):
                handler.wfile.write(b"x" * 65536)
        except OSError:
            handler.close_connection = True


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.stop.set()
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def other() -> Iterator[Service]:
    one = Service()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture(scope="module")
def open_client() -> Iterator[AgentFlow]:
    """A client of a server that may call private addresses."""
    with local_server(allow_private_addresses=True) as server, server.client() as client:
        yield client


def tool(client: AgentFlow, url: str, arguments: dict[str, Any] | None = None, **settings: Any) -> ToolRunResult:
    """Define a tool, run it once, and take it away."""
    agent_id = client.agents.by_name("MainAgent").id
    http = {"url": url, **settings.pop("http", {})}
    names = list(arguments or {})
    schema = {"type": "object", "properties": {name: {} for name in names}, "additionalProperties": True}
    made = client.agents.tools.create(
        agent_id, name="called", description="d", http=http, args_schema=schema, **settings
    )
    assert SECRET not in made.model_dump_json()
    try:
        return client.agents.tools.run(agent_id, "called", arguments or {}, timeout=30)
    finally:
        client.agents.tools.delete(agent_id, "called")


def code(result: ToolRunResult) -> str:
    assert result.is_error, result.result
    return result.result["error"]["code"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "10.0.0.1", "192.168.0.1", "172.16.0.1",
        "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fc00::1]", "224.0.0.1", "127.0.0.1.", "LOCALHOST",
    ],
)  # fmt: skip
def test_private_addresses_are_not_called(client: AgentFlow, service: Service, host: str) -> None:
    before = len(service.seen)
    result = tool(client, f"http://{host}:{service.port}/echo")
    assert code(result) in ("forbidden_address", "connection_failed", "invalid_url")
    assert len(service.seen) == before


def test_a_name_that_leads_home_is_not_called(
    client: AgentFlow, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("inside.example.com", b"inside.example.com"):
            return real("127.0.0.1", port, *args, **kwargs)
        if host in ("both.example.com", b"both.example.com"):
            return [*real("93.184.216.34", port, *args, **kwargs), *real("127.0.0.1", port, *args, **kwargs)]
        return real(host, port, *args, **kwargs)

    with local_server() as own, own.client() as local:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        before = len(service.seen)
        for name in ("inside", "both"):
            assert code(tool(local, f"http://{name}.example.com:{service.port}/echo")) == "forbidden_address"
        assert len(service.seen) == before


def test_a_name_that_changes_is_called_where_it_was_judged(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the first answer is fine, the next ones lead inside."""
    real = socket.getaddrinfo
    asked: list[str] = []

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("turning.example.com", b"turning.example.com"):
            asked.append("127.0.0.1" if not asked else "127.0.0.2")
            return real(asked[-1], port, *args, **kwargs)
        return real(host, port, *args, **kwargs)

    with local_server() as own, own.client() as local:
        agent_id = local.agents.by_name("MainAgent").id
        monkeypatch.setattr(outbound, "is_public", lambda address: address == "127.0.0.1")
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        url = f"http://turning.example.com:{service.port}/echo"
        local.agents.tools.create(agent_id, name="turn", description="d", http={"url": url})
        asked.clear()
        before = len(service.seen)
        first, second = (local.agents.tools.run(agent_id, "turn", {}) for _ in range(2))
        assert not first.is_error
        assert code(second) == "forbidden_address"
        assert len(service.seen) == before + 1
        assert asked == ["127.0.0.1", "127.0.0.2"]  # one look-up a call: what it says is what is connected to


@pytest.mark.parametrize("host", ["127.0.0.2", "2130706434", "[::ffff:127.0.0.2]", "[::1]"])
def test_a_redirect_does_not_lead_inside(service: Service, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(outbound, "is_public", lambda address: address == "127.0.0.1")
    service.elsewhere = f"http://{host}:{service.port}"
    before = len(service.seen)
    with local_server() as own, own.client() as local:
        assert code(tool(local, f"{service.url}/away")) in ("forbidden_address", "connection_failed")
    assert [one["path"] for one in service.seen[before:]] == ["/away"]


def test_redirects_are_judged_again(open_client: AgentFlow, service: Service, other: Service) -> None:
    service.elsewhere = other.url
    result = tool(
        open_client, f"{service.url}/away", {"a": 1}, http={"method": "POST"},
        credentials={"bearer": SECRET, "headers": {"X-Key": SECRET}, "query": {"api_key": SECRET}},
    )  # fmt: skip
    assert not result.is_error
    assert SECRET in service.seen[-1]["headers"]["Authorization"]
    assert SECRET in service.seen[-1]["path"]
    assert service.seen[-1]["headers"]["X-Key"] == SECRET
    assert SECRET not in json.dumps(other.seen), "another origin is not told the credentials"
    assert json.loads(other.seen[-1]["body"]) == {"a": 1}
    assert code(tool(open_client, f"{service.url}/loop")) == "too_many_redirects"
    assert code(tool(open_client, f"{service.url}/file")) == "forbidden_address"


def test_secrets_are_not_shown(open_client: AgentFlow, service: Service) -> None:
    echoed = tool(open_client, f"{service.url}/echo", credentials={"bearer": SECRET})
    assert SECRET in service.seen[-1]["headers"]["Authorization"]
    assert SECRET not in json.dumps(echoed.raw)
    failed = tool(open_client, f"{service.url}/missing", credentials={"username": "u", "password": SECRET})
    assert code(failed) == "http_404"
    assert SECRET not in json.dumps(failed.raw)
    agent_id = open_client.agents.by_name("MainAgent").id
    made = open_client.agents.tools.create(
        agent_id, name="kept", description="d", http={"url": f"{service.url}/echo"}, credentials={"bearer": SECRET}
    )
    try:
        assert made.has_credentials
        shown = [open_client.agents.tools.retrieve(agent_id, "kept"), *open_client.agents.tools.list()]
        assert not [one for one in shown if SECRET in one.model_dump_json()]
        assert not open_client.agents.tools.update(agent_id, "kept", credentials=None).has_credentials
        open_client.agents.tools.run(agent_id, "kept")
        assert "Authorization" not in service.seen[-1]["headers"]
    finally:
        open_client.agents.tools.delete(agent_id, "kept")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/bomb", "response_too_large"),
        ("/flood", "response_too_large"),
        ("/binary", "invalid_response"),
        ("/liar", "invalid_response"),
        ("/hang", "tool_timeout"),
    ],
)
def test_bad_answers_are_errors(open_client: AgentFlow, service: Service, path: str, expected: str) -> None:
    assert code(tool(open_client, f"{service.url}{path}", execution_timeout=3)) == expected


def test_arguments_go_where_the_template_says(open_client: AgentFlow, service: Service) -> None:
    result = tool(
        open_client, f"{service.url}/echo/{{name}}?fixed=1", {"name": "a/../b?c=d#e", "page": 2, "who": "me"},
        http={"query": {"page": "page"}, "header_arguments": {"X-Who": "who"}},
    )  # fmt: skip
    assert result.result["path"] == "/echo/a%2F..%2Fb%3Fc%3Dd%23e?fixed=1&page=2"
    assert result.result["headers"]["X-Who"] == "me"
    posted = tool(
        open_client, f"{service.url}/echo", {"a": 1, "b": ["x"]}, http={"method": "POST", "body": {"first": "a"}}
    )
    assert json.loads(posted.result["body"]) == {"first": 1}
    form = tool(
        open_client, f"{service.url}/echo", {"a": "x y", "b": True}, http={"method": "POST", "body_format": "form"}
    )
    assert form.result["body"] == "a=x+y&b=true"
    for wrong in ("..", ".", ""):
        assert code(tool(open_client, f"{service.url}/echo/{{name}}", {"name": wrong})) == "invalid_arguments"
    split = {"who": "me\r\nX-Admin: yes"}
    header = {"header_arguments": {"X-Who": "who"}}
    assert code(tool(open_client, f"{service.url}/echo", split, http=header)) == "invalid_arguments"


def test_what_may_pass_is_tried_again(open_client: AgentFlow, service: Service) -> None:
    service.seen.clear()
    service.fail_first = 1
    result = tool(
        open_client, f"{service.url}/flaky", {"a": 1}, http={"method": "POST"}, idempotent=True, max_retries=1
    )
    assert not result.is_error
    keys = [request["headers"]["Idempotency-Key"] for request in service.seen]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    service.seen.clear()
    assert code(tool(open_client, f"{service.url}/flaky", {"a": 1}, http={"method": "POST"})) == "http_503"
    assert len(service.seen) == 1


@pytest.mark.parametrize(
    ("http", "field"),
    [
        ({"url": "ftp://example.com/x"}, "http.url"),
        ({"url": "http://{host}/x"}, "http.url"),
        ({"url": "http://user:pass@example.com/"}, "http.url"),
        ({"url": "http://example.com/", "query": {"q": "nothing"}}, "nothing"),
        ({"url": "http://example.com/", "headers": {"Host": "other"}}, "http.headers"),
        ({"url": "http://example.com/", "body": {"q": "a"}}, "http.body"),
        ({"url": "http://example.com/", "method": "TRACE"}, "method"),
        ({"url": "x"}, "url"),
    ],
)
def test_a_template_that_does_not_hold_is_refused(client: AgentFlow, http: dict[str, Any], field: str) -> None:
    agent_id = client.agents.by_name("MainAgent").id
    schema = {"type": "object", "properties": {"a": {}, "host": {}}}
    body = {"name": "bad", "description": "d", "http": http, "args_schema": schema}
    with pytest.raises(ValidationError, match=field):
        client.request("POST", f"/api/v1/agent/{agent_id}/tools", body=body)


def document(url: str) -> dict[str, Any]:
    order = {
        "type": "object",
        "required": ["item"],
        "properties": {
            "item": {"type": "string"},
            "note": {"type": "string", "nullable": True},
            "parent": {"$ref": "#/components/schemas/Order"},
            "id": {"type": "integer", "readOnly": True},
        },
    }
    listed = {"name": "page", "in": "query", "schema": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}}
    return {
        "openapi": "3.0.3",
        "servers": [{"url": url}],
        "components": {"schemas": {"Order": order}, "parameters": {"Page": listed}},
        "paths": {
            "/orders/{order-id}": {
                "parameters": [{"name": "order-id", "in": "path", "required": True, "schema": {"type": "string"}}],
                "get": {"operationId": "getOrder", "summary": "One order.", "parameters": [
                    {"$ref": "#/components/parameters/Page"},
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string"}, "description": "A trace."},
                ]},
            },
            "/orders": {"post": {"operationId": "create.order", "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
            }}},
        },
    }  # fmt: skip


def test_operations_of_a_document_become_tools(open_client: AgentFlow, service: Service) -> None:
    agent_id = open_client.agents.by_name("MainAgent").id
    tools = open_client.agents.tools
    made = tools.import_openapi(agent_id, document=document(service.url), prefix="shop_")
    try:
        assert sorted(one.name for one in made) == ["shop_create_order", "shop_getOrder"]
        got = tools.run(agent_id, "shop_getOrder", {"order_id": "a/b", "page": 2, "X_Trace": "t"}).result
        assert got["path"] == "/orders/a%2Fb?page=2"
        assert got["headers"]["X-Trace"] == "t"
        with pytest.raises(ValidationError, match="page"):
            tools.run(agent_id, "shop_getOrder", {"order_id": "a", "page": 0})
        created = tools.run(agent_id, "shop_create_order", {"item": "tea", "note": None, "parent": {}})
        assert json.loads(created.result["body"]) == {"item": "tea", "note": None, "parent": {}}
        with pytest.raises(ValidationError, match="item"):
            tools.run(agent_id, "shop_create_order", {})
        with pytest.raises(ConflictError, match="shop_"):
            tools.import_openapi(agent_id, document=document(service.url), prefix="shop_")
    finally:
        for one in made:
            tools.delete(agent_id, one.id)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"document": {"swagger": "2.0"}}, "OpenAPI 3"),
        ({"document": document(service.url), "operations": ["nothing"]}, "nothing"),
        ({"document": {**document(""), "servers": []}}, "base_url"),
        ({"document_url": f"{service.url}/missing"}, "document_url"),
    ]
    for wrong, match in refused:
        with pytest.raises(ValidationError, match=match):
            tools.import_openapi(agent_id, **wrong)
    with pytest.raises(NotFoundError):
        tools.retrieve(agent_id, "shop_getOrder")
