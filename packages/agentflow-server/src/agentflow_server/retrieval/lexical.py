"""The word index of passages on either database: FTS5 on SQLite, full text search on PostgreSQL. Called by `index`.

SQLite keeps words in a table of its own that refers to the passages, with the knowledge base as an indexed term; BM25
is FTS5's. PostgreSQL keeps them as a generated column of the passages; rarity is counted within the knowledge base, and
`ts_rank` gives what a word counts in a passage.
"""
# ruff: noqa: S608 - statements are put together from constants

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from agentflow_server.storage import Tx

IN_BASE = "tenant = :tenant AND kb_id = :kb"
_FIELDS = "scope, title, headings, body"
_POSTGRES = f"""
WITH asked AS (
  SELECT plainto_tsquery('english', value) AS q FROM json_array_elements_text(CAST(:words AS json))
), base AS (
  SELECT CAST(COUNT(*) AS float8) AS n FROM kb_chunks WHERE {IN_BASE}
), terms AS MATERIALIZED (
  SELECT q, ln(1 + (base.n - found.df + 0.5) / (found.df + 0.5)) AS idf FROM asked, base, LATERAL (
    SELECT CAST(COUNT(*) AS float8) AS df FROM kb_chunks WHERE {IN_BASE} AND words @@ asked.q
  ) AS found WHERE numnode(q) > 0
)
SELECT c.number, CAST(SUM(
  terms.idf * 4 * ts_rank(CAST(:weights AS float4[]), c.words, terms.q, 0) / ln(20 + length(c.words))
) AS float8) AS score
FROM terms JOIN kb_chunks c ON c.words @@ terms.q WHERE c.tenant = :tenant AND c.kb_id = :kb
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


def scope_of(tx: Tx, kb: str) -> str:
    """The term that stands for a base in the word index: digits only, which no stemmer changes."""
    digest = hashlib.sha256(f"{tenant_of(tx)}\0{kb}".encode()).digest()
    return str(int.from_bytes(digest[:8], "big"))


def among(tx: Tx, name: str, of: str = "text") -> str:
    """A set given as JSON, for `IN`; `of`: PostgreSQL's type of its members."""
    if tx.dialect == "sqlite":
        return f"(SELECT value FROM json_each(:{name}))"
    return f"(SELECT CAST(value AS {of}) FROM json_array_elements_text(CAST(:{name} AS json)))"


def index_words(tx: Tx, kb: str, first: int) -> None:
    """Take in the base's passages from number `first`."""
    if tx.dialect == "sqlite":
        tx.execute(
            f"INSERT INTO kb_words (rowid, {_FIELDS})"
            f" SELECT number, {_FIELDS} FROM kb_chunks WHERE {IN_BASE} AND number >= :first",
            {"kb": kb, "first": first},
        )


def forget_words(tx: Tx, which: str, params: dict[str, str]) -> None:
    """Forget passages that are about to be deleted."""
    if tx.dialect == "sqlite":
        tx.execute(
            f"INSERT INTO kb_words (kb_words, rowid, {_FIELDS})"
            f" SELECT 'delete', number, {_FIELDS} FROM kb_chunks WHERE {which}",
            params,
        )


def find_words(
    tx: Tx, kb: str, words: Sequence[str], *, limit: int, weights: FieldWeights, files: frozenset[str] | None
) -> list[tuple[int, float]]:
    """The passages with most of the words, best first: (number, score)."""
    chosen = None if files is None else json.dumps(sorted(files))
    params = {"kb": kb, "limit": limit, "files": chosen}
    if tx.dialect == "postgresql":
        most = max(*weights, 1e-6)
        shares = ",".join(
            str(weight / most) for weight in (weights.body, weights.body, weights.headings, weights.title)
        )
        narrowed = f" AND c.file_id IN {among(tx, 'files')}" if files is not None else ""
        rows = tx.all(
            f"{_POSTGRES}{narrowed} GROUP BY c.number ORDER BY score DESC, c.number LIMIT :limit",
            {**params, "words": json.dumps(list(words)), "weights": f"{{{shares}}}"},
        )
        return [(row["number"], row["score"] * most) for row in rows if row["score"] > 0]
    narrowed = (
        f" AND rowid IN (SELECT number FROM kb_chunks WHERE {IN_BASE} AND file_id IN {among(tx, 'files')})"
        if files is not None
        else ""
    )
    asked = " OR ".join(f'"{word}"' for word in words)
    rows = tx.all(
        "SELECT w.number, w.score FROM (SELECT rowid AS number, bm25(kb_words, 0.0, :title, :headings, :body) AS score"
        f" FROM kb_words WHERE kb_words MATCH :match{narrowed} ORDER BY score LIMIT :limit) AS w"
        " JOIN kb_chunks c ON c.number = w.number AND c.tenant = :tenant AND c.kb_id = :kb ORDER BY w.score",
        {
            **params, **weights._asdict(),
            "match": f'scope : "{scope_of(tx, kb)}" AND {{title headings body}} : ({asked})',
        },
    )  # fmt: skip
    return [(row["number"], -row["score"]) for row in rows if row["score"] < 0]
