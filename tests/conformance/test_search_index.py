"""The search index: what SQLite and PostgreSQL, with pgvector and without, all promise to knowledge bases."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agentflow_server.retrieval.index import Entry, SearchIndex
from agentflow_server.retrieval.lexical import FieldWeights
from agentflow_server.retrieval.meaning import Meanings, meanings
from agentflow_server.retrieval.search import Base, Mode, Question, search
from agentflow_server.storage.database import TenantDatabase

from tests.conformance.conftest import opened
from tests.postgres import PostgresServer

WIDTH = 32
PLAIN = FieldWeights()
Test = Callable[[Callable[[str], TenantDatabase]], Awaitable[None]]
Run = Callable[[Test], None]
Rows = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@pytest.fixture(params=["sqlite", "pgvector", "postgresql without pgvector"])
def run(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> Run:
    """Runs a test with a new database."""

    def with_database(test: Test) -> None:
        url = None if request.param == "sqlite" else postgres.migrated(pgvector=request.param == "pgvector")

        async def go() -> None:
            async with opened(tmp_path, url) as db:
                await test(db.tenant)

        asyncio.run(go())

    return with_database


class Known:
    """An embedder whose texts are the numbers of its rows."""

    id = "known"
    dimension = WIDTH

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def embed(self, texts: Sequence[str]) -> Rows:
        return self._rows[[int(text) for text in texts]]


def vectors(count: int, seed: int) -> Rows:
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def entries(*texts: str, title: str = "") -> list[Entry]:
    return [Entry(text, title) for text in texts]


async def words(db: TenantDatabase, index: SearchIndex, kb: str, *asked: str, weights: FieldWeights = PLAIN,
                files: frozenset[str] | None = None) -> list[int]:  # fmt: skip
    found = await db.scan(lambda tx: index.by_words(tx, kb, asked, limit=10, weights=weights, files=files))
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    passages = await db.read(lambda tx: index.fetch(tx, kb, [number for number, _ in found]))
    return [passages[number].position for number, _ in found]


async def fill(db: TenantDatabase, index: SearchIndex, rows: Rows, files: int, texts: str = "text") -> None:
    """Write as many passages of each file as there are rows for it."""
    size = len(rows) // files
    for number in range(files):
        part = rows[number * size : (number + 1) * size]
        some = entries(*(f"{texts} {place}" for place in range(size)), title=f"title{number}")
        await db.write(lambda tx, n=number, s=some, p=part: index.add(tx, "kb", f"file{n}", 0, s, p))


async def vectors_of(db: TenantDatabase, index: SearchIndex, kb: str, revision: int = 1) -> Meanings:
    return await meanings(db, index, kb, revision, WIDTH)


async def ranked(db: TenantDatabase, index: SearchIndex, kb: str, query: Rows, files: frozenset[str] | None = None, *,
                 revision: int = 1, size: int = 30) -> list[int]:  # fmt: skip
    """The rows of the ten nearest passages, best first, if file `n` has those from `n` times `size`."""
    (nearest,) = await (await vectors_of(db, index, kb, revision)).nearest(query[np.newaxis], 10, files)
    cosines = [cosine for _, cosine in nearest]
    assert cosines == sorted(cosines, reverse=True)
    return await places(db, index, kb, nearest, size)


async def places(
    db: TenantDatabase, index: SearchIndex, kb: str, found: Sequence[tuple[int, float]], size: int
) -> list[int]:
    passages = await db.read(lambda tx: index.fetch(tx, kb, [number for number, _ in found]))
    chosen = [passages[number] for number, _ in found]
    return [int(one.file_id.removeprefix("file") or 0) * size + one.position for one in chosen]


def best(rows: Rows, query: Rows) -> list[int]:
    return [int(place) for place in np.argsort(-(rows @ query))[:10]]


def test_words_are_stemmed_ranked_and_weighted(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index = tenant("t"), SearchIndex()
        texts = entries("Pumps are oiled weekly.", "The pump of the pump house pumps.", "Nothing of that kind.", "Oil.")
        some = [*texts, Entry("A page.", "Pumping"), *entries(*(f"Filler {n}" for n in range(20)))]
        await db.write(lambda tx: index.add(tx, "kb", "f", 0, some, None))
        assert set(await words(db, index, "kb", "pumps")) == {0, 1, 4}
        assert set(await words(db, index, "kb", "oil", "pump")) == {0, 1, 3, 4}
        assert (await words(db, index, "kb", "oil", "pump"))[0] == 0
        assert (await words(db, index, "kb", "pump", weights=FieldWeights(20, 1, 1)))[0] == 4
        assert await words(db, index, "kb", "pump", weights=FieldWeights(1, 1, 0)) == [4]
        assert await words(db, index, "kb", "giraffe") == []
        assert await words(db, index, "kb") == []

    run(test)


@pytest.mark.parametrize(
    "word", ['"', "*", "NEAR", "a:b", "scope", "'; DROP TABLE kb_chunks; --", "(", "&|!", "ümläut"]
)
def test_no_word_is_syntax(run: Run, word: str) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        from agentflow_server.retrieval.wording import query_words

        db, index = tenant("t"), SearchIndex()
        await db.write(lambda tx: index.add(tx, "kb", "f", 0, entries("plain text", "ümläut text"), None))
        found = await words(db, index, "kb", *query_words(word))
        assert found == ([1] if word == "ümläut" else [])

    run(test)


def test_bases_and_tenants_are_apart(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        index = SearchIndex()
        for name in ("one", "other"):
            db = tenant(name)
            for kb in ("a", "b"):
                rows = vectors(3, seed=len(name) + ord(kb))
                some = entries(*(f"heron {name} {kb} {n}" for n in range(3)))
                await db.write(lambda tx, kb=kb, some=some, rows=rows: index.add(tx, kb, "file0", 0, some, rows))
        db = tenant("one")
        found = await db.scan(lambda tx: index.by_words(tx, "a", ["heron"], limit=10, weights=PLAIN))
        passages = await db.read(lambda tx: index.fetch(tx, "a", [number for number, _ in found]))
        assert sorted(one.text for one in passages.values()) == [f"heron one a {n}" for n in range(3)]
        rows = vectors(3, seed=3 + ord("a"))
        assert await ranked(db, index, "a", rows[2]) == best(rows, rows[2])
        assert await ranked(tenant("third"), index, "a", rows[2]) == []
        alien = await tenant("third").scan(lambda tx: index.by_words(tx, "a", ["heron"], limit=10, weights=PLAIN))
        assert alien == []

    run(test)


def test_scores_are_those_of_the_base_alone(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index = tenant("t"), SearchIndex()

        async def scores(kb: str, *asked: str) -> list[float]:
            found = await db.scan(lambda tx: index.by_words(tx, kb, asked, limit=10, weights=PLAIN))
            return [score for _, score in found]

        some = entries("The pump is oiled.", "Oil for the heron.", "A heron eats fish.", title="Notes")
        await db.write(lambda tx: index.add(tx, "kb", "f", 0, some, None))
        alone = await scores("kb", "heron", "pump")
        assert alone[0] > 0.3
        more = entries(*(f"Herons and pumps, {n} of them" for n in range(50)))
        for name, kb in (("t", "another"), ("other", "kb")):
            await tenant(name).write(lambda tx, kb=kb: index.add(tx, kb, "f", 0, more, None))
        assert await scores("kb", "heron", "pump") == alone
        await db.write(lambda tx: index.add(tx, "kb", "g", 0, more, None))
        assert await scores("kb", "heron", "pump") != alone
        await db.write(lambda tx: index.remove(tx, "kb", "g"))
        assert await scores("kb", "heron", "pump") == alone
        await tenant("other").write(lambda tx: index.remove(tx, "kb"))
        assert await scores("kb", "heron", "pump") == alone

    run(test)


def test_vectors_are_searched_exactly_and_filters_cost_no_recall(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index, rows = tenant("t"), SearchIndex(), vectors(600, seed=7)
        await fill(db, index, rows, files=20)
        for query in vectors(10, seed=8):
            assert await ranked(db, index, "kb", query) == best(rows, query)
            only = [place for place in np.argsort(-(rows @ query)) if place // 30 in (3, 17)][:10]
            assert await ranked(db, index, "kb", query, frozenset({"file3", "file17"})) == only
            assert await ranked(db, index, "kb", query, frozenset()) == []
        third = frozenset({"file3"})
        found = await db.scan(lambda tx: index.by_words(tx, "kb", ["text"], limit=50, weights=PLAIN, files=third))
        passages = await db.read(lambda tx: index.fetch(tx, "kb", [number for number, _ in found]))
        assert len(found) == 30
        assert {one.file_id for one in passages.values()} == {"file3"}

    run(test)


def test_cosines_and_vectors_of_passages_are_those_that_were_written(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index, rows = tenant("t"), SearchIndex(), vectors(40, seed=3)
        await fill(db, index, rows, files=4)
        found = await vectors_of(db, index, "kb")
        query = vectors(1, seed=4)
        (nearest,) = await found.nearest(query, 40, None)
        cosines = await found.cosines(query[0], [number for number, _ in nearest] + [10_000])
        assert [cosines[number] for number, _ in nearest] == pytest.approx([cosine for _, cosine in nearest], abs=1e-3)
        assert len(cosines) == 40
        kept = await found.of([number for number, _ in nearest] + [10_000])
        order = np.argsort(-(rows @ query[0]))
        assert np.allclose([kept[number] for number, _ in nearest], rows[order], atol=1e-3)

    run(test)


def test_thresholds_and_diversity_see_the_same_vectors(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index, rows = tenant("t"), SearchIndex(), vectors(60, seed=5)
        rows[30:] = rows[:30]  # every passage has a double
        await fill(db, index, rows, files=2)
        embedder, cosines = Known(rows), rows @ rows[7]

        async def asked(mode: Mode, **options: Any) -> list[tuple[int, float]]:
            question = Question(mode=mode, wordings=("text",), meanings=("7",), limit=10, **options)
            answer = await search(db, index, embedder, Base("kb", 1), question)
            places = [(int(one.passage.file_id[4:]) * 30 + one.passage.position, one.cosine) for one in answer.found]
            return [(place, cosine) for place, cosine in places if cosine is not None]

        found = await asked("semantic")
        assert {place for place, _ in found[:2]} == {7, 37}
        assert [cosine for _, cosine in found] == pytest.approx(sorted(cosines, reverse=True)[:10], abs=2e-3)
        least = float(np.sort(cosines)[-5]) + 0.01
        assert {place for place, _ in await asked("semantic", threshold=least)} == set(np.flatnonzero(cosines >= least))
        for place, cosine in await asked("hybrid"):
            assert cosine == pytest.approx(float(cosines[place]), abs=2e-3)
        diverse = await asked("semantic", mmr_lambda=0.3)
        assert len({place % 30 for place, _ in diverse}) == 10, "no passage and its double"
        assert diverse[0][0] in (7, 37)
        assert len({place % 30 for place, _ in await asked("semantic", mmr_lambda=1.0)}) == 5

    run(test)


def test_what_is_removed_is_gone_and_what_is_added_is_there(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index, rows = tenant("t"), SearchIndex(), vectors(9, seed=1)
        await fill(db, index, rows, files=3, texts="animal")
        assert await ranked(db, index, "kb", rows[4], size=3) == best(rows, rows[4])
        await db.write(lambda tx: index.remove(tx, "kb", "file1"))
        left = [place for place in best(rows, rows[4]) if place // 3 != 1]
        assert await ranked(db, index, "kb", rows[4], revision=2, size=3) == left
        assert await words(db, index, "kb", "title1") == []
        await db.write(lambda tx: index.add(tx, "kb", "file1", 0, entries("animal", title="title1"), rows[4:5]))
        assert await ranked(db, index, "kb", rows[4], revision=3, size=3) == [3, *left]
        assert await words(db, index, "kb", "title1") == [0]
        around = await db.read(lambda tx: index.of_file(tx, "kb", "file2", 1, 5))
        assert [one.position for one in around] == [1, 2]
        await db.write(lambda tx: index.remove(tx, "kb"))
        assert await words(db, index, "kb", "animal") == []
        assert await ranked(db, index, "kb", rows[4], revision=4) == []

    run(test)


def test_another_model_takes_the_place_of_the_first(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index = tenant("t"), SearchIndex()
        await fill(db, index, vectors(30, seed=1), files=1)
        wider = np.random.default_rng(2).normal(size=(30, 2 * WIDTH)).astype(np.float32)
        wider /= np.linalg.norm(wider, axis=1, keepdims=True)
        await db.write(lambda tx: index.remove(tx, "kb"))
        await fill(db, index, wider, files=1)
        found = await meanings(db, index, "kb", 2, 2 * WIDTH)
        (nearest,) = await found.nearest(wider[5:6], 10, None)
        assert await places(db, index, "kb", nearest, 30) == best(wider, wider[5])

    run(test)


def test_a_unit_that_fails_leaves_nothing(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index = tenant("t"), SearchIndex()

        def unit(tx: "object") -> None:
            index.add(tx, "kb", "f", 0, entries("heron"), vectors(1, seed=2))  # pyright: ignore[reportArgumentType] - a Tx
            raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            await db.write(unit)
        assert await words(db, index, "kb", "heron") == []
        assert await ranked(db, index, "kb", vectors(1, seed=2)[0]) == []

    run(test)
