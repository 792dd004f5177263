"""Every error in one envelope: `{"error": {"code", "message", "details", "request_id", "hint"}, "detail": message}`.

The only place that turns exceptions into HTTP. Nothing that is not one of our errors says what it was.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

from agentflow.errors import (
    APIError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    ValidationError,
)
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)
_PLACES = {"body", "query", "path", "header"}


def error_response(error: APIError, request_id: str | None) -> Response:
    """The response that carries an error."""
    content = {
        "error": {
            "code": error.code,
            "message": error.message,
            "details": error.details,
            "request_id": request_id,
            "hint": error.hint,
        },
        "detail": error.message,
    }
    headers = {}
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if error.status in (401, 403):
        headers["WWW-Authenticate"] = _challenge(error)
    return Response(to_json(content, fallback=str), error.status or 500, headers, "application/json")


def _challenge(error: APIError) -> str:
    """What is wrong with the credentials, for programs (RFC 6750, section 3)."""
    details: dict[str, Any] = error.details if isinstance(error.details, dict) else {}
    if error.status == 401:
        return 'Bearer error="invalid_token"' if "reason" in details else "Bearer"
    scope = f', scope="{details["scope"]}"' if "scope" in details else ""
    return f'Bearer error="insufficient_scope"{scope}'


def install(app: FastAPI) -> None:
    """Let the app answer every error with the envelope."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, APIError)
        return error_response(error, _request_id(request))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(_validation(error.errors()), _request_id(request))

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_response(_http(error, request), _request_id(request))

    async def unexpected(request: Request, error: Exception) -> Response:
        logger.error("unexpected error", extra={"path": request.url.path}, exc_info=error)
        return error_response(InternalServerError("the server failed to answer this request"), _request_id(request))

    app.add_exception_handler(APIError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unexpected)


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def _validation(errors: Sequence[Any]) -> APIError:
    """What pydantic found, field by field, in one sentence each."""
    if errors and errors[0]["type"] == "json_invalid":
        reason = errors[0].get("ctx", {}).get("error", "it cannot be parsed")
        return BadRequestError(f"the request body is not valid JSON: {reason}")
    details: list[dict[str, Any]] = []
    for item in errors:
        place = [str(step) for step in item["loc"]]
        field = ".".join(place[1:] if place and place[0] in _PLACES and len(place) > 1 else place)
        details.append({"field": field or "body", "message": item["msg"], "type": item["type"]})
    first = details[0] if details else {"field": "body", "message": "invalid"}
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return ValidationError(f"{first['field']}: {first['message']}{more}", details=details)


def _http(error: HTTPException, request: Request) -> APIError:
    if error.status_code == 404:
        return NotFoundError(f"there is no route {request.method} {request.url.path}")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        wrong = BadRequestError(f"{request.method} is not allowed on {request.url.path}; allowed: {allowed}")
        wrong.status = 405
        return wrong
    wrong = BadRequestError(str(error.detail))
    wrong.status = error.status_code
    return wrong
