"""Batches and jobs are watched: what is told at once, what later, what at the end, and to whom."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import NotFoundError
from agentflow.events import BatchUpdate
from agentflow_server.gateway.settings import Endpoint, GatewaySettings
from agentflow_server.testing import LocalServer, Reply, ScriptedModel, local_server

HANG = 30


class Gate(BaseHTTPRequestHandler):
    """Embeds texts, but only when it is let."""

    asked = threading.Semaphore(0)
    let = threading.Semaphore(0)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.release()
        if not self.let.acquire(timeout=HANG):
            return
        rows = [{"index": place, "embedding": [1.0, 2.0]} for place, _ in enumerate(body["input"])]
        answer = json.dumps({"data": rows, "model": body["model"], "usage": {"prompt_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as inherited
        """Say nothing."""


@contextmanager
def gated(data: Path) -> Generator[tuple[LocalServer, AgentFlow]]:
    """A backend whose knowledge bases are embedded one call at a time."""
    Gate.asked, Gate.let = threading.Semaphore(0), threading.Semaphore(0)
    provider = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    endpoint = Endpoint(kind="openai", base_url=f"http://127.0.0.1:{provider.server_address[1]}/v1", local=False)
    settings = GatewaySettings(endpoints={"gate": endpoint}, retries=0)
    try:
        with local_server(gateway_settings=settings, data=data) as server, server.client() as client:
            yield server, client
    finally:
        Gate.let.release(100)
        provider.shutdown()
        provider.server_close()


def begin(client: AgentFlow) -> tuple[str, str]:
    """A base with a job of three files, one of them bad, that waits for the first embedding."""
    kb = client.knowledge_bases.create_from_files(
        name="Gated", files=[("none.exe", b"MZ" + bytes(range(256)))], embedding_model="gate/m"
    )
    files = [("a.txt", b"The ant."), ("b.exe", b"MZ" + bytes(range(255, 0, -1))), ("c.txt", b"The cow.")]
    job = client.knowledge_bases.upload_documents(kb.id, files=files)
    assert Gate.asked.acquire(timeout=HANG)
    return kb.id, job.job_id


def states(update: BatchUpdate) -> dict[str, str]:
    return {file["name"]: file["status"] for file in update.files}


def test_a_job_is_watched_from_wherever_it_is_to_its_end(tmp_path: Path) -> None:
    with gated(tmp_path) as (_, client):
        _, job_id = begin(client)
        with client.knowledge_bases.watch(job_id) as watch, client.knowledge_bases.watch(job_id) as other:
            first = next(watch)
            assert states(first) == {"a.txt": "processing", "b.exe": "queued", "c.txt": "queued"}
            assert (first.status, first.total, first.processed, first.done) == ("processing", 3, 0, False)
            assert states(next(other)) == states(first)
            Gate.let.release()
            assert Gate.asked.acquire(timeout=HANG)
            seen: dict[str, str] = {}
            while seen != {"a.txt": "completed", "b.exe": "failed", "c.txt": "processing"}:
                update = next(watch)
                assert update.files
                seen |= states(update)
            late = client.knowledge_bases.watch(job_id)
            assert states(next(late)) == seen
            Gate.let.release()
            last = list(watch)[-1]
            assert (last.status, last.processed, last.failed, last.progress) == ("completed", 3, 1, 1.0)
            assert states(last) == {"a.txt": "completed", "b.exe": "failed", "c.txt": "completed"}
            assert next(file for file in last.files if file["name"] == "b.exe")["error_code"] == "unsupported"
            done = other.result()
            assert (done.job_id, done.status, [file.name for file in done.files]) == (
                job_id, "completed", ["a.txt", "b.exe", "c.txt"]
            )  # fmt: skip
            assert late.result().model_dump() == client.knowledge_bases.job(job_id).model_dump()
        again = list(client.knowledge_bases.watch(job_id))
        assert [update.done for update in again] == [True]


def test_a_watch_is_taken_up_again(tmp_path: Path) -> None:
    with gated(tmp_path) as (_, client):
        _, job_id = begin(client)
        with client.knowledge_bases.watch(job_id) as watch:
            next(watch)
        resumed = client.knowledge_bases.watch(job_id, last_event_id=watch.last_event_id)
        Gate.let.release()
        assert Gate.asked.acquire(timeout=HANG)
        assert states(next(resumed))["a.txt"] == "completed"  # what was known was not told again
        Gate.let.release()
        assert resumed.result().status == "completed"
        ended = client.knowledge_bases.watch(job_id, last_event_id=resumed.last_event_id)
        assert [update.status for update in ended] == ["completed"]  # the end always


def test_a_job_that_is_cancelled_or_removed_ends_its_watch(tmp_path: Path) -> None:
    with gated(tmp_path) as (_, client):
        kb_id, job_id = begin(client)
        with client.knowledge_bases.watch(job_id) as watch:
            next(watch)
            client.knowledge_bases.cancel_job(job_id)
            last = list(watch)[-1]
        assert last.status == "cancelled"
        assert set(states(last).values()) == {"failed"}
        job_id = client.knowledge_bases.upload_documents(kb_id, files=[("d.txt", b"The dog.")]).job_id
        with client.knowledge_bases.watch(job_id) as watch:
            next(watch)
            client.knowledge_bases.delete(kb_id)
            with pytest.raises(NotFoundError):
                list(watch)


def test_a_batch_is_watched() -> None:
    with local_server(providers={"own": ScriptedModel([Reply("fine")])}) as server, server.client() as client:
        batch = client.batches.submit(operation="run", items=[f"item {n}" for n in range(200)], model="own/m")
        updates = list(client.batches.watch(batch.id))
        assert [update.processed for update in updates] == sorted(update.processed for update in updates)
        assert [update.done for update in updates] == [False] * (len(updates) - 1) + [True]
        ended = client.batches.watch(batch.id).result()
        assert ended.model_dump() == client.batches.retrieve(batch.id).model_dump()
        for unknown in ("nope", "kb_ingest_nope"):
            with pytest.raises(NotFoundError):
                next(client.batches.watch(unknown))


def test_a_batch_that_is_cancelled_ends_its_watch() -> None:
    model = ScriptedModel([Reply("word " * 400, delay=0.05)])
    with local_server(providers={"slow": model}) as server, server.client() as client:
        batch = client.batches.submit(operation="run", items=["a", "b"], model="slow/m")
        with client.batches.watch(batch.id) as watch:
            assert next(watch).status == "processing"
            client.batches.cancel(batch.id)
            assert watch.result().status == "cancelled"
        bad = client.batches.upload_file(b'{"content": "x"}\nnot json', name="x.jsonl", operation="run")
        ended = client.batches.watch(bad.id).result()
        assert ended.error is not None
        assert ended.error.code == "invalid_file"


@pytest.mark.anyio
async def test_async(server: LocalServer) -> None:
    async with server.async_client() as client:
        batch = await client.batches.submit(operation="label", items=["a", "b"], categories=["x", "y"])
        async with client.batches.watch(batch.id) as watch:
            updates = [update async for update in watch]
        assert updates[-1].processed == 2
        kb = await client.knowledge_bases.create_from_files(name="Async watch", files=[("a.txt", b"The ant.")])
        job = await client.knowledge_bases.refresh(kb.id)
        assert (await client.knowledge_bases.watch(job.job_id).result()).completed == 1
        await client.knowledge_bases.delete(kb.id)


def test_creation_hears_of_its_job_and_the_wire_is_plain(client: AgentFlow, server: LocalServer) -> None:
    import httpx2

    made = client.knowledge_bases.create_from_files(name="Wire", files=[("a.txt", b"The ant.")])
    assert made.status == "completed"
    job = client.knowledge_bases.refresh(made.id)
    with httpx2.stream("GET", f"{server.endpoint}/api/v1/batches/{job.job_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = "".join(answer.iter_text()).split("\n")
    assert lines[0] == "retry: 5000"
    payloads = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    ids = [line for line in lines if line.startswith("id: ")]
    assert len(ids) == len(payloads) == len(set(ids))
    assert {one["type"] for one in payloads} == {"batch_update"}
    assert payloads[-1]["content"] == json.loads(client.knowledge_bases.job(job.job_id).response.content)
    client.knowledge_bases.delete(made.id)
