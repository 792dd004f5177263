"""The search index of knowledge bases: words and vectors beside the passages, written in the caller's transaction.

Words: see `lexical`. Vectors: where PostgreSQL has pgvector, they are searched there (`pgvector`), else they are kept
as float16 rows and searched in memory (`vectors`); exactly either way. Knows no room: a base is a tenant's id, a file
is an id. Conformance of all three: `tests/conformance/test_search_index.py`.
"""
# ruff: noqa: S608 - statements are put together from constants

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentflow_server.retrieval import pgvector
from agentflow_server.retrieval.embedding import Vectors
from agentflow_server.retrieval.lexical import (
    IN_BASE,
    FieldWeights,
    among,
    find_words,
    forget_words,
    index_words,
    tenant_of,
)
from agentflow_server.retrieval.vectors import Matrix, MatrixCache, Segment
from agentflow_server.storage import Row, Tx

_HEADINGS = " › "
_COLUMNS = "number, file_id, position, title, headings, body, page"


class Entry(NamedTuple):
    """A passage to be indexed."""

    text: str
    title: str
    headings: tuple[str, ...] = ()
    page: int | None = None


class Stored(NamedTuple):
    """A passage of the index. `number` names it within its knowledge base; `position` counts within its file."""

    number: int
    file_id: str
    position: int
    title: str
    headings: tuple[str, ...]
    text: str
    page: int | None


