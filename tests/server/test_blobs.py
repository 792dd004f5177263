"""Files in an S3-compatible store, through the SDK: attachments with ranges, knowledge bases, batches."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from agentflow.errors import UnavailableError
from agentflow_server.testing import LocalServer, local_server

from tests.s3 import CREDENTIALS, S3Server


@pytest.fixture
def settings(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> dict[str, Any]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return {
        "blobs_url": f"s3://files/{database}/{tmp_path.name}", "blobs_endpoint": s3.endpoint, "data": tmp_path,
    }  # fmt: skip


@pytest.fixture
def backend(settings: dict[str, Any]) -> Iterator[LocalServer]:
    with local_server(**settings) as server:
        yield server


def names(s3: S3Server, settings: dict[str, Any]) -> list[str]:
    prefix = settings["blobs_url"].removeprefix("s3://files/")
    return [name for name in s3.names() if name.startswith(prefix)]


def test_rooms_keep_their_files_there(backend: LocalServer, s3: S3Server, settings: dict[str, Any]) -> None:
    content = bytes(range(32, 127)) * 20_000
    with backend.client() as client:
        made = client.attachments.upload(content, name="a.txt")
        again = client.attachments.upload(content, name="b.txt")
        assert client.attachments.download(made.id).read() == content
        answer = httpx2.get(
            f"{backend.endpoint}/api/v1/attachments/{made.id}/content", headers={"Range": "bytes=1000000-1000009"}
        )
        assert (answer.status_code, answer.content) == (206, content[1_000_000:1_000_010])
        kb = client.knowledge_bases.create_from_files(name="K", files=[("k.txt", b"The whale is a mammal.")])
        assert kb.status == "completed"
        batch = client.batches.upload_file(b'"x"\n' * 5, name="x.jsonl", operation="summarize")
        assert client.batches.wait(batch.id, timeout=30).succeeded == 5
        rooms = lambda: sorted(name.split("/")[2] for name in names(s3, settings))  # noqa: E731
        deadline = time.monotonic() + 10
        while rooms() != ["attachments", "knowledge_bases"]:
            assert time.monotonic() < deadline, rooms()
            time.sleep(0.01)
        assert not [path for path in settings["data"].rglob("*") if path.is_file() and "blobs" in path.parts]
        client.attachments.delete(made.id)
        assert client.attachments.download(again.id).read() == content
        client.attachments.delete(again.id)
        client.knowledge_bases.delete(kb.id)
        assert names(s3, settings) == []


def test_a_store_that_is_away_refuses_files_and_nothing_else(settings: dict[str, Any]) -> None:
    settings["blobs_endpoint"] = "http://127.0.0.1:9"
    with local_server(**settings) as server:
        with server.client(max_retries=0) as client:
            with pytest.raises(UnavailableError) as raised:
                client.attachments.upload(b"x", name="a.txt")
            assert raised.value.status == 503
            assert raised.value.retry_after
            assert "127.0.0.1" not in str(raised.value)
            agent_id = client.agents.by_name("MainAgent").id
            assert client.agents.run(agent_id=agent_id, message="hi").text
            assert client.attachments.list().total == 0
