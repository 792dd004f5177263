"""The HTTP request of a tool: made from its template and the arguments, sent with its credentials, its answer bounded.

Called by the tools room. Arguments cannot reach another host, another path or another header than the template gives
them, and credentials never leave the origin they are for.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx2
from agentflow.types.tools import Credentials, HttpCall

from agentflow_server.connectors.errors import ConnectorError
from agentflow_server.kit.outbound import ForbiddenAddressError

MAX_RESPONSE = 1024 * 1024
MAX_REDIRECTS = 5
_MAX_ERROR_TEXT = 2000
_PLACE = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_BODILESS = {"GET", "HEAD", "DELETE"}
_OURS = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back: JSON values if it is JSON, else text."""

    status: int
    body: Any


def problem(call: HttpCall, parameters: Mapping[str, Any]) -> str | None:
    """Why a template cannot be used with arguments of this schema, or None."""
    try:
        parts = urlsplit(_PLACE.sub("x", call.url))
    except ValueError as error:
        return f"url: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "url: must be a whole http or https address"
    head = call.url.split("://", 1)[1].split("/", 1)[0]
    if "{" in head or "}" in head:
        return "url: the host cannot come from an argument"
    if parts.username is not None:
        return "url: put user and password into credentials"
    known: dict[str, Any] = parameters.get("properties", {})
    used = set(_PLACE.findall(call.url)) | set(call.header_arguments.values()) | set((call.query or {}).values())
    used |= {call.body} if isinstance(call.body, str) else set((call.body or {}).values())
    if missing := sorted(used - set(known)):
        return f"there is no argument {missing[0]!r} in args_schema"
    if call.body and call.method in _BODILESS:
        return f"body: a {call.method} request has none"
    names = {name.lower() for name in (*call.headers, *call.header_arguments)}
    return f"headers: {min(names & _OURS)} is set by the server" if names & _OURS else None


def places(url: str) -> list[str]:
    """The arguments a URL template names."""
    return _PLACE.findall(url)


async def send(
    client: httpx2.AsyncClient,
    call: HttpCall,
    arguments: Mapping[str, Any],
    credentials: Credentials | None,
    *,
    idempotency_key: str | None = None,
) -> HttpAnswer:
    """Make the request and read its answer.

    Raises:
        ConnectorError: an argument does not fit its place, the address is not one to call, nobody answered, or the
            answer is an error or too large.
    """
    secret = credentials or Credentials()
    url, headers, content = _request(call, arguments)
    if idempotency_key is not None and call.method not in _BODILESS:
        headers["Idempotency-Key"] = idempotency_key
    try:
        return await _follow(client, call.method, url, headers, content, secret)
    except ForbiddenAddressError as error:
        raise ConnectorError("forbidden_address", str(error)) from None
    except (httpx2.InvalidURL, ValueError) as error:
        raise ConnectorError("invalid_url", f"the address cannot be used: {error}") from None
    except httpx2.TimeoutException:
        raise ConnectorError(
            "tool_timeout", f"{urlsplit(url).hostname} did not answer in time", transient=True
        ) from None
    except httpx2.HTTPError as error:
        text = _without_secrets(str(error) or type(error).__name__, secret)
        raise ConnectorError("connection_failed", f"{urlsplit(url).hostname}: {text}", transient=True) from None


async def _follow(
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    headers: dict[str, str],
    content: bytes | None,
    secret: Credentials,
) -> HttpAnswer:
    """Send, and go where redirects lead; another origin is not told the credentials."""
    origin = _origin(url)
    for _ in range(MAX_REDIRECTS + 1):
        own = _origin(url) == origin
        target = httpx2.URL(url).copy_merge_params(secret.query) if own and secret.query else httpx2.URL(url)
        sent = {**headers, **(secret_headers(secret) if own else {})}
        request = client.build_request(method, target, headers=sent, content=content)
        response = await client.send(request, stream=True)
        try:
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None:
                return await _answer(response, method, secret)
        finally:
            await response.aclose()
        url = urljoin(url, location)
        if urlsplit(url).scheme not in ("http", "https"):
            raise ConnectorError("forbidden_address", "the answer redirects to something that is no http address")
        if response.status_code == 303 or (response.status_code in (301, 302) and method == "POST"):
            method, content = "GET", None
            headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    raise ConnectorError("too_many_redirects", f"more than {MAX_REDIRECTS} redirects")


