"""A call as data, and its answer as data. Nothing here touches a socket."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

from agentflow.errors import ConfigurationError
from agentflow.transport.uploads import Multipart

DEFAULT_CONNECT = 10.0
DEFAULT_IDLE = 60.0
DEFAULT_TOTAL = 600.0


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long to wait, in seconds; None waits for ever.

    Args:
        connect: for a connection. idle: between two reads of a stream. total: for a whole call, with its retries.
    """

    connect: float | None = DEFAULT_CONNECT
    idle: float | None = DEFAULT_IDLE
    total: float | None = DEFAULT_TOTAL

    @classmethod
    def of(cls, value: "Timeout | float | None", default: "Timeout") -> "Timeout":
        """A number means the whole call."""
        if value is None:
            return default
        if isinstance(value, Timeout):
            return value
        return replace(default, total=float(value))


@dataclass(frozen=True, slots=True)
class Request:
    """One call.

    Args:
        path: below the endpoint. query: parameters; None and defaults are left out by the caller.
        body: sent as JSON. upload: a form with files, sent in place of it.
        repeatable: sending it twice does no harm, so it may be retried.
        stream: the answer is a stream of events, read as it comes. download: the same for a file of any type.
    """

    method: str
    path: str
    query: dict[str, Any] = field(default_factory=dict[str, Any])
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    repeatable: bool = False
    stream: bool = False
    timeout: Timeout | float | None = None
    upload: Multipart | None = None
    download: bool = False

    @property
    def again(self) -> bool:
        """Whether it may be sent again after it may have reached the server."""
        return self.repeatable and self.resendable

    @property
    def resendable(self) -> bool:
        """Whether its body can be sent a second time at all."""
        return self.upload is None or self.upload.replayable

    def kept_open(self, status: int, media_type: str) -> bool:
        """Whether an answer is handed on unread."""
        return status < 300 and (self.download or (self.stream and "event-stream" in media_type))

    def content(self) -> bytes | None:
        """The body as it is sent.

        Raises:
            ConfigurationError: it holds what JSON cannot say: a function, NaN, an object of one's own.
        """
        try:
            return None if self.body is None else json.dumps(self.body, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"the arguments cannot be sent as JSON: {error}") from None

    def params(self) -> dict[str, str]:
        """The query as it is sent."""
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in self.query.items()
            if value is not None
        }


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer as it came.

    Attributes:
        headers: names in lower case. attempts: how often the request was sent.
    """

    status: int
    headers: dict[str, str]
    content: bytes
    attempts: int = 1

    @property
    def request_id(self) -> str | None:
        """The id to find the request in the server's log."""
        return self.headers.get("x-request-id")

    def json(self) -> Any:
        """The body as JSON values."""
        return json.loads(self.content)
