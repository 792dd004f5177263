"""kill -9 while files are brought in: after a restart the job ends, every passage is there once, and is found."""

import random
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow

from tests.crash.backend import Backend


class Site(BaseHTTPRequestHandler):
    """Pages that link to the next ones."""

    def do_GET(self) -> None:
        number = int(self.path.strip("/") or 0) if self.path != "/robots.txt" else None
        links = "".join(f'<a href="/{n}">more</a>' for n in range((number or 0) + 1, (number or 0) + 4))
        body = f"<html><body><h1>Page {number}</h1><p>{text_of(number or 0)[:600]}</p>{links}</body></html>".encode()
        self.send_response(404 if number is None else 200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as inherited
        """Say nothing."""


@pytest.mark.slow
def test_a_killed_crawl_reads_every_page_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFLOW_ALLOW_PRIVATE_ADDRESSES", "true")
    monkeypatch.setenv("AGENTFLOW_CRAWL_PAUSE_SECONDS", "0.1")
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{site.server_address[1]}"
    with Backend(tmp_path) as backend, AgentFlow(endpoint=backend.endpoint) as client:
        made = client.knowledge_bases.create_from_url(
            name="Site", website_url=url, max_crawl_pages=12, max_crawl_depth=10
        )
        assert made.job_id
        for pages in (3, 6):
            while client.knowledge_bases.job(made.job_id).total < pages:
                time.sleep(0.02)
            backend.stop(signal.SIGKILL)
            backend.start()
        done = client.knowledge_bases.wait(made.job_id, timeout=60)
        names = [f"{url}/", *(f"{url}/{n}" for n in range(1, 12))]
        assert (done.status, done.total, sorted(file.name for file in done.files)) == ("completed", 12, sorted(names))
        assert {file.status for file in done.files} == {"completed"}
        assert client.knowledge_bases.retrieve(made.id).file_count == 12
    site.shutdown()
    site.server_close()


FILES = 6
PARAGRAPHS = 60
CHUNK = 400


def text_of(number: int) -> str:
    sentence = "It has a name of its own, lives in a wood of its own, and is mentioned in this paragraph alone."
    return "\n\n".join(f"The animal {number}-{place} is here. {sentence} {sentence}" for place in range(PARAGRAPHS))


@pytest.mark.slow
def test_a_killed_ingestion_goes_on(tmp_path: Path) -> None:
    chance = random.Random(20261125)
    with Backend(tmp_path) as backend, AgentFlow(endpoint=backend.endpoint) as client:
        kb = client.knowledge_bases.create_from_files(
            name="Animals", files=[("first.txt", b"first")], chunk_size=CHUNK, overlap_percentage=0.0
        )
        files = [(f"{number}.txt", text_of(number).encode()) for number in range(FILES)]
        job = client.knowledge_bases.upload_documents(kb.id, files=files)
        for _ in range(3):
            before = client.knowledge_bases.retrieve(kb.id).chunk_count
            deadline = time.monotonic() + chance.uniform(0.3, 1.2)
            while time.monotonic() < deadline or client.knowledge_bases.retrieve(kb.id).chunk_count == before:
                if client.knowledge_bases.job(job.job_id).status == "completed":
                    break
            backend.stop(signal.SIGKILL)
            backend.start()
        done = client.knowledge_bases.wait(job.job_id, timeout=120)
        assert (done.status, done.completed, done.failed) == ("completed", FILES, 0)
        for file in client.knowledge_bases.files(kb.id):
            if file.name == "first.txt":
                continue
            passages = list(client.knowledge_bases.documents(kb.id, file.id, limit=100))
            assert [one.position for one in passages] == list(range(file.chunk_count))
            told = "\n\n".join(one.content for one in passages)
            assert told == text_of(int(file.name.removesuffix(".txt")))
        number = chance.randrange(FILES)
        found = client.knowledge_bases.search(kb.id, query=f"{number}-37", search_type="keyword", limit=3).documents
        assert f"{number}-37" in found[0].content
        meant = client.knowledge_bases.search(kb.id, query="animals of the wood", search_type="semantic", limit=100)
        assert len({one.id for one in meant.documents}) == len(meant.documents) == 100
