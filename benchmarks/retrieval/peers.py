"""Engines of others for the retrieval benchmarks, each used as its documentation shows. See `worker.py`.

Where an engine has no knowledge bases, all passages are in one collection and the base is a field that is filtered by.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from corpus import LIMIT, WIDTH, Batch, Rows


class Peer:
    """What most of them have in common."""

    modes: tuple[str, ...] = ("vectors",)
    whole = "all"

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """It writes as it goes."""


class Chroma(Peer):
    """chromadb, persistent: HNSW with its defaults, cosine; the base is metadata."""

    def __init__(self, store: Path) -> None:
        import chromadb
        from chromadb.config import Settings

        client = chromadb.PersistentClient(str(store), settings=Settings(anonymized_telemetry=False))
        self._all = client.create_collection(
            "passages", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    def add(self, batch: Batch) -> None:
        self._all.add(
            ids=[str(number) for number in batch.numbers], embeddings=batch.rows, documents=batch.texts,
            metadatas=[{"base": base} for base in batch.bases],
        )  # fmt: skip

    def search(self, mode: str, where: str, words: str, vector: Rows) -> list[int]:
        narrowed: dict[str, Any] = {"where": {"base": "small"}} if where == "small" else {}
        found = self._all.query(query_embeddings=[vector], n_results=LIMIT, include=["documents"], **narrowed)
        return [int(one) for one in found["ids"][0]]


class Lance(Peer):
    """lancedb without an index of vectors (exact), with one of the base and of words; hybrid by reciprocal ranks."""

    modes = ("vectors", "words", "hybrid")

    def __init__(self, store: Path) -> None:
        import lancedb
        import pyarrow as pa

        self._arrow = pa
        self._schema = pa.schema(
            [
                pa.field("number", pa.int64()),
                pa.field("base", pa.string()),
                pa.field("text", pa.string()),
                pa.field("vector", pa.list_(pa.float32(), WIDTH)),
            ]
        )
        self._all = lancedb.connect(str(store)).create_table("passages", schema=self._schema)

    def add(self, batch: Batch) -> None:
        pa = self._arrow
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.rows.reshape(-1)), WIDTH)
        self._all.add(pa.table([batch.numbers, batch.bases, batch.texts, vectors], schema=self._schema))

    def index(self) -> None:
        """None for the vectors."""

    def finish(self) -> None:
        self._all.optimize()
        self._all.create_scalar_index("base", index_type="BITMAP")
        self._all.create_fts_index("text")
        self.index()

    def search(self, mode: str, where: str, words: str, vector: Rows) -> list[int]:
        if mode == "vectors":
            query = self._all.search(vector).distance_type("cosine")
        elif mode == "words":
            query = self._all.search(words, query_type="fts")
        else:
            query = self._all.search(query_type="hybrid").vector(vector).text(words).distance_type("cosine")
        if where == "small":
            query = query.where("base = 'small'", prefilter=True)
        return [row["number"] for row in query.limit(LIMIT).to_list()]


class LanceIndexed(Lance):
    """lancedb with its IVF_PQ index of vectors, defaults."""

    modes = ("vectors",)

    def index(self) -> None:
        self._all.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_PQ")


class SqliteVec(Peer):
    """sqlite-vec: a virtual table with the base as its partition key, exact; the text beside it."""

    def __init__(self, store: Path) -> None:
        import apsw
        import sqlite_vec

        self._db = apsw.Connection(str(store / "vectors.db"))
        self._db.enable_load_extension(True)
        self._db.load_extension(sqlite_vec.loadable_path())
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(
            f"CREATE VIRTUAL TABLE passages USING vec0(number integer primary key, base text partition key,"
            f" vector float[{WIDTH}] distance_metric=cosine, +body text)"
        )

    def add(self, batch: Batch) -> None:
        rows = zip(batch.numbers, batch.bases, batch.rows, batch.texts, strict=True)
        with self._db:
            self._db.executemany(
                "INSERT INTO passages VALUES (?, ?, ?, ?)",
                ((n, base, row.tobytes(), text) for n, base, row, text in rows),
            )

    def search(self, mode: str, where: str, words: str, vector: Rows) -> list[int]:
        narrowed = " AND base = 'small'" if where == "small" else ""
        rows = self._db.execute(
            f"SELECT number, body FROM passages WHERE vector MATCH ? AND k = {LIMIT}{narrowed} ORDER BY distance",
            (vector.tobytes(),),
        )
        return [row[0] for row in rows]

    def close(self) -> None:
        self._db.close()


class Qdrant(Peer):
    """qdrant-client's local mode: exact, in Python; the base is a payload."""

    def __init__(self, store: Path) -> None:
        from qdrant_client import QdrantClient, models

        self._models = models
        self._client = QdrantClient(path=str(store))
        self._client.create_collection("passages", models.VectorParams(size=WIDTH, distance=models.Distance.COSINE))
        match = models.FieldCondition(key="base", match=models.MatchValue(value="small"))
        self._small = models.Filter(must=[match])

    def add(self, batch: Batch) -> None:
        rows = zip(batch.numbers, batch.bases, batch.rows, batch.texts, strict=True)
        points = [
            self._models.PointStruct(id=number, vector=row.tolist(), payload={"base": base, "text": text})
            for number, base, row, text in rows
        ]
        self._client.upsert("passages", points)

    def search(self, mode: str, where: str, words: str, vector: Rows) -> list[int]:
        narrowed = self._small if where == "small" else None
        found = self._client.query_points("passages", query=vector.tolist(), limit=LIMIT, query_filter=narrowed)
        return [int(point.id) for point in found.points]

    def close(self) -> None:
        self._client.close()


