"""Quality of retrieval on Cranfield: keyword, semantic and hybrid search of ours, beside bm25s and plain vectors.

    python benchmarks/retrieval_quality.py FOLDER [--rerank provider/model]

FOLDER has `cran.all.1400`, `cran.qry` and `cranqrel`. Documents are indexed through a backend's own pipeline (chunks of
the default size, grouped by document); defaults everywhere. Prints nDCG@10 and recall@10 over the 225 questions.
Reranking needs a language model; without one, what the best order of the 20 best passages would reach is told instead:
no reranker can do better.
"""

import argparse
import asyncio
import math
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from agentflow import AgentFlow
from agentflow_server.retrieval.embedding import bundled_embedder
from agentflow_server.testing import local_server

Ranked = list[int]
Judgements = dict[int, dict[int, int]]


def read(folder: Path) -> tuple[list[tuple[str, str]], list[str], Judgements]:
    """Documents (title, text), questions, and grades by question and document, both from 1."""
    documents: list[tuple[str, str]] = []
    for part in re.split(r"(?m)^\.I \d+\s*\n", (folder / "cran.all.1400").read_text())[1:]:
        fields = re.split(r"(?m)^\.[TABW]\s*\n", part)
        title, text = " ".join(fields[1].split()), " ".join(fields[4].split()) if len(fields) > 4 else ""
        documents.append((title, text.removeprefix(title).strip()))
    questions = [
        " ".join(part.split(".W", 1)[1].split())
        for part in re.split(r"(?m)^\.I \d+\s*\n", (folder / "cran.qry").read_text())[1:]
    ]
    judged: Judgements = {}
    for line in (folder / "cranqrel").read_text().splitlines():
        question, document, code = (int(field) for field in line.split()[:3])
        if code >= 1:
            judged.setdefault(question, {})[document] = 5 - code
    return documents, questions, judged


def ndcg(grades: dict[int, int], ranked: Ranked) -> float:
    gained = sum(grades.get(document, 0) / math.log2(place + 2) for place, document in enumerate(ranked[:10]))
    best = sorted(grades.values(), reverse=True)[:10]
    return gained / sum(grade / math.log2(place + 2) for place, grade in enumerate(best))


def report(name: str, questions: list[str], judged: Judgements, ask: Callable[[str], Ranked]) -> None:
    """Ask every question and print the means."""
    quality = found = 0.0
    started = time.perf_counter()
    for number, grades in judged.items():
        ranked = ask(questions[number - 1])
        quality += ndcg(grades, ranked)
        found += len(set(ranked[:10]) & set(grades)) / len(grades)
    spent = (time.perf_counter() - started) / len(judged) * 1000
    print(f"{name:34} nDCG@10 {quality / len(judged):.4f}   recall@10 {found / len(judged):.4f}   {spent:6.1f} ms")


def ours(client: AgentFlow, kb: str, **options: object) -> Callable[[str], Ranked]:
    """Our search; passages of one document count as the document."""

    def ask(question: str) -> Ranked:
        found = client.knowledge_bases.search(kb, query=question, limit=20, **options)
        return list(dict.fromkeys(int(one.source_file.removesuffix(".md")) for one in found.documents))

    return ask


def best_order(questions: list[str], judged: Judgements, ask: Callable[[str], Ranked]) -> Callable[[str], Ranked]:
    """What `ask` finds, in the order of the judgements: the bound of any reranking of it."""
    grades_of = {questions[number - 1]: grades for number, grades in judged.items()}

    def asked(question: str) -> Ranked:
        return sorted(ask(question), key=lambda document: -grades_of[question].get(document, 0))

    return asked


def bm25(documents: Sequence[tuple[str, str]]) -> Callable[[str], Ranked]:
    """bm25s with its English stop words, as its README shows it."""
    import bm25s

    index = bm25s.BM25()
    texts = [f"{title} {text}" for title, text in documents]
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)

    def ask(question: str) -> Ranked:
        tokens = bm25s.tokenize(question, stopwords="en", show_progress=False)
        places, _ = index.retrieve(tokens, k=10, show_progress=False)
        return [int(place) + 1 for place in places[0]]

    return ask


def plain_vectors(documents: Sequence[tuple[str, str]]) -> Callable[[str], Ranked]:
    """One vector a document, the best cosines."""
    embedder = bundled_embedder()
    assert embedder is not None
    rows = asyncio.run(embedder.embed([f"{title}\n{text}" for title, text in documents]))

    def ask(question: str) -> Ranked:
        return [int(place) + 1 for place in np.argsort(-(rows @ embedder._encode([question])[0]))[:10]]

    return ask


def main() -> None:
    """Measure."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--rerank", help="a model that reranks, provider/model")
    given = arguments.parse_args()
    documents, questions, judged = read(given.folder)
    with tempfile.TemporaryDirectory() as folder, local_server(data=Path(folder)) as server, server.client() as client:
        files = [
            (f"{number}.md", f"# {title}\n\n{text}".encode())
            for number, (title, text) in enumerate(documents, 1)
            if title or text
        ]
        started = time.perf_counter()
        kb = client.knowledge_bases.create_from_files(name="Cranfield", files=files[:400]).id
        for start in range(400, len(files), 400):
            client.knowledge_bases.upload_documents(kb, files=files[start : start + 400])
        while client.knowledge_bases.retrieve(kb).status != "ready":
            time.sleep(0.5)
        made = client.knowledge_bases.retrieve(kb)
        spent = time.perf_counter() - started
        print(f"{made.file_count} files, {made.chunk_count} chunks in {spent:.0f} s ({made.chunk_count / spent:.1f}/s)")
        for mode in ("keyword", "semantic", "hybrid"):
            report(f"ours, {mode}", questions, judged, ours(client, kb, search_type=mode))
        bound = best_order(questions, judged, ours(client, kb))
        report("bound of reranking 20 passages", questions, judged, bound)
        if given.rerank:
            report("ours, hybrid + rerank", questions, judged, ours(client, kb, enable_rerank=True, model=given.rerank))
    report("bm25s, whole documents", questions, judged, bm25(documents))
    report("plain vectors, whole documents", questions, judged, plain_vectors(documents))


if __name__ == "__main__":
    main()
