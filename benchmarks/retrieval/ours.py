"""AgentFlow's search index for the retrieval benchmarks: the layer below HTTP, with the vectors given. See `worker.py`.

A base is searched as the server does it: words and vectors, fusion, and the passages' text read at the end.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from agentflow_server.kit.settings import Settings
from agentflow_server.retrieval.blas import one_thread_a_call
from agentflow_server.retrieval.index import Entry, SearchIndex
from agentflow_server.retrieval.search import Base, Question, search
from agentflow_server.storage import open_database
from corpus import FILE, LIMIT, Batch, Rows, base_of

MODES = {"vectors": "semantic", "words": "keyword", "hybrid": "hybrid"}


class Given:
    """An embedder that has its answer ready."""

    id = "benchmark"

    def __init__(self, vector: Rows) -> None:
        self._answer = vector[None]
        self.dimension = len(vector)

    async def embed(self, texts: object) -> Rows:
        return self._answer


class Embedded:
    """SQLite; vectors in memory."""

    modes = tuple(MODES)
    whole = "large"

    def __init__(self, store: Path) -> None:
        one_thread_a_call()
        self._loop = asyncio.new_event_loop()
        url = self._url()
        self._name = (url or "").rsplit("/", 1)[-1]
        settings = Settings.model_validate({"data": store, "database_url": url})
        self._database, self._close = open_database(settings)
        self._db, self._index = self._database.tenant("benchmark"), SearchIndex()

    def _url(self) -> str | None:
        return None

    def add(self, batch: Batch) -> None:
        def unit(tx: Any) -> None:
            for start in range(0, len(batch.numbers), FILE):
                first = batch.numbers[start]
                entries = [Entry(text, f"title {first}") for text in batch.texts[start : start + FILE]]
                rows = batch.rows[start : start + FILE]
                self._index.add(tx, base_of(first), str(first // FILE), 0, entries, rows)

        async def write() -> None:
            await self._db.write(unit)

        self._loop.run_until_complete(write())

    def finish(self) -> None:
        """Nothing is left to do."""

    def search(self, mode: str, where: str, words: str, vector: Rows) -> list[int]:
        question = Question(mode=MODES[mode], wordings=(words,), meanings=(words,), limit=LIMIT)  # pyright: ignore[reportArgumentType]
        base = Base("large" if where == "whole" else "small", 1)
        answer = self._loop.run_until_complete(search(self._db, self._index, Given(vector), base, question))
        return [int(one.passage.file_id) * FILE + one.passage.position for one in answer.found]

    def close(self) -> None:
        self._loop.run_until_complete(self._database.close())
        self._close()


class PgVector(Embedded):
    """PostgreSQL with pgvector, a server of its own with 64 MB of shared buffers, commits on disk."""

    def _url(self) -> str:
        sys.path.insert(0, str(Path(__file__).parents[2]))
        from tests.postgres import PostgresServer

        self._server = PostgresServer(durable=True)
        return self._server.migrated()

    def finish(self) -> None:
        with self._server.admin(self._name) as connection:
            connection.execute("VACUUM ANALYZE")

    def disk(self) -> int:
        """Bytes of the database."""
        with self._server.admin(self._name) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row is not None
        return row[0]

    def close(self) -> None:
        super().close()
        self._server.close()


ENGINES = {"agentflow": Embedded, "agentflow, pgvector": PgVector}
