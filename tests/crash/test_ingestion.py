"""kill -9 while files are brought in: after a restart the job ends, every passage is there once, and is found."""

import random
import signal
import time
from pathlib import Path

import pytest
from agentflow import AgentFlow

from tests.crash.backend import Backend

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
