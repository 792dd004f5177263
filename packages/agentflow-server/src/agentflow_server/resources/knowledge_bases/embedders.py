"""Which embedder a knowledge base has: the bundled one, a provider's through the gateway, or none."""

from collections.abc import Sequence

import numpy as np
from agentflow.errors import APIError, NotAvailableError

from agentflow_server.gateway import Attribution, Gateway
from agentflow_server.retrieval.embedding import (
    BUNDLED_ID,
    INSTALL,
    Embedder,
    EmbeddingUnavailableError,
    Vectors,
    bundled_embedder,
)

NONE = "none"
_TEXTS_AT_ONCE = 64


class Embedders:
    """The embedders of a server.

    Args:
        default: an embedder's id, `none`, or None for the bundled one if it is installed.
    """

    def __init__(self, gateway: Gateway, default: str | None) -> None:
        self._gateway = gateway
        self._default = default
        self._bundled = bundled_embedder()

    async def chosen(self, tenant: str, wanted: str | None) -> str | None:
        """The id of the embedder that a new base gets; None if it is searched by words only.

        Raises:
            NotFoundError, NotAvailableError, PermissionDeniedError: there is no such embedder for this tenant.
        """
        name = wanted or self._default
        if name is None:
            return BUNDLED_ID if self._bundled is not None else None
        if name == NONE:
            return None
        if name == BUNDLED_ID:
            if self._bundled is None:
                raise NotAvailableError(
                    f"embedding_model: {BUNDLED_ID} is not installed on this server", hint=f"Install it with: {INSTALL}"
                )
            return name
        await self._gateway.embeds(tenant, name)
        return name

    def of(self, embedder_id: str | None, tenant: str, user_id: str) -> Embedder | None:
        """The embedder of a base, acting for a user; None if it cannot be had here (any more)."""
        if embedder_id == BUNDLED_ID:
            return self._bundled
        if embedder_id is None:
            return None
        return _ProviderEmbedder(self._gateway, embedder_id, Attribution(tenant, user_id, purpose="embedding"))


class _ProviderEmbedder:
    """A provider's embedding model."""

    dimension = 0

    def __init__(self, gateway: Gateway, model: str, attribution: Attribution) -> None:
        self.id = model
        self._gateway = gateway
        self._attribution = attribution

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows: list[list[float]] = []
        try:
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                part = list(texts[start : start + _TEXTS_AT_ONCE])
                rows += await self._gateway.embed(self.id, part, attribution=self._attribution)
        except APIError as error:
            raise EmbeddingUnavailableError(f"{self.id} gives no embeddings now: {error.message}") from error
        vectors = np.asarray(rows, np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise EmbeddingUnavailableError(f"{self.id} answered with what are not vectors")
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
