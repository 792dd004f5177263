"""What happens to a call, without doing it: a generator that says what to send and when to wait, and is told what came.

The sync and the async driver both run it, so that both behave the same in every detail.
"""

import random
import sys
import time
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from agentflow.errors import (
    AgentFlowError,
    APIError,
    ConnectionFailedError,
    DecodeError,
    RequestTimeoutError,
    TransportError,
    api_error,
)
from agentflow.transport.request import RawResponse, Request, Timeout

RETRIED = frozenset({408, 425, 429, 502, 503, 504})
_MAX_PAUSE = 8.0
_MAX_RETRY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Send:
    """Send this; `timeout` is what is left for this attempt."""

    request: Request
    headers: dict[str, str]
    timeout: Timeout


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer came. `sent`: the request may have reached the server."""

    error: TransportError
    sent: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer came. `content` is None for a stream that is to be read."""

    status: int
    headers: Mapping[str, str]
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Renew:
    """Get new credentials, in place of those that were refused."""

    refused: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """The new credentials; None if there are no others."""

    headers: Mapping[str, str] | None


Step = Send | Pause | Renew
Result = Answer | Failure | Renewed | None


def pipeline(
    request: Request,
    *,
    headers: Mapping[str, str],
    credentials: Mapping[str, str] | None,
    timeout: Timeout,
    max_retries: int,
) -> Generator[Step, Result, tuple[Answer, int]]:
    """Send a request until it succeeds or may not be sent again. Returns the answer and the number of attempts.

    Args:
        credentials: None if they must be got first. Refused ones (401) are renewed once: the server did nothing yet.

    Raises:
        APIError: the server said no. TransportError: no answer came.
    """
    deadline = None if timeout.total is None else time.monotonic() + timeout.total
    request_id = request.headers.get("X-Request-ID") or uuid.uuid4().hex
    may_renew = True
    if credentials is None:
        credentials = yield from _renewed(None)
    attempt = 0
    while True:
        attempt += 1
        sent = {**_trace(), **headers, **(credentials or {}), **request.headers, "X-Request-ID": request_id}
        result = yield Send(request, sent, _left(timeout, deadline, request_id, attempt))
        if isinstance(result, Answer) and result.status == 401 and may_renew and request.resendable:
            may_renew = False
            newer = yield from _renewed(credentials)
            if newer is not None:
                credentials, attempt = newer, attempt - 1
                continue
        if isinstance(result, Answer) and result.status < 400:
            _require_expected(request, result, request_id, attempt)
            return result, attempt
        error, again = _judge(request, result, request_id, attempt)
        if not again or attempt > max_retries:
            raise error
        pause = _pause(error, attempt)
        if deadline is not None and time.monotonic() + pause >= deadline:
            raise error
        yield Pause(pause)


def _trace() -> dict[str, str]:
    """The current span as headers (W3C Trace Context), if the program has loaded OpenTelemetry."""
    headers: dict[str, str] = {}
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is not None:
        propagate.inject(headers)
    return headers


def _renewed(refused: Mapping[str, str] | None) -> Generator[Step, Result, Mapping[str, str] | None]:
    result = yield Renew(refused)
    assert isinstance(result, Renewed)
    return result.headers


def _left(timeout: Timeout, deadline: float | None, request_id: str, attempt: int) -> Timeout:
    if deadline is None:
        return timeout
    left = deadline - time.monotonic()
    if left <= 0:
        raise RequestTimeoutError(
            f"the call did not finish within {timeout.total:g} s", request_id=request_id, attempts=max(1, attempt - 1)
        )
    return Timeout(connect=min(left, timeout.connect or left), idle=timeout.idle, total=left)


def _judge(request: Request, result: Result, request_id: str, attempt: int) -> tuple[AgentFlowError, bool]:
    """The error of an attempt, and whether the request may be sent again."""
    if isinstance(result, Failure):
        error = result.error
        error.request_id, error.attempts = request_id, attempt
        return error, request.again or not result.sent
    assert isinstance(result, Answer)
    error = error_of(result, request_id, attempt)
    ours = error.code.startswith("model_")  # the run itself failed: asking again gives the same answer
    return error, request.again and result.status in RETRIED and not ours


def error_of(answer: Answer, request_id: str | None = None, attempts: int = 1) -> APIError:
    """The error in an answer with a status of 400 or more."""
    headers = answer.headers
    body: Any = None
    hint = None
    if "json" in headers.get("content-type", ""):
        try:
            body = RawResponse(answer.status, dict(headers), answer.content or b"").json()
        except ValueError:
            body = None
    if body is None:
        hint = "The answer is not AgentFlow's: something between you and the server may have sent it."
    error = api_error(
        answer.status,
        body,
        request_id=headers.get("x-request-id") or request_id,
        retry_after=_seconds(headers.get("retry-after")),
        attempts=attempts,
    )
    error.hint = error.hint or hint
    return error


def _require_expected(request: Request, answer: Answer, request_id: str, attempt: int) -> None:
    expected = "text/event-stream" if request.stream else "json"
    kind = answer.headers.get("content-type", "")
    if answer.status < 300 and (answer.status == 204 or request.download or expected in kind):
        return
    told = (
        f"redirects (status {answer.status})" if answer.status >= 300 else f"answered with {kind or 'no content type'}"
    )
    raise DecodeError(
        f"{request.path} {told}, where {expected} was expected",
        hint="Check that the endpoint is the address of an AgentFlow server.",
        request_id=answer.headers.get("x-request-id") or request_id,
        attempts=attempt,
    )


def _pause(error: AgentFlowError, attempt: int) -> float:
    asked = getattr(error, "retry_after", None)
    if asked is not None:
        return min(asked, _MAX_RETRY_AFTER)
    return backoff(attempt)


def backoff(attempt: int) -> float:
    """Seconds before the next attempt: doubling from half a second, with jitter, at most eight."""
    return min(_MAX_PAUSE, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.75, 1.0)


def _seconds(header: str | None) -> float | None:
    """`Retry-After`: seconds or a date (RFC 9110, section 10.2.3)."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def connection_failure(endpoint: str, error: Exception) -> ConnectionFailedError:
    """The error for a server that could not be reached."""
    return ConnectionFailedError(
        f"{endpoint} could not be reached: {error or type(error).__name__}",
        hint="Is the server running, and is the endpoint right?",
    )
