"""Every error of AgentFlow, one class each. The server raises them, the wire carries them, the SDK raises them again.

    AgentFlowError
    ├── APIError                        the server answered, and said no
    │   ├── BadRequestError             400 bad_request
    │   ├── AuthenticationError         401 unauthenticated
    │   ├── BudgetExceededError         402 budget_exceeded
    │   ├── PermissionDeniedError       403 permission_denied
    │   ├── NotFoundError               404 not_found
    │   ├── ConflictError               409 conflict
    │   ├── PayloadTooLargeError        413 payload_too_large
    │   ├── UnsupportedMediaTypeError   415 unsupported_media_type
    │   ├── ValidationError             422 validation_error
    │   │   └── NotAvailableError       422 not_available
    │   ├── RateLimitedError            429 rate_limited
    │   ├── InternalServerError         500 internal_error
    │   ├── ModelError                  502 model_error: the model's provider failed
    │   │   └── ModelAuthError, ModelRateLimitedError, ModelUnavailableError, ModelBadRequestError,
    │   │       ModelContextLengthError, ModelTimeoutError, ModelInterruptedError
    │   └── UnavailableError            503 unavailable
    ├── RunCancelledError               a run whose answer was awaited had been cancelled
    ├── ConfigurationError              the client was set up wrongly
    │   └── ProfileNotFoundError, ProfileDamagedError
    ├── LoginError                      signing in did not succeed
    └── TransportError                  no usable answer came
        └── ConnectionFailedError, RequestTimeoutError, StreamInterruptedError, DecodeError

Errors pickle, and never hold a credential.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class AgentFlowError(Exception):
    """The root of the tree.

    Args:
        message: what went wrong and what to do.
        hint: one more sentence about what to do, if there is one.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> "tuple[Any, ...]":
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


