"""`client.models`: the catalogue, one's own choice, and for admins the policy and the tenant's own keys."""

from typing import Any, Literal
from urllib.parse import quote

from agentflow.resources.runs import segment
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.models import (
    Model,
    ModelList,
    ModelPolicy,
    ModelPolicyUpdate,
    ModelSetting,
    ModelSettingUpdate,
    ProviderKey,
    ProviderKeyList,
    ProviderKeyUpdate,
)

_POLICY = "/api/v1/admin/models/policy"
_KEYS = "/api/v1/admin/models/keys"


class AsyncModels:
    """Models that agents can ask. Policy and keys are for human admins."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> ModelList:
        """The models that may be used, with windows, abilities and prices; `.default` is what is used by default."""
        return await self._transport.call(Request("GET", "/api/v1/models", repeatable=True), ModelList)

    async def retrieve(self, model_id: str) -> Model:
        """One model, by its id `provider/model`.

        Raises:
            NotFoundError: there is no such model.
        """
        return await self._transport.call(Request("GET", f"/api/v1/models/{quote(model_id)}", repeatable=True), Model)

    async def get_setting(self) -> ModelSetting:
        """The model the caller has chosen for itself."""
        return await self._transport.call(Request("GET", "/api/v1/settings/llm", repeatable=True), ModelSetting)

    async def set_setting(self, model: str | None) -> ModelSetting:
        """Choose a model for oneself: it goes before what agents are configured with, behind what a request asks.

        Args:
            model: its id; None forgets the choice.

        Raises:
            ValidationError: there is no such model. PermissionDeniedError: it may not be used.
        """
        body = ModelSettingUpdate(model=model).wire()
        return await self._transport.call(
            Request("PUT", "/api/v1/settings/llm", body=body, repeatable=True), ModelSetting
        )

    async def get_policy(self) -> ModelPolicy:
        """Whose keys are used, which models are allowed, and the defaults.

        Raises:
            PermissionDeniedError: this is for human admins.
        """
        return await self._transport.call(Request("GET", _POLICY, repeatable=True), ModelPolicy)

    async def set_policy(
        self,
        *,
        mode: Literal["platform", "byo"] | None = None,
        allowed_models: "list[str] | None" = None,
        allow_all: bool = False,
        defaults: "dict[str, str | None] | None" = None,
    ) -> ModelPolicy:
        """Change the policy; what is left out stays.

        Args:
            mode: `platform` uses the server's keys, `byo` only the tenant's own.
            allowed_models: ids or `provider/*`. allow_all: every model, in place of a list.
            defaults: by use case (`agent_chat`, `completions`, `titles`); a None forgets one.

        Raises:
            PermissionDeniedError: this is for human admins.
            ValidationError: a model that may not be used, a mode without keys.
        """
        given = {"mode": mode, "allowed_models": allowed_models, "defaults": defaults}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if allow_all:
            changes["allowed_models"] = None
        body = ModelPolicyUpdate.model_validate(changes).wire()
        return await self._transport.call(Request("PATCH", _POLICY, body=body, repeatable=True), ModelPolicy)

    async def keys(self) -> ProviderKeyList:
        """The tenant's own provider keys: their last four characters, never more.

        Raises:
            PermissionDeniedError: this is for human admins.
        """
        return await self._transport.call(Request("GET", _KEYS, repeatable=True), ProviderKeyList)

    async def set_key(
        self,
        provider: str,
        api_key: str,
        *,
        base_url: str | None = None,
        api_version: str | None = None,
        test: bool = True,
    ) -> ProviderKey:
        """Keep a key of the tenant's own, or replace it. It is never shown again.

        Args:
            provider: as in model ids. base_url: another address than the usual one. api_version: `azure` only.
            test: try it first, with a call that costs nothing.

        Raises:
            PermissionDeniedError: this is for human admins. ValidationError: the provider does not accept it.
        """
        given = {"base_url": base_url, "api_version": api_version}
        options = {name: value for name, value in given.items() if value is not None}
        body = ProviderKeyUpdate.model_validate({"api_key": api_key, "test": test, **options}).wire()
        request = Request("PUT", f"{_KEYS}/{segment(provider)}", body=body, repeatable=True)
        return await self._transport.call(request, ProviderKey)

    async def test_key(self, provider: str) -> ProviderKey:
        """Try a stored key, and seal it with the server's newest master key.

        Raises:
            PermissionDeniedError: this is for human admins. NotFoundError: there is none.
            ModelAuthError: the provider does not accept it any more.
        """
        request = Request("POST", f"{_KEYS}/{segment(provider)}/test", repeatable=True)
        return await self._transport.call(request, ProviderKey)

    async def delete_key(self, provider: str) -> None:
        """Remove a key.

        Raises:
            PermissionDeniedError: this is for human admins. NotFoundError: there is none.
            ConflictError: it is the last one, and the policy needs one.
        """
        await self._transport.raw(Request("DELETE", f"{_KEYS}/{segment(provider)}"))
