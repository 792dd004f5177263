"""kill -9 while a form with files is on its way: what had arrived is gone after a restart, and nothing else is."""

import http.client
import signal
from pathlib import Path

from agentflow import AgentFlow

from tests.crash.backend import Backend
from tests.waiting import eventually

_PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s'


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_killed_upload_leaves_nothing(tmp_path: Path) -> None:
    with Backend(tmp_path) as backend, AgentFlow(endpoint=backend.endpoint) as client:
        kept = client.attachments.upload(b"kept", name="kept.txt")
        kb = client.knowledge_bases.create_from_files(name="Animals", files=[("first.txt", b"first")])
        assert kb.status == "completed"
        before = sorted(files(tmp_path / "blobs"))
        connection = http.client.HTTPConnection("127.0.0.1", backend.port)
        connection.putrequest("POST", f"/api/v1/knowledge-bases/{kb.id}/documents")
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders()
        connection.send(
            _PART % (b"whole.txt", b"a file that is stored") + b"\r\n" + _PART % (b"half.txt", b"x" * 300_000)
        )
        eventually(lambda: len(files(tmp_path / "blobs")) == len(before) + 1 and bool(files(tmp_path / "incoming")))
        backend.stop(signal.SIGKILL)
        connection.close()
        backend.start()
        eventually(lambda: sorted(files(tmp_path / "blobs")) == before)
        assert files(tmp_path / "incoming") == []
        assert client.attachments.download(kept.id).read() == b"kept"
        job = client.knowledge_bases.upload_documents(kb.id, files=[("whole.txt", b"a file that is stored")])
        assert client.knowledge_bases.wait(job.job_id, timeout=30).completed == 1
