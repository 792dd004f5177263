"""Exact search by vector: the vectors of a knowledge base as one matrix, kept between searches and grown as files come.

Called by `index`. A matrix holds only the rows of one knowledge base, so that a filter never costs recall.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentflow_server.retrieval.embedding import Vectors

Key = tuple[str, str]
_ROWS_AT_ONCE = 16_384


class Segment(NamedTuple):
    """Rows that were written together: numbers `first`, `first` + 1, … of one file."""

    first: int
    amount: int
    file_id: str


@dataclass(slots=True)
class Matrix:
    """The vectors of a knowledge base at one revision; float32, or float16 where that would take too much memory."""

    revision: int
    segments: list[Segment]
    rows: NDArray[np.floating]
    numbers: NDArray[np.int64]
    files: NDArray[np.int32]
    file_ids: list[str]

    @property
    def bytes(self) -> int:
        return self.rows.nbytes + self.numbers.nbytes + self.files.nbytes

    def scores(self, query: Vectors) -> Vectors:
        """The cosine of every row and the query."""
        if self.rows.dtype == np.float32:
            return (self.rows @ query).astype(np.float32, copy=False)
        found = np.empty(len(self.rows), np.float32)
        for start in range(0, len(self.rows), _ROWS_AT_ONCE):
            found[start : start + _ROWS_AT_ONCE] = self.rows[start : start + _ROWS_AT_ONCE].astype(np.float32) @ query
        return found

    def nearest(self, query: Vectors, limit: int, files: frozenset[str] | None) -> list[tuple[int, float]]:
        """The best rows, best first: (number, cosine).

        Args:
            files: only rows of these; None for all.
        """
        if not len(self.rows):
            return []
        scores = self.scores(query)
        if files is not None:
            wanted = [position for position, file_id in enumerate(self.file_ids) if file_id in files]
            scores = np.where(np.isin(self.files, wanted), scores, np.float32(-2))
        best = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
        best = best[np.argsort(-scores[best], kind="stable")]
        return [(int(self.numbers[row]), float(scores[row])) for row in best if scores[row] > -2]

    def of(self, numbers: Iterable[int]) -> dict[int, Vectors]:
        """The vectors of some rows."""
        wanted = np.fromiter(numbers, np.int64)
        order = np.argsort(self.numbers)
        places = np.searchsorted(self.numbers, wanted, sorter=order)
        found: dict[int, Vectors] = {}
        for number, place in zip(wanted, places, strict=True):
            if place < len(order) and self.numbers[order[place]] == number:
                found[int(number)] = self.rows[order[place]].astype(np.float32)
        return found


class MatrixCache:
    """The matrices that were used last, up to a number of bytes. Used from reading threads."""

    def __init__(self, budget: int = 768 * 1024 * 1024) -> None:
        self._budget = budget
        self._kept: OrderedDict[Key, Matrix] = OrderedDict()
        self._lock = threading.Lock()

    def current(self, key: Key, revision: int) -> Matrix | None:
        """The matrix if it is of that revision."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.revision != revision:
                return None
            self._kept.move_to_end(key)
            return kept

    def load(
        self, key: Key, revision: int, segments: list[Segment], read: Callable[[list[Segment]], list[bytes]], width: int
    ) -> Matrix:
        """Bring the matrix up to a revision: rows that are known stay, the others are read.

        Args:
            read: gives the float16 bytes of segments. width: numbers in a vector.
        """
        with self._lock:
            before = self._kept.get(key)
        total = sum(segment.amount for segment in segments)
        small = total * width * 4 <= self._budget // 2
        rows = np.empty((total, width), np.float32 if small else np.float16)
        known = _places(before) if before is not None and before.rows.shape[1] == width else {}
        missing = [segment for segment in segments if segment not in known]
        data = dict(zip(missing, read(missing), strict=True))
        place = 0
        for segment in segments:
            target = rows[place : place + segment.amount]
            if segment in data:
                target[:] = np.frombuffer(data[segment], np.float16).reshape(segment.amount, width)
            elif before is not None:
                target[:] = before.rows[known[segment] : known[segment] + segment.amount]
            place += segment.amount
        made = Matrix(revision, segments, rows, *_columns(segments))
        self._keep(key, made)
        return made

    def _keep(self, key: Key, made: Matrix) -> None:
        with self._lock:
            self._kept[key] = made
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(matrix.bytes for matrix in self._kept.values()) > self._budget:
                self._kept.popitem(last=False)


def _places(matrix: Matrix) -> dict[Segment, int]:
    places: dict[Segment, int] = {}
    place = 0
    for segment in matrix.segments:
        places[segment] = place
        place += segment.amount
    return places


def _columns(segments: list[Segment]) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
    file_ids = list(dict.fromkeys(segment.file_id for segment in segments))
    place_of = {file_id: place for place, file_id in enumerate(file_ids)}
    amounts = [segment.amount for segment in segments]
    firsts = np.repeat(np.asarray([segment.first for segment in segments], np.int64), amounts)
    starts = np.repeat(np.cumsum([0, *amounts[:-1]]), amounts) if amounts else np.empty(0, np.int64)
    numbers = firsts + np.arange(len(firsts)) - starts
    files = np.repeat(np.asarray([place_of[segment.file_id] for segment in segments], np.int32), amounts)
    return numbers.astype(np.int64), files, file_ids
