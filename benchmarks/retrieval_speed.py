"""Speed of the search index: writing, searching whole and narrowed to 1 %, recall, memory and disk.

    python benchmarks/retrieval_speed.py [--sizes 10000 100000] [--million]

Passages of 120 words of a Zipf-like vocabulary with clustered vectors of 384 numbers, all seeded, in a database of
their own. A hundredth is a knowledge base of its own (`small`), the rest another (`large`).
"""

import argparse
import asyncio
import gc
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from agentflow_server.retrieval.blas import one_thread_a_call
from agentflow_server.retrieval.embedding import Vectors
from agentflow_server.retrieval.index import Entry, SearchIndex
from agentflow_server.retrieval.search import Base, Mode, Question, search
from agentflow_server.storage.database import TenantDatabase
from agentflow_server.storage.migrations import upgrade_sqlite
from agentflow_server.storage.sqlite import SqliteDatabase

WIDTH, WORDS, VOCABULARY = 384, 120, 30_000
QUERIES, BATCH = 100, 500


class Made:
    """An embedder that has its answers ready."""

    id = "benchmark"
    dimension = WIDTH

    def __init__(self) -> None:
        self.answer: Vectors = np.empty((1, WIDTH), np.float32)

    async def embed(self, texts: object) -> Vectors:
        return self.answer


def words(random: np.random.Generator, count: int) -> str:
    places = np.minimum(random.zipf(1.25, count) - 1, VOCABULARY - 1)
    return " ".join(f"w{place}" for place in places)


def vectors(random: np.random.Generator, count: int, centres: Vectors) -> Vectors:
    rows = centres[random.integers(0, len(centres), count)] + random.normal(0, 0.6, (count, WIDTH)) / WIDTH**0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


async def fill(db: TenantDatabase, index: SearchIndex, size: int, centres: Vectors) -> dict[str, Vectors]:
    random = np.random.default_rng(1)
    kept: dict[str, Vectors] = {}
    for kb, count in (("small", size // 100), ("large", size - size // 100)):
        parts: list[Vectors] = []
        for start in range(0, count, BATCH):
            amount = min(BATCH, count - start)
            rows = vectors(random, amount, centres)
            entries = [Entry(words(random, WORDS), f"title {start + n}") for n in range(amount)]
            file = f"{kb}-{start}"
            await db.write(lambda tx, k=kb, f=file, e=entries, r=rows: index.add(tx, k, f, 0, e, r))
            parts.append(rows)
        kept[kb] = np.concatenate(parts)
    return kept


async def measure(db: TenantDatabase, index: SearchIndex, kb: str, mode: Mode, rows: Vectors, centres: Vectors) -> str:
    random, made = np.random.default_rng(2), Made()
    spent: list[float] = []
    recall = 0.0
    for number in range(QUERIES + 3):
        made.answer = vectors(random, 1, centres)
        text = " ".join(f"w{place}" for place in random.integers(20, 2000, 4))
        question = Question(mode=mode, wordings=(text,), meanings=(text,), limit=10)
        started = time.perf_counter()
        answer = await search(db, index, made, Base(kb, 1), question)
        if number >= 3:
            spent.append((time.perf_counter() - started) * 1000)
            if mode == "semantic":
                exact = np.sort(rows @ made.answer[0])[-10]
                recall += sum(one.score >= exact - 2e-3 for one in answer.found) / 10
    p50, p99 = np.percentile(spent, [50, 99])
    told = f", recall@10 {recall / QUERIES:.3f}" if mode == "semantic" else ""
    return f"{kb:6} {mode:9} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms{told}"


async def run(size: int) -> None:
    one_thread_a_call()
    centres = np.random.default_rng(0).normal(size=(200, WIDTH)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.db"
        upgrade_sqlite(path)
        database = SqliteDatabase(path)
        db, index = database.tenant("benchmark"), SearchIndex()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        kept = await fill(db, index, size, centres)
        spent = time.perf_counter() - started
        disk = sum(entry.stat().st_size for entry in os.scandir(folder)) / 1e6
        print(f"\n{size:,} chunks: written at {size / spent:,.0f}/s (making them included), {disk:,.0f} MB on disk")
        for kb in ("small", "large"):
            for mode in ("keyword", "semantic", "hybrid"):
                print(await measure(db, index, kb, mode, kept[kb], centres))
        gc.collect()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"peak memory grew by {grown:,.0f} MB (of it the benchmark's own vectors {size * WIDTH * 4 / 1e6:,.0f} MB)"
        )
        await database.close()


def main() -> None:
    """Measure."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    arguments.add_argument("--million", action="store_true", help="also a million: some minutes, and 5 GB of memory")
    given = arguments.parse_args()
    for size in [*given.sizes, *([1_000_000] if given.million else [])]:
        asyncio.run(run(size))


if __name__ == "__main__":
    main()
