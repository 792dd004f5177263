"""Searching a knowledge base's vectors, wherever they are: in this process, or in PostgreSQL. Called by `search`."""

import asyncio
from collections.abc import Collection
from typing import Protocol

from agentflow_server.retrieval import pgvector
from agentflow_server.retrieval.embedding import Vectors
from agentflow_server.retrieval.index import SearchIndex
from agentflow_server.retrieval.vectors import Matrix
from agentflow_server.storage.database import TenantDatabase

Ranked = list[tuple[int, float]]
_INLINE = 4_096


class Meanings(Protocol):
    """The vectors of a knowledge base. All of them are compared: neither the base nor a filter costs recall."""

    async def nearest(self, queries: Vectors, limit: int, files: frozenset[str] | None) -> list[Ranked]:
        """The best passages for each query, best first: (number, cosine). `files`: only passages of these."""
        ...

    async def cosines(self, query: Vectors, numbers: Collection[int]) -> dict[int, float]:
        """How near some passages are."""
        ...

    async def of(self, numbers: Collection[int]) -> dict[int, Vectors]:
        """The vectors of some passages."""
        ...


async def meanings(db: TenantDatabase, index: SearchIndex, kb: str, revision: int, width: int) -> Meanings:
    """The vectors of a base at a revision, brought into memory where they are not searched in the database."""
    if index.uses_pgvector:
        return _InDatabase(db, kb)
    matrix = index.cached(db.tenant, kb, revision)
    if matrix is None:
        matrix = await db.scan(lambda tx: index.matrix(tx, kb, revision, width))
    return _InDatabase(db, kb) if matrix is None else _InMemory(matrix)


class _InMemory:
    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix

    async def nearest(self, queries: Vectors, limit: int, files: frozenset[str] | None) -> list[Ranked]:
        def rank() -> list[Ranked]:
            return [self._matrix.nearest(query, limit, files) for query in queries]

        return rank() if len(self._matrix.numbers) <= _INLINE else await asyncio.to_thread(rank)

    async def cosines(self, query: Vectors, numbers: Collection[int]) -> dict[int, float]:
        return {number: float(row @ query) for number, row in self._matrix.of(numbers).items()}

    async def of(self, numbers: Collection[int]) -> dict[int, Vectors]:
        return self._matrix.of(numbers)


class _InDatabase:
    def __init__(self, db: TenantDatabase, kb: str) -> None:
        self._db = db
        self._kb = kb

    async def nearest(self, queries: Vectors, limit: int, files: frozenset[str] | None) -> list[Ranked]:
        return await self._db.scan(
            lambda tx: [pgvector.nearest(tx, self._kb, query, limit, files) for query in queries]
        )

    async def cosines(self, query: Vectors, numbers: Collection[int]) -> dict[int, float]:
        return await self._db.read(lambda tx: pgvector.cosines(tx, self._kb, query, numbers))

    async def of(self, numbers: Collection[int]) -> dict[int, Vectors]:
        return await self._db.read(lambda tx: pgvector.vectors_of(tx, self._kb, numbers))
