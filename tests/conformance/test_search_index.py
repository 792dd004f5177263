"""The search index: what SQLite and PostgreSQL both promise to knowledge bases."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from agentflow_server.kit.settings import Settings
from agentflow_server.retrieval.index import Entry, SearchIndex
from agentflow_server.retrieval.lexical import FieldWeights
from agentflow_server.storage import open_database
from agentflow_server.storage.database import TenantDatabase

from tests.postgres import PostgresServer

WIDTH = 32
PLAIN = FieldWeights()
Test = Callable[[Callable[[str], TenantDatabase]], Awaitable[None]]
Run = Callable[[Test], None]


@pytest.fixture(params=["sqlite", "postgresql"])
def run(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> Run:
    """Runs a test with a new database."""

    def with_database(test: Test) -> None:
        url = postgres.migrated() if request.param == "postgresql" else None
        settings = Settings.model_validate({"data": tmp_path, "database_url": url})

        async def go() -> None:
            db, close = open_database(settings)
            try:
                await test(db.tenant)
            finally:
                await db.close()
                close()

        asyncio.run(go())

    return with_database


def vectors(count: int, seed: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
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
                await db.write(lambda tx, kb=kb, some=some, rows=rows: index.add(tx, kb, "f", 0, some, rows))
        db = tenant("one")
        found = await db.scan(lambda tx: index.by_words(tx, "a", ["heron"], limit=10, weights=PLAIN))
        passages = await db.read(lambda tx: index.fetch(tx, "a", [number for number, _ in found]))
        assert sorted(one.text for one in passages.values()) == [f"heron one a {n}" for n in range(3)]
        matrix = await db.scan(lambda tx: index.matrix(tx, "a", 1, WIDTH))
        assert len(matrix.numbers) == 3
        assert np.allclose(matrix.rows, vectors(3, seed=3 + ord("a")), atol=1e-3)
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
        for number in range(20):
            part = slice(number * 30, number * 30 + 30)
            some = entries(*(f"text {place}" for place in range(30)))
            await db.write(lambda tx, n=number, s=some, p=part: index.add(tx, "kb", f"file{n}", 0, s, rows[p]))
        matrix = await db.scan(lambda tx: index.matrix(tx, "kb", 1, WIDTH))
        for query in vectors(10, seed=8):
            best = np.argsort(-(rows @ query))[:10]
            found = matrix.nearest(query, 10, None)
            assert {matrix.numbers.tolist().index(number) for number, _ in found} == set(best.tolist())
            only = [place for place in np.argsort(-(rows @ query)) if place // 30 == 3][:10]
            narrowed = matrix.nearest(query, 10, frozenset({"file3"}))
            assert [matrix.numbers.tolist().index(number) for number, _ in narrowed] == only
        everything = frozenset({"file3"})
        found = await db.scan(lambda tx: index.by_words(tx, "kb", ["text"], limit=50, weights=PLAIN, files=everything))
        passages = await db.read(lambda tx: index.fetch(tx, "kb", [number for number, _ in found]))
        assert len(found) == 30
        assert {one.file_id for one in passages.values()} == {"file3"}

    run(test)


def test_what_is_removed_is_gone_and_what_is_added_is_there(run: Run) -> None:
    async def test(tenant: Callable[[str], TenantDatabase]) -> None:
        db, index, rows = tenant("t"), SearchIndex(), vectors(9, seed=1)
        for number in range(3):
            part = slice(number * 3, number * 3 + 3)
            some = entries(*(f"animal {n}" for n in range(3)), title=f"title{number}")
            await db.write(lambda tx, n=number, s=some, p=part: index.add(tx, "kb", f"f{n}", 0, s, rows[p]))
        assert len((await db.scan(lambda tx: index.matrix(tx, "kb", 1, WIDTH))).numbers) == 9
        await db.write(lambda tx: index.remove(tx, "kb", "f1"))
        matrix = await db.scan(lambda tx: index.matrix(tx, "kb", 2, WIDTH))
        assert matrix.file_ids == ["f0", "f2"]
        assert np.allclose(matrix.rows, rows[[0, 1, 2, 6, 7, 8]], atol=1e-3)
        assert await words(db, index, "kb", "title1") == []
        await db.write(lambda tx: index.add(tx, "kb", "f3", 0, entries("animal", title="title3"), rows[4:5]))
        matrix = await db.scan(lambda tx: index.matrix(tx, "kb", 3, WIDTH))
        assert np.allclose(matrix.rows[-1], rows[4], atol=1e-3)
        assert await words(db, index, "kb", "title3") == [0]
        around = await db.read(lambda tx: index.of_file(tx, "kb", "f2", 1, 5))
        assert [one.position for one in around] == [1, 2]
        await db.write(lambda tx: index.remove(tx, "kb"))
        assert await words(db, index, "kb", "animal") == []
        assert len((await db.scan(lambda tx: index.matrix(tx, "kb", 4, WIDTH))).numbers) == 0

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
        assert len((await db.scan(lambda tx: index.matrix(tx, "kb", 1, WIDTH))).numbers) == 0

    run(test)
