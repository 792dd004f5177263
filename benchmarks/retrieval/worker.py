"""Measures one engine, in a process of its own, by whatever Python has it: prints one line of JSON.

    python benchmarks/retrieval/worker.py ENGINE CORPUS_FOLDER STORE_FOLDER

Started by `retrieval_speed.py`. Memory is what the process and its children hold for themselves (Linux: RssAnon), at
most and at the end, beyond what it was before the first passage.
"""

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from corpus import Corpus

WARM = 3


class Memory:
    """Watches the memory of this process and its children."""

    def __init__(self) -> None:
        self.before = self._now()
        self.most = 0.0
        self._done = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.most = max(self.most, self.grown())

    def grown(self) -> float:
        """MB more than before."""
        return self._now() - self.before

    def stop(self) -> None:
        self._done.set()

    @staticmethod
    def _now() -> float:
        total, own = 0, os.getpid()
        for pid in (own, *_children(own)):
            try:
                fields = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            total += int(fields.split("RssAnon:")[1].split()[0]) if "RssAnon:" in fields else 0
        return total / 1024


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # a thread or a child has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_children(int(child))]
    return found


def engine_of(name: str, store: Path) -> Any:
    if name.startswith("agentflow"):
        import ours

        return ours.ENGINES[name](store)
    import peers

    return peers.ENGINES[name](store)


def searched(engine: Any, corpus: Corpus, mode: str, where: str) -> dict[str, float]:
    spent: list[float] = []
    recall = 0.0
    truth = engine.whole if where == "whole" else "small"
    for number, (words, vector) in enumerate(zip(corpus.words, corpus.questions, strict=True)):
        started = time.perf_counter()
        found = engine.search(mode, where, words, vector)
        if number >= WARM:
            spent.append((time.perf_counter() - started) * 1000)
            recall += corpus.recall(truth, number, found) if mode == "vectors" else 0
    p50, p99 = np.percentile(spent, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "recall": recall / len(spent)}


def main() -> None:
    name, corpus, store = sys.argv[1], Corpus(Path(sys.argv[2])), Path(sys.argv[3])
    engine = engine_of(name, store)
    memory = Memory()
    started = time.perf_counter()
    for batch in corpus.batches():
        engine.add(batch)
    engine.finish()
    result: dict[str, Any] = {"written": len(corpus) / (time.perf_counter() - started)}
    for mode in engine.modes:
        for where in ("whole", "small"):
            result[f"{mode} {where}"] = searched(engine, corpus, mode, where)
    memory.stop()
    result["memory"], result["most"] = memory.grown(), max(memory.most, memory.grown())
    elsewhere = engine.disk() if hasattr(engine, "disk") else None
    engine.close()
    inside = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    result["disk"] = (inside if elsewhere is None else elsewhere) / 1e6
    print(json.dumps(result))


if __name__ == "__main__":
    main()
