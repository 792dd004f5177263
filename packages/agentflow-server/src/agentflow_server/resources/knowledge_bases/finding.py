"""From a search request to passages: which files, which wordings, several bases as one, reranking, neighbours.

Called by the service.
"""

import asyncio
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from agentflow.errors import ValidationError
from agentflow.types.knowledge_bases import SearchDocument, SearchRequest, SearchResult

from agentflow_server.gateway import Attribution
from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.resources.knowledge_bases import store
from agentflow_server.resources.knowledge_bases.asking import Asking, Wordings
from agentflow_server.resources.knowledge_bases.embedders import Embedders
from agentflow_server.resources.knowledge_bases.store import BaseRecord, Data, FileRecord
from agentflow_server.retrieval.embedding import EmbeddingUnavailableError
from agentflow_server.retrieval.index import SearchIndex
from agentflow_server.retrieval.lexical import FieldWeights
from agentflow_server.retrieval.search import Answer, Base, Found, Question, search
from agentflow_server.storage import Database

_RERANKED = 20
_DAY = 86_400
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le,
}  # fmt: skip
_COMPARISONS = {"eq", "ne", "in", *_ORDERS}


class _Hit(NamedTuple):
    base: BaseRecord
    found: Found


class Finder:
    """Searches bases."""

    def __init__(self, db: Database, clock: Clock, index: SearchIndex, embedders: Embedders, asking: Asking) -> None:
        self._db = db
        self._clock = clock
        self._index = index
        self._embedders = embedders
        self._asking = asking

    async def find(
        self, tenant: str, user_id: str, bases: Sequence[BaseRecord], request: SearchRequest, **origin: Any
    ) -> SearchResult:
        """Search bases of a tenant as one."""
        started = time.perf_counter()
        check_filters(request.metadata_filters or {})
        attribution = Attribution(tenant, user_id, purpose="query_rewrite", **origin)
        timings: dict[str, float] = {}
        asked = await self._asking.wordings(
            request.query, rewrite=bool(request.enable_query_rewrite), expand=bool(request.enable_query_expansion),
            imagine=bool(request.enable_hyde), model=request.model, attribution=attribution,
        )  # fmt: skip
        timings["rewrite_ms"] = _since(started)
        answers = await asyncio.gather(*(self._one(tenant, user_id, base, request, asked) for base in bases))
        hits = [_Hit(base, one) for base, answer in zip(bases, answers, strict=True) for one in answer.found]
        hits.sort(key=lambda hit: -hit.found.score)
        for answer in answers:
            for stage, spent in answer.timings.items():
                timings[stage] = max(timings.get(stage, 0.0), spent)
        if request.enable_rerank and len(hits) > 1:
            hits = await self._reranked(request, hits, attribution, asked, timings)
        documents = await self._documents(tenant, request, hits[: request.limit])
        timings["total_ms"] = _since(started)
        modes = sorted({answer.mode for answer in answers})
        about: Data = {
            "retrieval_mode": modes[0] if len(modes) == 1 else "mixed" if modes else "none",
            "queries": asked.words, "knowledge_bases": [base.id for base in bases], "timings_ms": timings,
            "warnings": asked.warnings,
        }  # fmt: skip
        return SearchResult(documents=documents, total_results=len(documents), search_metadata=about)

    async def _one(
        self, tenant: str, user_id: str, base: BaseRecord, request: SearchRequest, asked: Wordings
    ) -> Answer:
        db = self._db.tenant(tenant)
        files: list[FileRecord] = []
        if request.metadata_filters or request.freshness_boost:
            files = await db.scan(lambda tx: store.all_files(tx, base.id))
        question = self._question(request, asked, files)
        embedder = self._embedders.of(base.embedder, tenant, user_id)
        target = Base(base.id, base.revision)
        if base.embedder is not None and embedder is None:
            _warn(asked, f"{base.embedder} is not available on this server: {base.id} was searched by words only")
        elif base.embedder is None and question.mode != "keyword":
            _warn(asked, f"{base.id} has no embedding model: it was searched by words only")
        try:
            return await search(db, self._index, embedder, target, question)
        except EmbeddingUnavailableError as error:
            _warn(asked, f"{error}: {base.id} was searched by words only")
            return await search(db, self._index, None, target, question)

    def _question(self, request: SearchRequest, asked: Wordings, files: Sequence[FileRecord]) -> Question:
        filters = request.metadata_filters
        fields = {
            "title": request.title_alpha if request.title_alpha is not None else 2.0,
            **(request.field_alphas or {}),
        }
        vector, keyword = _weights(request)
        depth = max(request.limit, _RERANKED) if request.enable_rerank else request.limit
        return Question(
            mode=request.search_type or "hybrid",
            wordings=tuple(asked.words),
            meanings=tuple(asked.meanings),
            limit=depth,
            vector_weight=vector,
            keyword_weight=keyword,
            rrf_k=float(request.rrf_k or 60),
            threshold=request.similarity_threshold,
            fields=FieldWeights(**fields),
            files=frozenset(file.id for file in files if matches(file, filters)) if filters else None,
            ages={file.id: self._age(file) for file in files} if request.freshness_boost else {},
            freshness_boost=request.freshness_boost or 0.0,
            freshness_half_life_days=request.freshness_half_life_days or 30.0,
            mmr_lambda=(0.5 if request.mmr_lambda is None else request.mmr_lambda) if request.enable_mmr else None,
        )

    def _age(self, file: FileRecord) -> float:
        """Days since the date that the file tells of itself, else since it came."""
        now = self._clock.micros() / SECOND
        for told in (file.data.get("metadata", {}).get("date"), file.data.get("about", {}).get("date")):
            try:
                when = datetime.fromisoformat(str(told))
            except ValueError:
                continue
            return (now - (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()) / _DAY
        return (now - file.created_at / SECOND) / _DAY

    async def _reranked(
        self,
        request: SearchRequest,
        hits: list[_Hit],
        attribution: Attribution,
        asked: Wordings,
        timings: dict[str, float],
    ) -> list[_Hit]:
        started = time.perf_counter()
        best, rest = hits[:_RERANKED], hits[_RERANKED:]
        texts = [f"{hit.found.passage.title}: {hit.found.passage.text}" for hit in best]
        order = await self._asking.order(
            request.query, texts, model=request.model, attribution=attribution, warnings=asked.warnings
        )
        timings["rerank_ms"] = _since(started)
        return [best[place] for place in order] + rest

    async def _documents(self, tenant: str, request: SearchRequest, hits: Sequence[_Hit]) -> list[SearchDocument]:
        around = request.neighboring_chunks_count or (1 if request.enable_surrounding_chunks else 0)

        def read(tx: Any) -> list[SearchDocument]:
            files: dict[tuple[str, str], FileRecord | None] = {}
            documents: list[SearchDocument] = []
            for hit in hits:
                key = (hit.base.id, hit.found.passage.file_id)
                if key not in files:
                    files[key] = store.file_by_id(tx, *key)
                neighbours = self._index.around(tx, hit.base.id, hit.found.passage, around) if around else ()
                text = "\n\n".join(one.text for one in neighbours) or hit.found.passage.text
                documents.append(_document(hit, files[key], text))
            return documents

        return await self._db.tenant(tenant).read(read)


def _document(hit: _Hit, file: FileRecord | None, text: str) -> SearchDocument:
    passage = hit.found.passage
    about = file.data.get("metadata", {}) if file is not None else {}
    scores = {"score": hit.found.score, "similarity": hit.found.cosine, "bm25": hit.found.bm25}
    return SearchDocument(
        id=f"{passage.file_id}:{passage.position}", kb_id=hit.base.id, file_id=passage.file_id, content=text,
        source_file=file.name if file is not None else "", score=hit.found.score, title=passage.title,
        headings=list(passage.headings), page=passage.page,
        metadata={**about, **{name: value for name, value in scores.items() if value is not None}},
    )  # fmt: skip


def _weights(request: SearchRequest) -> tuple[float, float]:
    vector = request.vector_weight if request.vector_weight is not None else request.alpha
    keyword = request.keyword_weight
    if vector is None and keyword is None:
        return 1.0, 1.0
    if vector is None:
        return 1.0 - (keyword or 0.0), keyword or 0.0
    return vector, 1.0 - vector if keyword is None else keyword


def check_filters(filters: Mapping[str, Any]) -> None:
    """Refuse filters that cannot be understood.

    Raises:
        ValidationError: names the field and the comparison.
    """
    for name, wanted in filters.items():
        if isinstance(wanted, dict) and (unknown := sorted(set(wanted) - _COMPARISONS)):
            message = f"{name} has the comparison {unknown[0]!r}; there are {', '.join(sorted(_COMPARISONS))}"
            raise ValidationError(
                f"metadata_filters: {message}", details=[{"field": "metadata_filters", "message": message}]
            )


def matches(file: FileRecord, filters: Mapping[str, Any]) -> bool:
    """Whether a file has the metadata that is asked for; its own come before what was read from it."""
    data = file.data
    known: Data = {
        **data.get("about", {}), "source_file": file.name, "file_id": file.id, "media_type": data.get("media_type"),
        "title": data.get("title"), **data.get("metadata", {}),
    }  # fmt: skip
    return all(_holds(known.get(name), wanted) for name, wanted in filters.items())


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return all(_compares(value, comparison, other) for comparison, other in wanted.items())
    if isinstance(wanted, list):
        return any(_same(value, one) for one in wanted)
    return _same(value, wanted)


def _same(value: Any, wanted: Any) -> bool:
    return wanted in value if isinstance(value, list) else value == wanted


def _compares(value: Any, comparison: str, other: Any) -> bool:
    if comparison in ("eq", "ne"):
        return _same(value, other) == (comparison == "eq")
    if comparison == "in":
        return isinstance(other, list) and any(_same(value, one) for one in other)
    if isinstance(value, str) and isinstance(other, str):
        return _ORDERS[comparison](value, other)
    if isinstance(value, int | float) and isinstance(other, int | float):
        return _ORDERS[comparison](value, other)
    return False


def _warn(asked: Wordings, warning: str) -> None:
    if warning not in asked.warnings:
        asked.warnings.append(warning)


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
