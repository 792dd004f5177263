"""Vectors in PostgreSQL's own type, a row each, compared one by one within their knowledge base: exact, and filters
cost no recall. Called by `index` and `meaning` where the database has pgvector.
"""
# ruff: noqa: S608 - statements are put together from constants

import json
from collections.abc import Iterable

import numpy as np

from agentflow_server.retrieval.embedding import Vectors
from agentflow_server.storage import Tx

_IN_BASE = "tenant = :tenant AND kb_id = :kb"
_QUERY = "CAST(:query AS halfvec)"
_IS_THERE = (
    "SELECT CAST(:tenant AS text) AS tenant FROM pg_tables"
    " WHERE schemaname = current_schema() AND tablename = 'kb_embeddings'"
)


def is_there(tx: Tx) -> bool:
    """Whether the database keeps vectors in pgvector, as this transaction sees it: the answer fits the rows it sees."""
    if tx.dialect == "sqlite":
        return False
    return tx.one(_IS_THERE) is not None


def add(tx: Tx, kb: str, file_id: str, first: int, vectors: Vectors) -> None:
    """Write the vectors of a file's passages from number `first`."""
    tx.execute(
        "INSERT INTO kb_embeddings (tenant, kb_id, number, file_id, embedding)"
        " SELECT :tenant, :kb, CAST(:first AS bigint) + place - 1, :file, CAST(CAST(value AS text) AS halfvec)"
        " FROM json_array_elements(CAST(:rows AS json)) WITH ORDINALITY AS given (value, place)",
        {"kb": kb, "first": first, "file": file_id, "rows": json.dumps(vectors.astype(np.float16).tolist())},
    )


def nearest(tx: Tx, kb: str, query: Vectors, limit: int, files: frozenset[str] | None) -> list[tuple[int, float]]:
    """The passages whose vectors are nearest, best first: (number, cosine).

    Args:
        files: only passages of these; None for all.
    """
    narrowed = " AND file_id = ANY(CAST(:files AS text[]))" if files is not None else ""
    rows = tx.all(
        f"SELECT number, -(embedding <#> {_QUERY}) AS cosine FROM kb_embeddings WHERE {_IN_BASE}{narrowed}"
        f" AND vector_dims(embedding) = :width ORDER BY embedding <#> {_QUERY}, number LIMIT :limit",
        {"kb": kb, "query": _text(query), "files": sorted(files or ()), "width": len(query), "limit": limit},
    )
    return [(row["number"], row["cosine"]) for row in rows]


def cosines(tx: Tx, kb: str, query: Vectors, numbers: Iterable[int]) -> dict[int, float]:
    """How near the vectors of some passages are."""
    rows = tx.all(
        f"SELECT number, -(embedding <#> {_QUERY}) AS cosine FROM kb_embeddings WHERE {_IN_BASE}"
        " AND number = ANY(CAST(:numbers AS bigint[])) AND vector_dims(embedding) = :width",
        {"kb": kb, "query": _text(query), "numbers": list(numbers), "width": len(query)},
    )
    return {row["number"]: row["cosine"] for row in rows}


def vectors_of(tx: Tx, kb: str, numbers: Iterable[int]) -> dict[int, Vectors]:
    """The vectors of some passages."""
    rows = tx.all(
        f"SELECT number, CAST(embedding AS text) AS embedding FROM kb_embeddings WHERE {_IN_BASE}"
        " AND number = ANY(CAST(:numbers AS bigint[]))",
        {"kb": kb, "numbers": list(numbers)},
    )
    return {row["number"]: np.asarray(json.loads(row["embedding"]), np.float32) for row in rows}


def remove(tx: Tx, kb: str, file_id: str | None) -> None:
    """Forget the vectors of a file, or of the whole base."""
    which = _IN_BASE if file_id is None else f"{_IN_BASE} AND file_id = :file"
    tx.execute(f"DELETE FROM kb_embeddings WHERE {which}", {"kb": kb, "file": file_id})


def _text(vector: Vectors) -> str:
    return json.dumps(vector.tolist())
