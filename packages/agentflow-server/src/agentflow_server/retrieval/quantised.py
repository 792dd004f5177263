"""Unit vectors in one byte a number: a quarter of their size, at a loss of some thousandths of a cosine.

Where there are many, all are compared by the signs of their numbers first (Charikar, "Similarity estimation techniques
from rounding algorithms", 2002), and only the nearest are computed. Used by `entries`.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.int8]
_EXACT_UP_TO = 2048
_NEAREST = 1024


class QuantisedVectors:
    """Vectors by the number of their row.

    Args:
        dimension: a multiple of 64; 0 for none at all.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._size = 0
        self._values = np.zeros((64, dimension), np.int8)
        self._scales = np.zeros(64, np.float32)
        self._signs = np.zeros((dimension // 64, 64), np.uint64)
        self._cosine_of = np.cos(np.pi * np.arange(dimension + 1) / max(dimension, 1)).astype(np.float32)

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        return self._values.nbytes + self._scales.nbytes + self._signs.nbytes

    @staticmethod
    def pack(vectors: Floats) -> bytes:
        """Vectors as bytes: for each its scale (float32), then its numbers (int8)."""
        scales = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12).astype("<f4") / np.float32(127)
        values = np.rint(vectors / scales).astype(np.int8)
        return np.concatenate([scales.view(np.int8), values], axis=1).tobytes()

    def packed(self, rows: list[int]) -> bytes:
        """Some rows, as `pack` writes them."""
        scales = self._scales[rows].astype("<f4")[:, None].view(np.int8)
        return np.concatenate([scales, self._values[rows]], axis=1).tobytes()

    def extend(self, packed: bytes) -> int:
        """Add vectors; returns the row of the first."""
        raw = np.frombuffer(packed, np.int8).reshape(-1, self._dimension + 4)
        first, end = self._size, self._size + len(raw)
        while end > len(self._values):
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
            self._scales = np.concatenate([self._scales, np.zeros_like(self._scales)])
            self._signs = np.concatenate([self._signs, np.zeros_like(self._signs)], axis=1)
        values = raw[:, 4:]
        self._values[first:end] = values
        self._scales[first:end] = np.ascontiguousarray(raw[:, :4]).view("<f4")[:, 0]
        self._signs[:, first:end] = np.packbits(values > 0, axis=1).view(np.uint64).T
        self._size = end
        return first

    def cosines(self, vector: Floats) -> Floats:
        """How near every row is to a unit vector; among many rows, exact for the nearest and estimated for the rest."""
        size = self._size
        if size <= _EXACT_UP_TO:
            return (self._values[:size].astype(np.float32) @ vector) * self._scales[:size]
        signs = np.packbits(vector > 0).view(np.uint64)
        apart = np.zeros(size, np.uint16)
        for word, mine in enumerate(signs):
            apart += np.bitwise_count(self._signs[word, :size] ^ mine)
        enough = int(np.searchsorted(np.cumsum(np.bincount(apart)), _NEAREST))
        near = np.flatnonzero(apart <= enough)
        found = self._cosine_of[apart]
        found[near] = (self._values[near].astype(np.float32) @ vector) * self._scales[near]
        return found
