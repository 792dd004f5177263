"""The indexes of users' memory, kept in this process and brought up to date when they are used. Asked by the service.

The blocks and the vectors in the database are the truth: an index is built from them on first use, follows them by
their versions, and may be dropped at any time.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentflow_server.resources.memory import store
from agentflow_server.resources.memory.edits import lines_of
from agentflow_server.resources.memory.store import BlockRecord
from agentflow_server.storage import Database, Tx

if TYPE_CHECKING:
    from agentflow_server.retrieval.embedding import Embedder, Vectors
    from agentflow_server.retrieval.entries import EntryIndex, Hit

logger = logging.getLogger(__name__)
_BATCH = 256
_KEPT_BYTES = 512 * 1024 * 1024
Versions = dict[tuple[str, str], int]


@dataclass(slots=True)
class UserIndex:
    """One user's index, and what of the database it has seen."""

    entries: "EntryIndex"
    versions: Versions = field(default_factory=Versions)
    vectors_upto: int = -1
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave: hits, whether meaning was looked at, how many entries lack theirs, the blocks' versions."""

    hits: "list[Hit]"
    by_meaning: bool
    pending: int
    versions: Versions


class Indexes:
    """Indexes by user, the most recently used kept within a bound.

    Args:
        embedder: None where there is none: entries are then ranked by their words alone.
    """

    def __init__(self, db: Database, embedder: "Embedder | None", kept_bytes: int = _KEPT_BYTES) -> None:
        self._db = db
        self._kept_bytes = kept_bytes
        self._cache: OrderedDict[tuple[str, str], UserIndex] = OrderedDict()
        self.embedder = embedder

    async def search(
        self,
        tenant: str,
        user_id: str,
        question: str,
        *,
        blocks: Sequence[tuple[str, str]],
        limit: int,
        min_score: float,
    ) -> Found:
        """The best entries of the given blocks, (agent, type) each."""
        index = self._get(tenant, user_id)
        async with index.lock:
            await self._refresh(tenant, user_id, index)
            if not len(index.entries):  # no reason to load a model
                return Found([], self.embedder is not None, 0, dict(index.versions))
            sources = [source_of(*block) for block in blocks]
            words, vector = await asyncio.gather(
                asyncio.to_thread(index.entries.words_of, question), self._vector_of(question)
            )
            hits = await asyncio.to_thread(
                index.entries.search,
                question,
                vector,
                words=words,
                sources=sources,
                limit=limit,
                min_score=min_score,
            )
            pending = 0 if self.embedder is None else index.entries.pending
            return Found(hits, vector is not None, pending, dict(index.versions))

    async def _vector_of(self, question: str) -> "Vectors | None":
        from agentflow_server.retrieval.embedding import EmbeddingUnavailableError

        if self.embedder is None:
            return None
        try:
            return (await self.embedder.embed([question]))[0]
        except EmbeddingUnavailableError as error:
            logger.warning("memory is searched by words only", extra={"reason": str(error)})
            return None

    async def learn(self, tenant: str, user_id: str) -> Versions:
        """Compute and store the vectors of entries that have none; returns the versions of the blocks it has seen.

        Raises:
            EmbeddingUnavailableError: the embedder cannot be used now.
        """
        index = self._get(tenant, user_id)
        async with index.lock:
            await self._refresh(tenant, user_id, index)
        while self.embedder is not None:
            async with index.lock:
                texts = index.entries.missing(_BATCH)
            if not texts:
                break
            await self._store(tenant, user_id, texts, await self.embedder.embed(texts))
            async with index.lock:
                await self._refresh(tenant, user_id, index)
        await self._tidy(tenant, user_id, index)
        return dict(index.versions)

    async def _store(self, tenant: str, user_id: str, texts: list[str], vectors: "Vectors") -> None:
        from agentflow_server.retrieval.entries import key_of
        from agentflow_server.retrieval.quantised import QuantisedVectors

        assert self.embedder is not None
        name = self.embedder.id
        keys, packed = b"".join(map(key_of, texts)), QuantisedVectors.pack(vectors)
        await self._db.tenant(tenant).write(lambda tx: store.add_vectors(tx, user_id, name, keys, packed))

    async def _tidy(self, tenant: str, user_id: str, index: UserIndex) -> None:
        """Drop vectors of entries that have gone, once they are the most."""
        embedder = self.embedder
        async with index.lock:
            entries = index.entries
            if embedder is None or entries.vectors <= 2 * len(entries) + 1000:
                return
            keys, packed = await asyncio.to_thread(entries.live_vectors)
            upto = index.vectors_upto

            def unit(tx: Tx) -> None:
                if keys:
                    store.add_vectors(tx, user_id, embedder.id, keys, packed)
                store.drop_vectors(tx, user_id, embedder.id, upto)

            await self._db.tenant(tenant).write(unit)
            self.forget(tenant, user_id)

    def _get(self, tenant: str, user_id: str) -> UserIndex:
        from agentflow_server.retrieval.entries import EntryIndex

        key = (tenant, user_id)
        index = self._cache.get(key)
        if index is None:
            dimension = self.embedder.dimension if self.embedder else 0
            index = self._cache[key] = UserIndex(EntryIndex(dimension))
        self._cache.move_to_end(key)
        return index

    async def _refresh(self, tenant: str, user_id: str, index: UserIndex) -> None:
        name = self.embedder.id if self.embedder else ""
        db = self._db.tenant(tenant)

        def look(tx: Tx) -> tuple[Versions, int]:
            return store.versions(tx, user_id), store.last_vectors(tx, user_id, name) if name else -1

        versions, upto = await db.read(look)
        if versions != index.versions:
            changed = [key for key, version in versions.items() if index.versions.get(key) != version]
            records = await db.scan(lambda tx: [store.one(tx, user_id, *key) for key in changed])
            gone = [key for key in index.versions if key not in versions]
            await asyncio.to_thread(_apply, index, [record for record in records if record], gone)
        if upto > index.vectors_upto:
            rows = await db.scan(lambda tx: store.vectors(tx, user_id, name, index.vectors_upto))
            await asyncio.to_thread(_learn, index, rows)
        self._evict()

    def _evict(self) -> None:
        size = sum(index.entries.nbytes for index in self._cache.values())
        while size > self._kept_bytes and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            size -= oldest.entries.nbytes

    def forget(self, tenant: str, user_id: str) -> None:
        """Drop what is kept of a user."""
        self._cache.pop((tenant, user_id), None)


def source_of(agent_id: str, block_type: str) -> str:
    """The name of a block in its user's index."""
    return f"{block_type}:{agent_id}"


def block_of(source: str) -> tuple[str, str]:
    """The (agent, type) of a name."""
    block_type, _, agent_id = source.partition(":")
    return agent_id, block_type


def _apply(index: UserIndex, records: Sequence[BlockRecord], gone: Sequence[tuple[str, str]]) -> None:
    for record in records:
        index.entries.replace(source_of(record.agent_id, record.block_type), lines_of(record.content))
        index.versions[record.agent_id, record.block_type] = record.updated_at
    for key in gone:
        index.entries.remove(source_of(*key))
        del index.versions[key]


def _learn(index: UserIndex, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
    for seq, keys, packed in rows:
        index.entries.learn(keys, packed)
        index.vectors_upto = seq