class APIError(AgentFlowError):
    """The server refused or failed a request.

    Attributes:
        code: the error's name on the wire. status: the HTTP status.
        details: what the server adds, depending on the code. request_id: to find the request in the server's log.
        retry_after: seconds the server asks to wait. attempts: how often the SDK sent the request.
    """

    code: str = "error"
    status: int = 500

    def __init__(
        self,
        message: str,
        *,
        details: Any = None,
        hint: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        attempts: int = 1,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.details = details
        self.request_id = request_id
        self.retry_after = retry_after
        self.attempts = attempts
        self.status = status or type(self).status
        self.code = code or type(self).code

    def __str__(self) -> str:
        text = f"{self.status} {self.code}: {super().__str__()}"
        return f"{text} [request {self.request_id}]" if self.request_id else text


class BadRequestError(APIError):
    """The request cannot be read: not JSON, a wrong method, a malformed header."""

    code = "bad_request"
    status = 400


class AuthenticationError(APIError):
    """The caller could not be identified: credentials are missing, expired or not valid."""

    code = "unauthenticated"
    status = 401


class BudgetExceededError(APIError):
    """The tenant's or the user's budget for this month is used up."""

    code = "budget_exceeded"
    status = 402


class PermissionDeniedError(APIError):
    """The caller is known, but may not do this."""

    code = "permission_denied"
    status = 403


class NotFoundError(APIError):
    """There is no such thing, or the caller may not know of it."""

    code = "not_found"
    status = 404


class ConflictError(APIError):
    """The request contradicts what is there: a name in use, another version, an id used with another body."""

    code = "conflict"
    status = 409


class PayloadTooLargeError(APIError):
    """The message or the body is larger than the server accepts."""

    code = "payload_too_large"
    status = 413


class UnsupportedMediaTypeError(APIError):
    """The content is of a type the server does not take."""

    code = "unsupported_media_type"
    status = 415


class ValidationError(APIError):
    """Fields of the request do not hold. `details` is a list of `{field, message}`."""

    code = "validation_error"
    status = 422


class NotAvailableError(ValidationError):
    """The request asks for something this server does not offer; the message names it."""

    code = "not_available"


class RateLimitedError(APIError):
    """Too many requests; `retry_after` says when to come back."""

    code = "rate_limited"
    status = 429


class InternalServerError(APIError):
    """The server failed."""

    code = "internal_error"
    status = 500


class UnavailableError(APIError):
    """The server cannot take the request now; `retry_after` says when to come back."""

    code = "unavailable"
    status = 503


class ModelError(APIError):
    """The model's provider refused or failed."""

    code = "model_error"
    status = 502


class ModelAuthError(ModelError):
    """The provider does not accept the configured key."""

    code = "model_auth_error"


class ModelRateLimitedError(ModelError):
    """The provider's limit is reached."""

    code = "model_rate_limited"


class ModelUnavailableError(ModelError):
    """The provider cannot be reached or is overloaded."""

    code = "model_unavailable"


class ModelBadRequestError(ModelError):
    """The provider refused the request as it was made."""

    code = "model_bad_request"


class ModelContextLengthError(ModelBadRequestError):
    """The conversation does not fit the model's window."""

    code = "model_context_length"


class ModelTimeoutError(ModelError):
    """The model took too long."""

    code = "model_timeout"


class ModelInterruptedError(ModelError):
    """The model's answer broke off before it was complete."""

    code = "model_interrupted"


class RunCancelledError(AgentFlowError):
    """The run was cancelled before it gave the answer that was asked for; `result` holds what there is."""

    def __init__(self, message: str, *, hint: str | None = None, result: Any = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result


class ConfigurationError(AgentFlowError):
    """The client is not set up: no endpoint, arguments that contradict each other, a wrong value."""


class ProfileNotFoundError(ConfigurationError):
    """There is no profile of this name."""


class ProfileDamagedError(ConfigurationError):
    """The file of profiles cannot be read; the message names the file and the place."""


class LoginError(AgentFlowError):
    """Signing in did not succeed."""


class TransportError(AgentFlowError):
    """No usable answer came from the server.

    Attributes:
        request_id: of the last attempt. attempts: how often the request was sent.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, request_id: str | None = None, attempts: int = 1
    ) -> None:
        super().__init__(message, hint=hint)
        self.request_id = request_id
        self.attempts = attempts


class ConnectionFailedError(TransportError):
    """The server could not be reached, or the connection broke before it answered."""


class RequestTimeoutError(TransportError):
    """The server did not answer in time."""


class StreamInterruptedError(TransportError):
    """A stream broke off before its last event, and could not be resumed. What came before is not the whole answer."""


class DecodeError(TransportError):
    """The answer is not what the API promises: HTML instead of JSON, or a missing field."""


def _subclasses(root: type[APIError]) -> list[type[APIError]]:
    return [root, *(found for child in root.__subclasses__() for found in _subclasses(child))]


class _Registry:
    by_code: ClassVar[dict[str, type[APIError]]] = {}
    by_status: ClassVar[dict[int, type[APIError]]] = {}


for _class in _subclasses(APIError)[1:]:
    _Registry.by_code[_class.code] = _class
    if not issubclass(_class, ModelError):
        _Registry.by_status.setdefault(_class.status, _class)
_Registry.by_status.update({502: UnavailableError, 504: UnavailableError})  # a proxy's, when there is no code


def api_error(
    status: int,
    body: Any,
    *,
    request_id: str | None = None,
    retry_after: float | None = None,
    attempts: int = 1,
) -> APIError:
    """The error a response carries. Unknown codes are told apart by their status; both are kept as they came.

    Args:
        status: HTTP status. body: the decoded JSON body, or whatever came instead of one.
    """
    envelope: Mapping[str, Any] = (
        body["error"] if isinstance(body, dict) and isinstance(body.get("error"), dict) else {}
    )
    code = envelope.get("code")
    cls = _Registry.by_code.get(str(code)) or _Registry.by_status.get(status) or _family(status)
    message = envelope.get("message") or _plain(body) or f"the server answered with status {status}"
    return cls(
        str(message),
        details=envelope.get("details"),
        hint=envelope.get("hint"),
        request_id=envelope.get("request_id") or request_id,
        retry_after=retry_after,
        attempts=attempts,
        status=status,
        code=str(code) if code else None,
    )


def _family(status: int) -> type[APIError]:
    return InternalServerError if status >= 500 else BadRequestError


def _plain(body: Any) -> str | None:
    if isinstance(body, dict) and isinstance(body.get("detail"), str):
        return body["detail"]
    return None


def _rebuild(cls: type[AgentFlowError], message: str, state: dict[str, Any]) -> AgentFlowError:
    error = cls(message)
    error.__dict__.update(state)
    return error
