"""HTTP of the models room: the catalogue and one's own choice for everybody, policy and keys for human admins."""

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
from fastapi import APIRouter, Response

from agentflow_server.http.identity import AdminCaller, CurrentCaller
from agentflow_server.resources.models.service import ModelsService


def router(service: ModelsService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(tags=["models"])

    @routes.get("/models")
    async def list_models(caller: CurrentCaller) -> ModelList:
        """The models that may be used: windows, abilities, prices, and which are configured."""
        return await service.list(caller)

    @routes.get("/models/{model_id:path}")
    async def retrieve(caller: CurrentCaller, model_id: str) -> Model:
        """One model."""
        return await service.retrieve(caller, model_id)

    @routes.get("/settings/llm")
    async def setting(caller: CurrentCaller) -> ModelSetting:
        """The model the caller has chosen for itself."""
        return await service.setting(caller)

    @routes.put("/settings/llm")
    async def set_setting(caller: CurrentCaller, body: ModelSettingUpdate) -> ModelSetting:
        """Choose a model for oneself, or none."""
        return await service.set_setting(caller, body)

    _admin(routes, service)
    return routes


def _admin(routes: APIRouter, service: ModelsService) -> None:
    @routes.get("/admin/models/policy")
    async def policy(caller: AdminCaller) -> ModelPolicy:
        """Whose keys are used, which models are allowed, and the defaults."""
        return await service.policy(caller)

    @routes.patch("/admin/models/policy")
    async def set_policy(caller: AdminCaller, body: ModelPolicyUpdate) -> ModelPolicy:
        """Change the policy; what is left out stays."""
        return await service.set_policy(caller, body)

    @routes.get("/admin/models/keys")
    async def keys(caller: AdminCaller) -> ProviderKeyList:
        """The tenant's own provider keys: their last four characters, never more."""
        return await service.keys(caller)

    @routes.put("/admin/models/keys/{provider}")
    async def set_key(caller: AdminCaller, provider: str, body: ProviderKeyUpdate) -> ProviderKey:
        """Keep a key, or replace it. It is tried first."""
        return await service.set_key(caller, provider, body)

    @routes.post("/admin/models/keys/{provider}/test")
    async def test_key(caller: AdminCaller, provider: str) -> ProviderKey:
        """Try a stored key, and seal it with the newest master key."""
        return await service.test_key(caller, provider)

    @routes.delete("/admin/models/keys/{provider}", status_code=204)
    async def delete_key(caller: AdminCaller, provider: str) -> Response:
        """Remove a key."""
        await service.delete_key(caller, provider)
        return Response(status_code=204)
