"""The word index of passages on SQLite: FTS5 keeps where words stand, BM25 is counted here, within one knowledge base.

FTS5's own `bm25` counts rarity and length over its whole table, so over every base and tenant. Here a term begins with
the number of its base's vocabulary, so its postings are the base's alone; the row of a passage in FTS5 tells the number
and the length of the passage, so nothing else is looked up; and the vocabulary knows how many passages there are and
how long they are together. What `tokens` makes of a text is what FTS5 holds: a change of it has to rebuild `kb_words`.
Called by `lexical`.
"""
# ruff: noqa: S608 - statements are put together from constants

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentflow_server.retrieval.words import tokens
from agentflow_server.storage import Row, Tx

Numbers = NDArray[np.int64]
_K1, _B = 1.2, 0.75
_LENGTH_BITS = 12
_LONGEST = (1 << _LENGTH_BITS) - 1
_MOST_TERMS = 256
_AT_ONCE = 1000
_IN_BASE = "tenant = :tenant AND kb_id = :kb"
_TEXT = "number, title, headings, body"
_WORDS = f":title, :headings, :body FROM kb_chunks WHERE {_IN_BASE} AND number = :number"
_ROW = f"(number << {_LENGTH_BITS}) | :length"
_POSTINGS = """
SELECT v.passages, v.words, (
  SELECT group_concat((t.doc << 2) | CASE t.col WHEN 'title' THEN 0 WHEN 'headings' THEN 1 ELSE 2 END)
  FROM kb_terms t WHERE t.term = v.number || '_' || asked.value
) AS places
FROM kb_vocabularies v, json_each(:terms) asked WHERE v.tenant = :tenant AND v.kb_id = :kb
"""


class _Indexed(NamedTuple):
    """A passage as FTS5 holds it."""

    number: int
    length: int
    title: str
    headings: str
    body: str


def add(tx: Tx, kb: str, first: int) -> None:
    """Take in the base's passages from number `first`."""
    vocabulary = _vocabulary(tx, kb)
    added = _indexed(vocabulary, tx.all(f"SELECT {_TEXT} FROM kb_chunks WHERE {_IN_BASE} AND number >= :first",
                                        {"kb": kb, "first": first}))  # fmt: skip
    _write(tx, kb, f"INSERT INTO kb_words (rowid, title, headings, body) SELECT {_ROW}, {_WORDS}", added, 1)


def forget(tx: Tx, kb: str, file_id: str | None) -> None:
    """Forget the passages of a file, or of the whole base, that are about to be deleted."""
    vocabulary = _vocabulary(tx, kb)
    which = "" if file_id is None else " AND file_id = :file"
    last = 0
    while rows := tx.all(
        f"SELECT {_TEXT} FROM kb_chunks WHERE {_IN_BASE} AND number > :last{which} ORDER BY number LIMIT {_AT_ONCE}",
        {"kb": kb, "file": file_id, "last": last},
    ):
        delete = "INSERT INTO kb_words (kb_words, rowid, title, headings, body)"
        _write(tx, kb, f"{delete} SELECT 'delete', {_ROW}, {_WORDS}", _indexed(vocabulary, rows), -1)
        last = rows[-1]["number"]
    if file_id is None:
        tx.execute(f"DELETE FROM kb_vocabularies WHERE {_IN_BASE}", {"kb": kb})


def find(
    tx: Tx, kb: str, words: Sequence[str], *, limit: int, weights: Sequence[float], files: frozenset[str] | None
) -> list[tuple[int, float]]:
    """The passages with most of the words, best first: (number, BM25).

    Args:
        weights: of a word in the title, the headings, the body.
    """
    asked = list(dict.fromkeys(tokens(" ".join(words))))[:_MOST_TERMS]
    rows = tx.all(_POSTINGS, {"kb": kb, "terms": json.dumps(asked)})
    counted = [_counted(row, weights) for row in rows if row["places"]]
    if not counted:
        return []
    places = np.concatenate([places for places, _ in counted])
    unique, inverse = np.unique(places, return_inverse=True)
    scores = np.bincount(inverse, np.concatenate([scores for _, scores in counted]))
    numbers = unique >> _LENGTH_BITS
    if files is not None:
        scores = np.where(np.isin(numbers, _of_files(tx, kb, files)), scores, 0)
    best = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
    best = best[np.lexsort((numbers[best], -scores[best]))]
    return [(int(numbers[place]), float(scores[place])) for place in best if scores[place] > 0]


def _counted(row: Row, weights: Sequence[float]) -> tuple[Numbers, NDArray[np.float64]]:
    """For one term: the rows that hold it, and what it is worth in each (Robertson and Zaragoza, 2009)."""
    places = _numbers(row["places"])
    rows, field = places >> 2, places & 3
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    times = np.add.reduceat(np.asarray(weights, np.float64)[field], starts)
    rows = rows[starts]
    rarity = np.log1p((row["passages"] - len(rows) + 0.5) / (len(rows) + 0.5))
    length = (rows & _LONGEST) * (row["passages"] / row["words"])
    return rows, rarity * times * (_K1 + 1) / (times + _K1 * (1 - _B + _B * length))


def _of_files(tx: Tx, kb: str, files: frozenset[str]) -> Numbers:
    row = tx.one(
        f"SELECT group_concat(number) AS numbers FROM kb_chunks WHERE {_IN_BASE}"
        " AND file_id IN (SELECT value FROM json_each(:files))",
        {"kb": kb, "files": json.dumps(sorted(files))},
    )
    return _numbers(row["numbers"] or "" if row else "")


def _numbers(listed: str) -> Numbers:
    return np.fromstring(listed, np.int64, sep=",")


def _vocabulary(tx: Tx, kb: str) -> int:
    """The number of the base's vocabulary, which is made if there is none."""
    tx.execute(
        "INSERT INTO kb_vocabularies (tenant, kb_id, number)"
        " SELECT :tenant, :kb, COALESCE(MAX(number), 0) + 1 FROM kb_vocabularies WHERE TRUE ON CONFLICT DO NOTHING",
        {"kb": kb},
    )
    row = tx.one(f"SELECT number FROM kb_vocabularies WHERE {_IN_BASE}", {"kb": kb})
    assert row is not None
    return row["number"]


def _indexed(vocabulary: int, rows: Iterable[Row]) -> list[_Indexed]:
    found: list[_Indexed] = []
    for row in rows:
        fields = [tokens(row[name]) for name in ("title", "headings", "body")]
        length = min(sum(map(len, fields)), _LONGEST)
        marked = [" ".join([f"{vocabulary}_{token}" for token in field]) for field in fields]
        found.append(_Indexed(row["number"], length, *marked))
    return found


def _write(tx: Tx, kb: str, statement: str, passages: Sequence[_Indexed], sign: int) -> None:
    tx.executemany(statement, [{"kb": kb, **passage._asdict()} for passage in passages])
    tx.execute(
        f"UPDATE kb_vocabularies SET passages = passages + :passages, words = words + :words WHERE {_IN_BASE}",
        {"kb": kb, "passages": sign * len(passages), "words": sign * sum(passage.length for passage in passages)},
    )
