"""Search in one knowledge base: by words, by meaning, or both; then fusion, freshness, threshold and diversity.

Called by rooms, which decide what to ask (rewriting, expansion) and what to do with the passages.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from agentflow_server.retrieval import fusion
from agentflow_server.retrieval.embedding import Embedder, Vectors
from agentflow_server.retrieval.index import FieldWeights, SearchIndex, Stored
from agentflow_server.retrieval.vectors import Matrix
from agentflow_server.retrieval.wording import query_words
from agentflow_server.storage.database import TenantDatabase

Mode = Literal["semantic", "keyword", "hybrid"]
_DEPTH = 100
_INLINE = 4_096


class Base(NamedTuple):
    """A knowledge base to search: its id, and the revision of its vectors."""

    id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        wordings: texts whose words are looked for; meanings: texts whose vectors are looked for. The first of each is
            the question itself, the others are other ways to ask it and count half.
        vector_weight, keyword_weight: how much each list counts in the fusion.
        threshold: least cosine, 0 to 1, of a passage; where there are no vectors, least score.
        files: only passages of these. ages: age of files in days, for freshness.
        freshness_boost: how much of its score an old file loses, 0 to 1.
    """

    mode: Mode
    wordings: tuple[str, ...]
    meanings: tuple[str, ...]
    limit: int
    vector_weight: float = 1.0
    keyword_weight: float = 1.0
    rrf_k: float = 60.0
    threshold: float | None = None
    fields: FieldWeights = field(default_factory=FieldWeights)
    files: frozenset[str] | None = None
    ages: Mapping[str, float] = field(default_factory=dict[str, float])
    freshness_boost: float = 0.0
    freshness_half_life_days: float = 30.0
    mmr_lambda: float | None = None


class Found(NamedTuple):
    """A passage that was found.

    Attributes:
        score: 0 to 1. Semantic: the cosine. Keyword: BM25 squeezed to s / (s + 10). Hybrid: the fused rank, 1 for what
            is first by words and by meaning. Times freshness.
        cosine, bm25: what it scored in each list; None where it was not looked for.
    """

    passage: Stored
    score: float
    cosine: float | None
    bm25: float | None


@dataclass(slots=True)
class Answer:
    """What was found, in what mode, and how long each stage took in milliseconds."""

    found: list[Found]
    mode: Mode
    timings: dict[str, float]


async def search(
    db: TenantDatabase, index: SearchIndex, embedder: Embedder | None, base: Base, question: Question
) -> Answer:
    """Search a base. Without an embedder it is searched by words, whatever the question asks for.

    Raises:
        EmbeddingUnavailableError: the base's embedder cannot be used now.
    """
    mode: Mode = question.mode if embedder is not None else "keyword"
    timings: dict[str, float] = {}
    words = asyncio.ensure_future(_by_words(db, index, base, question, timings)) if mode != "semantic" else None
    try:
        matrix, meant = await _by_meaning(db, index, embedder, base, question, timings, wanted=mode != "keyword")
    except BaseException:
        if words is not None:
            words.cancel()
        raise
    worded = await words if words is not None else []
    started = time.perf_counter()
    scores = _scores(mode, question, worded, meant.ranked)
    cosines = meant.cosines(scores)
    numbers = _above(scores, cosines, question.threshold)
    timings["fusion_ms"] = _since(started)
    started = time.perf_counter()
    passages = await db.read(lambda tx: index.fetch(tx, base.id, numbers))
    timings["fetch_ms"] = _since(started)
    bm25: dict[int, float] = {}
    for ranked in reversed(worded):
        bm25.update(ranked)
    found = [
        Found(
            passages[number], scores[number] * _fresh(question, passages[number]), cosines.get(number), bm25.get(number)
        )
        for number in numbers
        if number in passages
    ]
    found.sort(key=lambda one: -one.score)
    return Answer(_chosen(found, matrix, question, timings), mode, timings)


class _Meant:
    """What was found by meaning: a ranked list a text, and the cosines of other passages when they are needed."""

    def __init__(self, matrix: Matrix | None, queries: Vectors, ranked: list[list[tuple[int, float]]]) -> None:
        self._matrix = matrix
        self._queries = queries
        self.ranked = ranked

    def cosines(self, numbers: Mapping[int, float]) -> dict[int, float]:
        if self._matrix is None:
            return {}
        known = dict(self.ranked[0]) if self.ranked else {}
        rows = self._matrix.of(number for number in numbers if number not in known)
        return {number: known.get(number, 0.0) for number in numbers if number in known} | {
            number: float(row @ self._queries[0]) for number, row in rows.items()
        }


