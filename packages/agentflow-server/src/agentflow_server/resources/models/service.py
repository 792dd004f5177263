"""The catalogue of models as the wire shows it."""

from agentflow.errors import NotFoundError
from agentflow.types.models import Model, ModelCapabilities, ModelList, ModelPricing

from agentflow_server.gateway import Gateway
from agentflow_server.gateway.catalogue import ModelInfo, prices


class ModelsService:
    """The models room."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def list(self) -> ModelList:
        """Every model that is known, and the default."""
        found = await self._gateway.catalogue()
        return ModelList(models=[_model(info) for info in found], default=await self._gateway.default_model())

    async def retrieve(self, model_id: str) -> Model:
        """One model.

        Raises:
            NotFoundError: there is no such model.
        """
        found = {info.id: info for info in await self._gateway.catalogue()}
        info = found.get(model_id)
        if info is None:
            raise NotFoundError(f"there is no model {model_id!r}: GET /api/v1/models lists those there are")
        return _model(info)


def _model(info: ModelInfo) -> Model:
    price = prices(info.id)
    return Model(
        id=info.id,
        name=info.name,
        provider=info.provider,
        description=info.description,
        available=info.available,
        capabilities=ModelCapabilities(
            contextWindow=info.context_window,
            maxOutputTokens=info.max_output,
            supportsVision=info.vision,
            supportsTools=info.tools,
            supportsReasoning=bool(info.reasoning_efforts),
            supportsStructuredOutput=info.structured_output,
        ),
        supportedReasoningEfforts=list(info.reasoning_efforts),
        pricing=ModelPricing(input_per_million=price[0], output_per_million=price[1]) if price else None,
    )