async def _answer(response: httpx2.Response, method: str, secret: Credentials) -> HttpAnswer:
    data = b"" if method == "HEAD" else await _read(response)
    type_ = response.headers.get("content-type", "").lower()
    text = _without_secrets(data.decode(response.encoding or "utf-8", "replace"), secret)
    status = response.status_code
    if status >= 400:
        message = f"the service answered with status {status}: {text[:_MAX_ERROR_TEXT]}"
        raise ConnectorError(f"http_{status}", message, transient=status in _TRANSIENT)
    if "json" in type_ and text.strip():
        try:
            return HttpAnswer(status, json.loads(text))
        except (ValueError, RecursionError):
            raise ConnectorError("invalid_response", "the service's answer says it is JSON, and is not") from None
    if b"\x00" in data[:1024]:
        raise ConnectorError("invalid_response", f"the service answered with binary content ({type_ or 'no type'})")
    return HttpAnswer(status, text)


async def _read(response: httpx2.Response) -> bytes:
    """The body, read no further than its bound; also a compressed one is judged by what it unfolds to."""
    data = bytearray()
    async for chunk in response.aiter_bytes(64 * 1024):
        data += chunk
        if len(data) > MAX_RESPONSE:
            raise ConnectorError("response_too_large", f"the service answered with more than {MAX_RESPONSE} bytes")
    return bytes(data)


def _request(call: HttpCall, arguments: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes | None]:
    """The address, the headers and the body that the template makes of the arguments."""
    in_url = set(_PLACE.findall(call.url))
    url = _PLACE.sub(lambda match: _segment(match[1], arguments.get(match[1])), call.url)
    rest = {name: value for name, value in arguments.items() if name not in in_url | {*call.header_arguments.values()}}
    query: dict[str, Any] = {}
    body: Any = None
    if call.query is not None:
        query = {name: arguments[argument] for name, argument in call.query.items() if argument in arguments}
    if isinstance(call.body, str):
        body = arguments.get(call.body)
    elif call.body is not None:
        body = {name: arguments[argument] for name, argument in call.body.items() if argument in arguments}
    elif call.query is None and call.method in _BODILESS:
        query = rest
    elif call.query is None:
        body = rest
    headers = {"Accept-Encoding": "identity", "User-Agent": "agentflow", **call.headers}
    for header, argument in call.header_arguments.items():
        if arguments.get(argument) is not None:
            headers[header] = _header(argument, arguments[argument])
    if query:
        flat = tuple((name, _plain(one)) for name, value in query.items() if value is not None for one in _each(value))
        url = str(httpx2.URL(url).copy_merge_params(httpx2.QueryParams(flat)))
    if body is None:
        return url, headers, None
    return url, *_encoded(call, headers, body)


def _encoded(call: HttpCall, headers: dict[str, str], body: Any) -> tuple[dict[str, str], bytes]:
    if call.body_format == "form":
        if not isinstance(body, dict):
            raise ConnectorError("invalid_arguments", "the body of a form must be an object")
        flat = tuple((name, _plain(one)) for name, value in body.items() if value is not None for one in _each(value))
        return {"Content-Type": "application/x-www-form-urlencoded", **headers}, str(httpx2.QueryParams(flat)).encode()
    return {"Content-Type": "application/json", **headers}, json.dumps(body, ensure_ascii=False).encode()


def _segment(name: str, value: Any) -> str:
    if value is None:
        raise ConnectorError("invalid_arguments", f"{name}: is needed in the address")
    text = _plain(value)
    if text in ("", ".", ".."):
        raise ConnectorError("invalid_arguments", f"{name}: {text!r} cannot stand in an address")
    return quote(text, safe="")


def _header(name: str, value: Any) -> str:
    text = _plain(value)
    if not text.isprintable():
        raise ConnectorError("invalid_arguments", f"{name}: a header cannot hold line breaks or control characters")
    return text


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def secret_headers(secret: Credentials) -> dict[str, str]:
    """The headers that credentials are sent as."""
    headers = dict(secret.headers)
    if secret.bearer is not None:
        headers["Authorization"] = f"Bearer {secret.bearer}"
    elif secret.username is not None or secret.password is not None:
        headers["Authorization"] = httpx2.BasicAuth(secret.username or "", secret.password or "")._auth_header
    return headers


def _without_secrets(text: str, secret: Credentials) -> str:
    """The text without credentials that the service has echoed."""
    values = [secret.bearer, secret.password, *secret.headers.values(), *secret.query.values()]
    for value in values:
        if value is not None and len(value) >= 6:
            text = text.replace(value, "[secret]")
    return text
