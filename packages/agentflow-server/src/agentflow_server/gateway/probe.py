"""Tries a provider's key with its cheapest call, the listing of models. Used when a tenant saves a key of its own."""

import httpx2
from agentflow.errors import ModelAuthError, ModelUnavailableError

from agentflow_server.gateway.settings import Endpoint
from agentflow_server.kit.outbound import ForbiddenAddressError, outbound_client

_NOT_OFFERED = (404, 405, 501)
_ANTHROPIC = "https://api.anthropic.com"
_GOOGLE = "https://generativelanguage.googleapis.com"


async def probe(name: str, endpoint: Endpoint) -> bool:
    """Whether the provider accepts the key; False if it offers nothing to try it with.

    Raises:
        ModelAuthError: it does not. ModelUnavailableError: it cannot be reached or fails. The provider's own words are
        not repeated: some repeat the key.
    """
    url, headers = _listing(name, endpoint)
    try:
        async with outbound_client(allow_private=endpoint.allow_private or not endpoint.guarded, timeout=15.0) as http:
            response = await http.get(url, headers=headers)
    except (httpx2.HTTPError, ForbiddenAddressError) as error:
        told = str(error) if isinstance(error, ForbiddenAddressError) else type(error).__name__
        raise ModelUnavailableError(f"{name} could not be reached: {told}") from None
    if response.status_code in (401, 403):
        raise ModelAuthError(f"{name} does not accept this key")
    if response.status_code >= 500 or 300 <= response.status_code < 400:
        raise ModelUnavailableError(f"{name} answered with status {response.status_code}")
    return response.status_code not in _NOT_OFFERED


def _listing(name: str, endpoint: Endpoint) -> tuple[str, dict[str, str]]:
    key = endpoint.api_key.get_secret_value() if endpoint.api_key else ""
    base = (endpoint.base_url or "").rstrip("/")
    if endpoint.kind == "anthropic":
        return f"{base or _ANTHROPIC}/v1/models?limit=1", {"x-api-key": key, "anthropic-version": "2023-06-01"}
    if endpoint.kind == "google":
        return f"{base or _GOOGLE}/v1beta/models?pageSize=1", {"x-goog-api-key": key}
    if endpoint.kind == "azure":
        return f"{base}/openai/models?api-version={endpoint.api_version}", {"api-key": key}
    listing = "key" if name == "openrouter" else "models"  # OpenRouter lists its models to everybody
    return f"{base}/{listing}", {"Authorization": f"Bearer {key}"}