async def _by_words(
    db: TenantDatabase, index: SearchIndex, base: Base, question: Question, timings: dict[str, float]
) -> list[list[tuple[int, float]]]:
    started = time.perf_counter()
    depth = max(_DEPTH, 4 * question.limit)

    def ranked(text: str) -> "asyncio.Future[list[tuple[int, float]]]":
        words = query_words(text)
        return asyncio.ensure_future(
            db.scan(
                lambda tx: index.by_words(
                    tx, base.id, words, limit=depth, weights=question.fields, files=question.files
                )
            )
        )

    found = await asyncio.gather(*(ranked(text) for text in question.wordings))
    timings["keyword_ms"] = _since(started)
    return list(found)


async def _by_meaning(
    db: TenantDatabase,
    index: SearchIndex,
    embedder: Embedder | None,
    base: Base,
    question: Question,
    timings: dict[str, float],
    *,
    wanted: bool,
) -> tuple[Matrix | None, _Meant]:
    if embedder is None or not (wanted or question.mmr_lambda is not None):
        return None, _Meant(None, np.empty((0, 0), np.float32), [])
    started = time.perf_counter()
    queries = await embedder.embed(question.meanings) if wanted else np.empty((0, 0), np.float32)
    timings["embedding_ms"] = _since(started)
    started = time.perf_counter()
    width = queries.shape[1] if wanted else embedder.dimension
    matrix = index.cached(db.tenant, base.id, base.revision)
    if matrix is None:
        matrix = await db.scan(lambda tx: index.matrix(tx, base.id, base.revision, width))
    timings["load_ms"] = _since(started)
    if not wanted:
        return matrix, _Meant(None, queries, [])
    started = time.perf_counter()
    depth = max(_DEPTH, 4 * question.limit)

    def rank() -> list[list[tuple[int, float]]]:
        return [matrix.nearest(query, depth, question.files) for query in queries]

    ranked = rank() if len(matrix.numbers) <= _INLINE else await asyncio.to_thread(rank)
    timings["vector_ms"] = _since(started)
    return matrix, _Meant(matrix, queries, ranked)


def _scores(
    mode: Mode, question: Question, worded: list[list[tuple[int, float]]], meant: list[list[tuple[int, float]]]
) -> dict[int, float]:
    """A score from 0 to 1 for every candidate."""
    if mode != "hybrid" and len(worded or meant) == 1:
        only = (worded or meant)[0]
        return {number: _squeezed(score) if worded else max(score, 0.0) for number, score in only}
    lists: list[tuple[float, list[int]]] = []
    for weight, ranked in ((question.vector_weight, meant), (question.keyword_weight, worded)):
        for place, one in enumerate(ranked):
            share = 1.0 if place == 0 else 0.5
            lists.append((weight * share if mode == "hybrid" else share, [number for number, _ in one]))
    return fusion.reciprocal_ranks(lists, question.rrf_k)


def _squeezed(bm25: float) -> float:
    return bm25 / (bm25 + 10)


def _above(scores: Mapping[int, float], cosines: Mapping[int, float], threshold: float | None) -> list[int]:
    return [n for n in scores if threshold is None or (cosines[n] if n in cosines else scores[n]) >= threshold]


def _fresh(question: Question, passage: Stored) -> float:
    if not question.freshness_boost:
        return 1.0
    fresh = fusion.freshness(question.ages.get(passage.file_id, 0.0), question.freshness_half_life_days)
    return 1 - question.freshness_boost + question.freshness_boost * fresh


def _chosen(found: list[Found], matrix: Matrix | None, question: Question, timings: dict[str, float]) -> list[Found]:
    if question.mmr_lambda is None or matrix is None:
        return found[: question.limit]
    started = time.perf_counter()
    by_number = {one.passage.number: one for one in found[: max(50, 4 * question.limit)]}
    scores = {number: one.score for number, one in by_number.items()}
    order = fusion.diverse(scores, matrix.of(by_number), weight=question.mmr_lambda, limit=question.limit)
    timings["mmr_ms"] = _since(started)
    return [by_number[number] for number in order]


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