class SearchIndex:
    """The index. Its methods are called inside a transaction that is bound to the tenant.

    Args:
        cache: where matrices are kept between searches.

    Attributes:
        uses_pgvector: whether it was seen that the database keeps vectors in pgvector. They may move there while this
            process runs, never back; so reads go by what was seen, and writes look.
    """

    def __init__(self, cache: MatrixCache | None = None) -> None:
        self._cache = cache or MatrixCache()
        self.uses_pgvector = False

    def add(
        self, tx: Tx, kb: str, file_id: str, position: int, entries: Sequence[Entry], vectors: Vectors | None
    ) -> None:
        """Write passages of a file, the first at `position`.

        Args:
            vectors: one row a passage; None where the base has no embedder.
        """
        shared = ":tenant IS NOT NULL" if tx.dialect == "sqlite" else "tenant = :tenant"  # FTS5 knows no tenants
        row = tx.one(f"SELECT MAX(number) AS last FROM kb_chunks WHERE {shared}")
        first = (row["last"] or 0) + 1 if row else 1
        tx.executemany(
            "INSERT INTO kb_chunks (tenant, kb_id, number, file_id, position, title, headings, body, page)"
            " VALUES (:tenant, :kb, :number, :file, :position, :title, :headings, :body, :page)",
            [
                {
                    "kb": kb, "number": first + place, "file": file_id, "position": position + place,
                    "title": entry.title, "headings": _HEADINGS.join(entry.headings), "body": entry.text,
                    "page": entry.page,
                }
                for place, entry in enumerate(entries)
            ],
        )  # fmt: skip
        index_words(tx, kb, first)
        if vectors is None or not entries:
            return
        if pgvector.is_there(tx):
            pgvector.add(tx, kb, file_id, first, vectors)
        else:
            tx.execute(
                "INSERT INTO kb_vectors (tenant, kb_id, number, amount, file_id, data)"
                " VALUES (:tenant, :kb, :first, :amount, :file, :data)",
                {"kb": kb, "first": first, "amount": len(entries), "file": file_id,
                 "data": vectors.astype(np.float16).tobytes()},
            )  # fmt: skip

    def remove(self, tx: Tx, kb: str, file_id: str | None = None) -> None:
        """Forget a file, or the whole base."""
        which = IN_BASE if file_id is None else f"{IN_BASE} AND file_id = :file"
        params = {"kb": kb} if file_id is None else {"kb": kb, "file": file_id}
        forget_words(tx, kb, file_id)
        tx.execute(f"DELETE FROM kb_chunks WHERE {which}", params)
        if pgvector.is_there(tx):
            pgvector.remove(tx, kb, file_id)
        else:
            tx.execute(f"DELETE FROM kb_vectors WHERE {which}", params)

    def by_words(
        self,
        tx: Tx,
        kb: str,
        words: Sequence[str],
        *,
        limit: int,
        weights: FieldWeights,
        files: frozenset[str] | None = None,
    ) -> list[tuple[int, float]]:
        """The passages with most of the words, best first: (number, BM25). A word is enough.

        Args:
            files: only passages of these; None for all.
        """
        return find_words(tx, kb, words, limit=limit, weights=weights, files=files) if words else []

    def cached(self, tenant: str, kb: str, revision: int) -> Matrix | None:
        """The base's vectors at a revision, if they are in memory."""
        return self._cache.current((tenant, kb), revision)

    def matrix(self, tx: Tx, kb: str, revision: int, width: int) -> Matrix | None:
        """The base's vectors at a revision, to be searched in memory; None where pgvector searches them."""
        if self.uses_pgvector or pgvector.is_there(tx):
            self.uses_pgvector = True
            return None
        key = (tenant_of(tx), kb)
        kept = self._cache.current(key, revision)
        if kept is not None:
            return kept
        rows = tx.all(
            f"SELECT number, amount, file_id FROM kb_vectors WHERE {IN_BASE} ORDER BY number",
            {"kb": kb},
        )
        segments = [Segment(row["number"], row["amount"], row["file_id"]) for row in rows]

        def read(missing: list[Segment]) -> list[bytes]:
            wanted = {segment.first for segment in missing}
            if len(wanted) * 4 < len(segments):
                found = [_blob(tx, kb, segment.first) for segment in missing]
                return [data for data in found if data is not None]
            rows = tx.all(
                f"SELECT number, data FROM kb_vectors WHERE {IN_BASE} ORDER BY number",
                {"kb": kb},
            )
            return [bytes(row["data"]) for row in rows if row["number"] in wanted]

        return self._cache.load(key, revision, segments, read, width)

    def fetch(self, tx: Tx, kb: str, numbers: Sequence[int]) -> dict[int, Stored]:
        """Passages by number."""
        some = among(tx, "numbers", of="bigint")
        rows = tx.all(
            f"SELECT {_COLUMNS} FROM kb_chunks WHERE {IN_BASE} AND number IN {some}",
            {"kb": kb, "numbers": json.dumps(list(numbers))},
        )
        return {row["number"]: _stored(row) for row in rows}

    def around(self, tx: Tx, kb: str, passage: Stored, count: int) -> list[Stored]:
        """A passage and up to `count` on each side of it, in the order of the file."""
        return self.of_file(tx, kb, passage.file_id, passage.position - count, passage.position + count)

    def of_file(self, tx: Tx, kb: str, file_id: str, first: int, last: int) -> list[Stored]:
        """The passages of a file from one position to another, both included."""
        rows = tx.all(
            f"SELECT {_COLUMNS} FROM kb_chunks WHERE {IN_BASE} AND file_id = :file"
            " AND position BETWEEN :first AND :last ORDER BY position",
            {"kb": kb, "file": file_id, "first": first, "last": last},
        )
        return [_stored(row) for row in rows]

    def count(self, tx: Tx, kb: str, file_id: str) -> int:
        """How many passages of a file are written."""
        row = tx.one(
            f"SELECT COUNT(*) AS n FROM kb_chunks WHERE {IN_BASE} AND file_id = :file", {"kb": kb, "file": file_id}
        )
        return row["n"] if row else 0


def embedded_text(title: str, headings: Sequence[str], text: str) -> str:
    """A passage as it is embedded: below its title and headings, unless it begins with them."""
    above = [part for part in dict.fromkeys((title, *headings)) if part and not text.startswith(part)]
    return "\n".join([*above, text])


def _blob(tx: Tx, kb: str, first: int) -> bytes | None:
    row = tx.one(
        f"SELECT data FROM kb_vectors WHERE {IN_BASE} AND number = :first",
        {"kb": kb, "first": first},
    )
    return bytes(row["data"]) if row else None


def _stored(row: Row) -> Stored:
    headings = tuple(part for part in row["headings"].split(_HEADINGS) if part)
    return Stored(row["number"], row["file_id"], row["position"], row["title"], headings, row["body"], row["page"])
