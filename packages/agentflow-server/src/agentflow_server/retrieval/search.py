"""Search in one knowledge base: by words, by meaning, or both; then fusion, freshness, threshold and diversity.

Called by rooms, which decide what to ask (rewriting, expansion) and what to do with the passages.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from agentflow_server.retrieval import fusion
from agentflow_server.retrieval.embedding import Embedder, Vectors
from agentflow_server.retrieval.index import SearchIndex, Stored
from agentflow_server.retrieval.lexical import FieldWeights
from agentflow_server.retrieval.meaning import Meanings, Ranked, meanings
from agentflow_server.retrieval.wording import query_words
from agentflow_server.storage.database import TenantDatabase

Mode = Literal["semantic", "keyword", "hybrid"]
_DEPTH = 100


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

    @property
    def most_diverse(self) -> int:
        """From how many of the best passages those are chosen that differ."""
        return max(50, 4 * self.limit)


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
        meant = await _by_meaning(db, index, embedder, base, question, timings, wanted=mode != "keyword")
    except BaseException:
        if words is not None:
            words.cancel()
        raise
    worded = await words if words is not None else []
    started = time.perf_counter()
    scores = _scores(mode, question, worded, meant.ranked)
    timings["fusion_ms"] = _since(started)
    started = time.perf_counter()
    numbers, cosines = await _wanted(question, scores, meant)
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
    return Answer(await _chosen(found, meant, question, timings), mode, timings)


@dataclass(frozen=True, slots=True)
class _Meant:
    """What was found by meaning, a ranked list a text; `vectors`: the base's, None if they are not needed."""

    vectors: Meanings | None
    queries: Vectors | None
    ranked: list[Ranked]

    async def cosines(self, numbers: Collection[int]) -> dict[int, float]:
        if self.vectors is None or self.queries is None:
            return {}
        known = dict(self.ranked[0])
        others = [number for number in numbers if number not in known]
        more = await self.vectors.cosines(self.queries[0], others) if others else {}
        return {number: known[number] for number in numbers if number in known} | more


async def _wanted(question: Question, scores: Mapping[int, float], meant: _Meant) -> tuple[list[int], dict[int, float]]:
    """The passages that may be chosen, best first, and their cosines."""
    numbers = sorted(scores, key=lambda number: -scores[number])
    cosines: dict[int, float] = {}
    if question.threshold is not None:
        cosines = await meant.cosines(numbers)
        numbers = _above(numbers, scores, cosines, question.threshold)
    if not question.freshness_boost:
        numbers = numbers[: question.limit if question.mmr_lambda is None else question.most_diverse]
    return numbers, cosines or await meant.cosines(numbers)


async def _by_words(
    db: TenantDatabase, index: SearchIndex, base: Base, question: Question, timings: dict[str, float]
) -> list[Ranked]:
    started = time.perf_counter()
    depth = max(_DEPTH, 4 * question.limit)

    def ranked(text: str) -> "asyncio.Future[Ranked]":
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
) -> _Meant:
    if embedder is None or not (wanted or question.mmr_lambda is not None):
        return _Meant(None, None, [])
    started = time.perf_counter()
    queries = await embedder.embed(question.meanings) if wanted else None
    timings["embedding_ms"] = _since(started)
    started = time.perf_counter()
    width = embedder.dimension if queries is None else queries.shape[1]
    vectors = await meanings(db, index, base.id, base.revision, width)
    timings["load_ms"] = _since(started)
    if queries is None:
        return _Meant(vectors, None, [])
    started = time.perf_counter()
    ranked = await vectors.nearest(queries, max(_DEPTH, 4 * question.limit), question.files)
    timings["vector_ms"] = _since(started)
    return _Meant(vectors, queries, ranked)


def _scores(mode: Mode, question: Question, worded: list[Ranked], meant: list[Ranked]) -> dict[int, float]:
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


def _above(
    numbers: Sequence[int], scores: Mapping[int, float], cosines: Mapping[int, float], threshold: float
) -> list[int]:
    return [number for number in numbers if cosines.get(number, scores[number]) >= threshold]


def _fresh(question: Question, passage: Stored) -> float:
    if not question.freshness_boost:
        return 1.0
    fresh = fusion.freshness(question.ages.get(passage.file_id, 0.0), question.freshness_half_life_days)
    return 1 - question.freshness_boost + question.freshness_boost * fresh


async def _chosen(found: list[Found], meant: _Meant, question: Question, timings: dict[str, float]) -> list[Found]:
    if question.mmr_lambda is None or meant.vectors is None:
        return found[: question.limit]
    started = time.perf_counter()
    by_number = {one.passage.number: one for one in found[: question.most_diverse]}
    scores = {number: one.score for number, one in by_number.items()}
    vectors = await meant.vectors.of(by_number)
    order = fusion.diverse(scores, vectors, weight=question.mmr_lambda, limit=question.limit)
    timings["mmr_ms"] = _since(started)
    return [by_number[number] for number in order]


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
