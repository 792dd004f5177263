"""The word index of passages on either database: FTS5 on SQLite, full text search on PostgreSQL. Called by `index`.

Rarity is counted within the knowledge base. SQLite: see `postings`. PostgreSQL keeps words as a generated column of the
passages, and `ts_rank` gives what a word counts in a passage. Below row-level security the column's index may be used
only where `ts_match_vq` is marked leakproof (docs/howto/scale-out.md); else the base is read, once.
"""
# ruff: noqa: S608 - statements are put together from constants

import json
from collections.abc import Sequence
from typing import NamedTuple

from agentflow_server.retrieval import postings
from agentflow_server.storage import Tx

IN_BASE = "tenant = :tenant AND kb_id = :kb"
_POSTGRES = f"""
WITH asked AS (
  SELECT place, plainto_tsquery('english', value) AS q
  FROM json_array_elements_text(CAST(:words AS json)) WITH ORDINALITY AS given (value, place)
), terms AS MATERIALIZED (
  SELECT place, q FROM asked WHERE numnode(q) > 0
), base AS MATERIALIZED (
  SELECT CAST(COUNT(*) AS float8) AS n FROM kb_chunks WHERE {IN_BASE}
), found AS MATERIALIZED (
  SELECT number, file_id, length(words) AS length, ARRAY(
    SELECT CASE WHEN words @@ q THEN ts_rank(CAST(:weights AS float4[]), words, q, 0) END FROM terms ORDER BY place
  ) AS ranks
  FROM kb_chunks WHERE {IN_BASE} AND words @@ (
    SELECT CAST(string_agg('(' || CAST(q AS text) || ')', ' | ') AS tsquery) FROM terms
  )
), counted AS MATERIALIZED (
  SELECT number, file_id, place, rank / ln(20 + length) AS worth
  FROM found, unnest(ranks) WITH ORDINALITY AS each (rank, place) WHERE rank IS NOT NULL
), rarities AS (
  SELECT place, ln(1 + (n - df + 0.5) / (df + 0.5)) AS idf
  FROM base, (SELECT place, CAST(COUNT(*) AS float8) AS df FROM counted GROUP BY place) AS frequencies
)
SELECT number, CAST(SUM(idf * 4 * worth) AS float8) AS score FROM counted JOIN rarities USING (place)
"""


class FieldWeights(NamedTuple):
    """How much a word counts in each field of a passage."""

    title: float = 2.0
    headings: float = 1.0
    body: float = 1.0


def tenant_of(tx: Tx) -> str:
    """Whose transaction this is."""
    row = tx.one("SELECT :tenant AS tenant")
    assert row is not None
    return row["tenant"]


def among(tx: Tx, name: str, of: str = "text") -> str:
    """That a column is one of a set given as JSON, looked up by index; `of`: PostgreSQL's type of its members."""
    if tx.dialect == "sqlite":
        return f"IN (SELECT value FROM json_each(:{name}))"
    return f"= ANY(ARRAY(SELECT CAST(value AS {of}) FROM json_array_elements_text(CAST(:{name} AS json))))"


def index_words(tx: Tx, kb: str, first: int) -> None:
    """Take in the base's passages from number `first`."""
    if tx.dialect == "sqlite":
        postings.add(tx, kb, first)


def forget_words(tx: Tx, kb: str, file_id: str | None) -> None:
    """Forget the passages of a file, or of the whole base, that are about to be deleted."""
    if tx.dialect == "sqlite":
        postings.forget(tx, kb, file_id)


def find_words(
    tx: Tx, kb: str, words: Sequence[str], *, limit: int, weights: FieldWeights, files: frozenset[str] | None
) -> list[tuple[int, float]]:
    """The passages with most of the words, best first: (number, score)."""
    if tx.dialect == "sqlite":
        return postings.find(tx, kb, words, limit=limit, weights=weights, files=files)
    most = max(*weights, 1e-6)
    shares = ",".join(str(weight / most) for weight in (weights.body, weights.body, weights.headings, weights.title))
    narrowed = f"WHERE file_id {among(tx, 'files')}" if files is not None else ""
    rows = tx.all(
        f"{_POSTGRES}{narrowed} GROUP BY number ORDER BY score DESC, number LIMIT :limit",
        {
            "kb": kb, "limit": limit, "files": None if files is None else json.dumps(sorted(files)),
            "words": json.dumps(list(words)), "weights": f"{{{shares}}}",
        },
    )  # fmt: skip
    return [(row["number"], row["score"] * most) for row in rows if row["score"] > 0]
