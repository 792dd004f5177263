"""The sentence encoder all-MiniLM-L6-v2 in NumPy: a BERT of six layers, mean pooling, unit vectors.

Called by `embedding`. Any BERT-family folder with `config.json`, `tokenizer.json` and `model.safetensors` can be read.
Sources: Devlin et al., "BERT" (2018); Reimers and Gurevych, "Sentence-BERT" (2019); the safetensors file format.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Floats = NDArray[np.float32]
_TOKENS_AT_ONCE = 2048
_ROWS_AT_ONCE = 256
_SCORES_AT_ONCE = 128 * 1024
_GELU = np.float32(0.7978845608028654), np.float32(0.044715)


class Encoder:
    """Reads the weights; then turns texts into vectors. Holds no lock: NumPy lets other threads run meanwhile.

    Args:
        folder: where the model's files are.
        max_tokens: what is longer is cut; at most the model's number of positions.
    """

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.dimension: int = config["hidden_size"]
        self._heads: int = config["num_attention_heads"]
        self._epsilon = np.float32(config.get("layer_norm_eps", 1e-12))
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(min(max_tokens, config["max_position_embeddings"]))
        weights = _read(folder / "model.safetensors")
        names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        self._words, self._positions, types = (weights[f"embeddings.{name}.weight"] for name in names)
        self._positions = self._positions + types[0]
        self._norm = _norm(weights, "embeddings.LayerNorm")
        self._layers = [_Layer(weights, f"encoder.layer.{n}") for n in range(config["num_hidden_layers"])]

    def encode(self, texts: Sequence[str]) -> Floats:
        """One unit vector a text, in the order of the texts."""
        encodings = self._tokenizer.encode_batch(list(texts))
        tokens = [np.asarray(encoding.ids, np.int64) for encoding in encodings]
        return np.concatenate([self._encode(batch) for batch in _batches(tokens)])

    def _encode(self, tokens: list[NDArray[np.int64]]) -> Floats:
        """Texts one after another, without padding; only attention and the mean look at where each begins and ends."""
        lengths = np.asarray([len(ids) for ids in tokens])
        ends = np.cumsum(lengths)
        spans = [slice(int(end - length), int(end)) for length, end in zip(lengths, ends, strict=True)]
        places = np.concatenate([np.arange(length) for length in lengths])
        hidden = self._words[np.concatenate(tokens)] + self._positions[places]
        _normalise(hidden, self._norm, self._epsilon)
        for layer in self._layers:
            hidden = layer(hidden, spans, self._heads, self._epsilon)
        means = np.add.reduceat(hidden, ends - lengths, axis=0) / lengths[:, None].astype(np.float32)
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.float32(1e-12))


class _Layer:
    """One layer: attention, then a feed-forward net, each added to its input and normalised."""

    def __init__(self, weights: dict[str, Floats], name: str) -> None:
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        self._qkv = np.concatenate([weights[f"{part}.weight"] for part in parts]).T.copy()
        self._qkv_bias = np.concatenate([weights[f"{part}.bias"] for part in parts])
        self._out = _dense(weights, f"{name}.attention.output.dense")
        self._up = _dense(weights, f"{name}.intermediate.dense")
        self._down = _dense(weights, f"{name}.output.dense")
        self._norms = _norm(weights, f"{name}.attention.output.LayerNorm"), _norm(weights, f"{name}.output.LayerNorm")

    def __call__(self, hidden: Floats, spans: list[slice], heads: int, epsilon: np.float32) -> Floats:
        mixed = _apply(self._attend(hidden, spans, heads), self._out)
        mixed += hidden
        _normalise(mixed, self._norms[0], epsilon)
        for start in range(0, len(mixed), _ROWS_AT_ONCE):
            rows = mixed[start : start + _ROWS_AT_ONCE]
            rows += _apply(_gelu(_apply(rows, self._up)), self._down)
        _normalise(mixed, self._norms[1], epsilon)
        return mixed

    def _attend(self, hidden: Floats, spans: list[slice], heads: int) -> Floats:
        width = hidden.shape[1]
        qkv = hidden @ self._qkv
        qkv += self._qkv_bias
        qkv[:, :width] *= np.float32((width // heads) ** -0.5)
        mixed = np.empty_like(hidden)
        for rows in spans:
            length = rows.stop - rows.start
            query, key, value = qkv[rows].reshape(length, 3, heads, -1).transpose(1, 2, 0, 3)
            for some in _groups(heads, length):
                scores = query[some] @ key[some].swapaxes(1, 2)
                scores -= scores.max(axis=2, keepdims=True)
                np.exp(scores, out=scores)
                found = scores @ value[some]
                found /= scores.sum(axis=2, keepdims=True)
                mixed[rows].reshape(length, heads, -1)[:, some] = found.swapaxes(0, 1)
        return mixed


def _groups(heads: int, length: int) -> Iterator[slice]:
    """Heads whose scores fit into the processor's cache together."""
    step = max(1, min(heads, _SCORES_AT_ONCE // (length * length)))
    for start in range(0, heads, step):
        yield slice(start, start + step)


def _batches(tokens: list[NDArray[np.int64]]) -> Iterator[list[NDArray[np.int64]]]:
    """Neighbouring texts, so many that their tokens stay below a bound."""
    batch: list[NDArray[np.int64]] = []
    size = 0
    for ids in tokens:
        if batch and size + len(ids) > _TOKENS_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(ids)
        size += len(ids)
    if batch:
        yield batch


def _apply(rows: Floats, dense: tuple[Floats, Floats]) -> Floats:
    result = rows @ dense[0]
    result += dense[1]
    return result


def _gelu(x: Floats) -> Floats:
    """x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³))) (Hendrycks and Gimpel, 2016)."""
    inner = x * x
    inner *= _GELU[1]
    inner += 1
    inner *= x
    inner *= _GELU[0]
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= np.float32(0.5)
    return inner


def _normalise(rows: Floats, norm: tuple[Floats, Floats], epsilon: np.float32) -> None:
    rows -= rows.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", rows, rows)[:, None] / np.float32(rows.shape[1])
    rows /= np.sqrt(variance + epsilon)
    rows *= norm[0]
    rows += norm[1]


def _dense(weights: dict[str, Floats], name: str) -> tuple[Floats, Floats]:
    return weights[f"{name}.weight"].T.copy(), weights[f"{name}.bias"]


def _norm(weights: dict[str, Floats], name: str) -> tuple[Floats, Floats]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _read(path: Path) -> dict[str, Floats]:
    """The tensors of a safetensors file, mapped into memory: a length, a JSON header, then plain numbers."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r", offset=8 + size)
    tensors: dict[str, Floats] = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            tensors[name] = data[begin:end].view(np.float32).reshape(entry["shape"])
    return tensors
