"""Memory: how good and how quick recall is.

    python benchmarks/memory_recall.py quality            recall@5 and @10: words only, meaning only, both
    python benchmarks/memory_recall.py latency [--entries 100000]

Quality needs the bundled embedding and takes about a minute. Latency goes through the SDK and a real backend; so that
it does not take an hour, the vectors of entries are random ones there, those of questions are real.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from agentflow_server.retrieval.embedding import BundledEmbedder, bundled_embedder
from agentflow_server.retrieval.entries import EntryIndex, key_of
from agentflow_server.retrieval.quantised import QuantisedVectors

sys.path.insert(0, str(Path(__file__).parent / "memory"))

from generated import Dialogue, generate

WRITTEN = Path(__file__).parent / "memory" / "dialogues.txt"
MODES = {"words only": (1.0, False), "meaning only": (0.0, True), "both": (0.5, True)}


def written() -> list[Dialogue]:
    """The hand-written dialogues; dates of sessions are lines of their own."""
    found: list[Dialogue] = []
    turns: list[int] = []
    for line in WRITTEN.read_text().splitlines():
        if line.startswith("== "):
            found.append(Dialogue(line[3:], [], []))
            turns = []
        elif line.startswith("? "):
            question, _, numbers = line[2:].rpartition(" | ")
            evidence = [turns[int(number) - 1] for number in numbers.split(",")]
            found[-1].questions.append((question, evidence))
        elif line.startswith("@ "):
            found[-1].lines.append(line[2:])
        elif line and not line.startswith("#"):
            found[-1].lines.append(line)
            turns.append(len(found[-1].lines))
    return found


def together(name: str, dialogues: Sequence[Dialogue]) -> Dialogue:
    """Several dialogues in one memory."""
    whole = Dialogue(name, [], [])
    for dialogue in dialogues:
        before = len(whole.lines)
        whole.lines.extend(dialogue.lines)
        whole.questions.extend((question, [n + before for n in lines]) for question, lines in dialogue.questions)
    return whole


def recalled(index: EntryIndex, questions: Sequence[tuple[str, list[int]]], vectors: Any) -> tuple[float, float]:
    """Mean recall@5 and @10: which share of a question's lines is found."""
    at5, at10 = [], []
    for number, (question, evidence) in enumerate(questions):
        vector = None if vectors is None else vectors[number]
        found = [hit.position + 1 for hit in index.search(question, vector, limit=10)]
        at5.append(len(set(found[:5]) & set(evidence)) / len(evidence))
        at10.append(len(set(found) & set(evidence)) / len(evidence))
    return statistics.mean(at5), statistics.mean(at10)


def quality() -> None:
    """Print the table."""
    embedder = bundled_embedder()
    if embedder is None:
        sys.exit("the bundled embedding is not installed")
    *dialogues, notes = written()
    sets = [
        ("four dialogues in one memory", [together("dialogues", dialogues)]),
        ("notes", [notes]),
        ("dialogues and notes in one memory", [together("all", [*dialogues, notes])]),
        ("generated, six of 400 turns", [generate(seed) for seed in range(6)]),
    ]
    print(f"{'':36}{'lines':>7}{'questions':>11}" + "".join(f"{mode:>18}" for mode in MODES))
    for name, members in sets:
        figures: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
        for dialogue in members:
            entries = asyncio.run(embedder.embed(dialogue.lines))
            asked = asyncio.run(embedder.embed([question for question, _ in dialogue.questions]))
            for mode, (words, by_meaning) in MODES.items():
                index = EntryIndex(embedder.dimension, words=words)
                index.replace("archival", dialogue.lines)
                keys = b"".join(key_of(line.strip()) for line in dialogue.lines)
                index.learn(keys, QuantisedVectors.pack(entries))
                figures[mode].append(recalled(index, dialogue.questions, asked if by_meaning else None))
        cells = [
            " / ".join(f"{statistics.mean(column):.3f}" for column in zip(*figures[mode], strict=True))
            for mode in MODES
        ]
        size = sum(len(dialogue.lines) for dialogue in members)
        count = sum(len(dialogue.questions) for dialogue in members)
        print(f"{name:36}{size:>7}{count:>11}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


class QuickEmbedder(BundledEmbedder):
    """Real vectors for questions, random ones for entries."""

    async def embed(self, texts: Sequence[str]) -> Any:
        if len(texts) == 1:
            return await super().embed(texts)
        vectors = np.random.default_rng(len(texts)).normal(size=(len(texts), self.dimension)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def latency(entries: int) -> None:
    """Fill one user's archival memory, and time recalls through the SDK."""
    import agentflow_server.app as app
    from agentflow_server.testing import local_server

    embedder = bundled_embedder()
    if embedder is None:
        sys.exit("the bundled embedding is not installed")
    app.bundled_embedder = lambda: QuickEmbedder(embedder._folder)  # type: ignore[assignment]
    chance = random.Random(7)
    vocabulary = ["".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randint(3, 9))) for _ in range(30_000)]
    weights = [1 / (rank + 1) for rank in range(len(vocabulary))]
    lines = [" ".join(chance.choices(vocabulary, weights, k=chance.randint(5, 15))) for _ in range(entries)]
    content = "\n".join(lines)
    settings = {"memory_archival_chars": 100_000_000, "max_body_bytes": 100_000_000}
    with local_server(**settings) as server, server.client(timeout=300.0) as client:
        start = time.perf_counter()
        block = client.memory.update("archival", content)
        print(f"written: {entries} entries, {len(content) / 1e6:.1f} MB, {time.perf_counter() - start:.2f} s")
        while client.memory.recall("anything").pending:
            time.sleep(0.5)
        print(f"every vector stored after {time.perf_counter() - start:.1f} s")
        report("recall", client, chance, vocabulary, weights)
        start = time.perf_counter()
        client.memory.update("archival", f"{content}\nThe giraffe is late.", expected_updated_at=block.updated_at)
        print(f"updated by one entry: {(time.perf_counter() - start) * 1000:.0f} ms")
        start = time.perf_counter()
        assert client.memory.recall("giraffe")[0].line_number == entries + 1
        print(f"first recall after it: {(time.perf_counter() - start) * 1000:.0f} ms")
        report("recall", client, chance, vocabulary, weights)


def report(name: str, client: Any, chance: random.Random, vocabulary: list[str], weights: list[float]) -> None:
    """Time recalls of six words."""
    times: list[float] = []
    for _ in range(100):
        question = " ".join(chance.choices(vocabulary, weights, k=6))
        start = time.perf_counter()
        client.memory.recall(question)
        times.append((time.perf_counter() - start) * 1000)
    ordered = sorted(times)
    print(f"{name}: p50 {ordered[50]:.1f} ms, p95 {ordered[95]:.1f} ms, through the SDK and HTTP")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "latency"])
    parser.add_argument("--entries", type=int, default=100_000)
    arguments = parser.parse_args()
    if arguments.what == "quality":
        quality()
    else:
        latency(arguments.entries)
