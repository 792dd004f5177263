"""`client.models`: the catalogue."""

from urllib.parse import quote

from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.models import Model, ModelList


class AsyncModels:
    """Models that agents can ask."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> ModelList:
        """Every model that is known, with windows, abilities and prices; `.default` is what agents use by default."""
        return await self._transport.call(Request("GET", "/api/v1/models", repeatable=True), ModelList)

    async def retrieve(self, model_id: str) -> Model:
        """One model, by its id `provider/model`.

        Raises:
            NotFoundError: there is no such model.
        """
        return await self._transport.call(Request("GET", f"/api/v1/models/{quote(model_id)}", repeatable=True), Model)