class FaissFlat(Peer):
    """faiss, a floor: exact, in memory, vectors alone (no text, nothing durable); the filter is a list of numbers."""

    def __init__(self, store: Path) -> None:
        import faiss

        self._faiss, self._store = faiss, store
        self._index = self.made(faiss)
        self._small: list[int] = []

    def made(self, faiss: Any) -> Any:
        return faiss.IndexFlatIP(WIDTH)

    def add(self, batch: Batch) -> None:
        self._index.add(batch.rows)
        self._small += batch.small

    def finish(self) -> None:
        self._chosen = self._faiss.IDSelectorBatch(np.asarray(self._small, np.int64))

    def narrowed(self) -> Any:
        return self._faiss.SearchParameters(sel=self._chosen)

    def search(self, mode: str, where: str, words: str, vector: Rows) -> list[int]:
        params = self.narrowed() if where == "small" else None
        _, found = self._index.search(vector[None], LIMIT, params=params)
        return [int(number) for number in found[0] if number >= 0]

    def close(self) -> None:
        self._faiss.write_index(self._index, str(self._store / "index"))


class FaissHnsw(FaissFlat):
    """faiss, HNSW of 32 links: what an approximate graph makes of a filter."""

    def made(self, faiss: Any) -> Any:
        return faiss.IndexHNSWFlat(WIDTH, 32, faiss.METRIC_INNER_PRODUCT)

    def narrowed(self) -> Any:
        return self._faiss.SearchParametersHNSW(sel=self._chosen)


class Bm25s(Peer):
    """bm25s: words alone, in memory; the index is made at the end; a filter weighs out the others."""

    modes = ("words",)

    def __init__(self, store: Path) -> None:
        import bm25s

        self._bm25s, self._store = bm25s, store
        self._texts: list[str] = []
        self._small: list[int] = []

    def add(self, batch: Batch) -> None:
        self._texts += batch.texts
        self._small += batch.small

    def finish(self) -> None:
        self._index = self._bm25s.BM25()
        self._index.index(self._bm25s.tokenize(self._texts, stopwords="en", show_progress=False), show_progress=False)
        self._mask = np.zeros(len(self._texts), np.float32)
        self._mask[self._small] = 1

    def search(self, mode: str, where: str, words: str, vector: Rows) -> list[int]:
        tokens = self._bm25s.tokenize(words, stopwords="en", show_progress=False)
        mask = self._mask if where == "small" else None
        places, _ = self._index.retrieve(tokens, k=LIMIT, show_progress=False, weight_mask=mask)
        return [int(place) for place in places[0]]

    def close(self) -> None:
        self._index.save(str(self._store))
        (self._store / "texts.json").write_text(json.dumps(self._texts))


ENGINES = {
    "chromadb": Chroma,
    "lancedb": Lance,
    "lancedb, IVF_PQ": LanceIndexed,
    "sqlite-vec": SqliteVec,
    "qdrant-client, local": Qdrant,
    "faiss, flat": FaissFlat,
    "faiss, HNSW": FaissHnsw,
    "bm25s": Bm25s,
}
