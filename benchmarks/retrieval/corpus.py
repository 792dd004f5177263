"""The passages of the retrieval benchmarks: made once, read by every engine. Needs nothing but NumPy.

Passages of 120 words of a Zipf-like vocabulary with clustered vectors of 384 numbers, all seeded. 50 make a file; every
hundredth file belongs to the base `small`, the others to `large`. Questions are four words and a vector each.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTH, WORDS, VOCABULARY, CENTRES = 384, 120, 30_000, 200
FILE, BATCH, QUESTIONS, LIMIT = 50, 500, 103, 10
Rows = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass
class Batch:
    """Passages that are written together. `numbers` name them; `bases` has the base of each."""

    numbers: list[int]
    texts: list[str]
    rows: Rows

    @property
    def bases(self) -> list[str]:
        return [base_of(number) for number in self.numbers]

    @property
    def small(self) -> list[int]:
        """Those of the numbers that are in the base `small`."""
        return [number for number in self.numbers if base_of(number) == "small"]


class Corpus:
    """What `make` has written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rows: Rows = np.load(folder / "rows.npy", mmap_mode="r")
        self.questions: Rows = np.load(folder / "questions.npy")
        self.words: list[str] = json.loads((folder / "words.json").read_text())
        self._least: dict[str, list[float]] = json.loads((folder / "least.json").read_text())

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self) -> Iterator[Batch]:
        with (self._folder / "texts").open() as texts:
            for start in range(0, len(self.rows), BATCH):
                rows = np.array(self.rows[start : start + BATCH])
                numbers = list(range(start, start + len(rows)))
                yield Batch(numbers, [next(texts).rstrip("\n") for _ in numbers], rows)

    def recall(self, where: str, question: int, found: list[int]) -> float:
        """The share of the nearest that was found; as near as the last of them is near enough."""
        least = self._least[where][question] - 1e-3
        return sum(float(self.rows[number] @ self.questions[question]) >= least for number in found) / LIMIT


def base_of(number: int) -> str:
    return "small" if number // FILE % 100 == 0 else "large"


def make(folder: Path, size: int) -> None:
    """Write the passages, the questions, and how near the tenth of each question is."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(CENTRES, WIDTH)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = np.lib.format.open_memmap(folder / "rows.npy", mode="w+", dtype=np.float32, shape=(size, WIDTH))
    with (folder / "texts").open("w") as texts:
        for start in range(0, size, 10_000):
            count = min(10_000, size - start)
            rows[start : start + count] = _vectors(random, count, centres)
            ranks = np.minimum(random.zipf(1.25, (count, WORDS)) - 1, VOCABULARY - 1)
            texts.writelines(" ".join(f"w{rank}" for rank in passage) + "\n" for passage in ranks)
    rows.flush()
    questions = _vectors(random, QUESTIONS, centres)
    np.save(folder / "questions.npy", questions)
    words = [" ".join(f"w{rank}" for rank in random.integers(20, 2000, 4)) for _ in range(QUESTIONS)]
    (folder / "words.json").write_text(json.dumps(words))
    (folder / "least.json").write_text(json.dumps(_least(rows, questions)))


def _vectors(random: np.random.Generator, count: int, centres: Rows) -> Rows:
    rows = centres[random.integers(0, len(centres), count)] + random.normal(0, 0.6, (count, WIDTH)) / WIDTH**0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _least(rows: Rows, questions: Rows) -> dict[str, list[float]]:
    small = np.arange(len(rows)) // FILE % 100 == 0
    best = {where: np.full((QUESTIONS, LIMIT), -2, np.float32) for where in ("small", "large", "all")}
    for start in range(0, len(rows), 10_000):
        scores = np.array(rows[start : start + 10_000]) @ questions.T
        part = small[start : start + 10_000]
        for where, wanted in (("small", part), ("large", ~part), ("all", np.ones(len(part), bool))):
            together = np.concatenate([best[where], scores[wanted].T], axis=1)
            best[where] = -np.partition(-together, LIMIT - 1, axis=1)[:, :LIMIT]
    return {where: found.min(axis=1).tolist() for where, found in best.items()}
