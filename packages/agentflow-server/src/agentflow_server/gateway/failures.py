"""What a provider's refusal means, as one of our errors. Says what to do; never repeats a key."""

import json

from agentflow.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelContextLengthError,
    ModelError,
    ModelRateLimitedError,
    ModelTimeoutError,
    ModelUnavailableError,
)

_TOO_LONG = (
    "context_length", "context length", "context window", "maximum context", "too many tokens", "prompt is too long",
    "input is too long", "exceeds the maximum number of tokens",
)  # fmt: skip


def provider_error(name: str, status: int, body: bytes, retry_after: str | None = None) -> ModelError:
    """The error for a provider's HTTP status and body.

    Args:
        name: the provider, as in model ids. retry_after: the header, seconds.
    """
    told = _message(body)
    if status in (401, 403):
        return ModelAuthError(
            f"{name} does not accept the configured key",
            hint=f"Check {name.upper()}_API_KEY where the server runs, and what the key may use.",
        )
    if status == 429:
        return ModelRateLimitedError(f"{name} limits its requests: {told}", retry_after=_seconds(retry_after))
    if status == 408:
        return ModelTimeoutError(f"{name} took too long")
    if status >= 500:
        return ModelUnavailableError(f"{name} failed with status {status}: {told}", retry_after=_seconds(retry_after))
    if status == 413 or any(word in told.lower() for word in _TOO_LONG):
        return ModelContextLengthError(f"the conversation does not fit the model's window: {told}")
    return ModelBadRequestError(f"{name} refused the request with status {status}: {told}")


def _message(body: bytes) -> str:
    try:
        parsed = json.loads(body)
    except ValueError:
        return body[:300].decode("utf-8", "replace").strip() or "no reason given"
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    told = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return str(told or "no reason given")[:500]


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
