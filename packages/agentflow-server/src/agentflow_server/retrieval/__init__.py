"""From files to the right passages: parse, chunk, embed, index, search. Knows no resource."""

from agentflow_server.retrieval.embedding import (
    BUNDLED_ID,
    INSTALL,
    BundledEmbedder,
    Embedder,
    EmbeddingUnavailableError,
    Vectors,
    bundled_embedder,
)

__all__ = [
    "BUNDLED_ID", "INSTALL", "BundledEmbedder", "Embedder", "EmbeddingUnavailableError", "Vectors", "bundled_embedder",
]  # fmt: skip
