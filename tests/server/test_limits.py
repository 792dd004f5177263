"""Back-pressure: what is more than the server takes is refused with 503 and Retry-After, and it does not grow."""

import http.client
import json
import socket
import threading
import tracemalloc
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
from agentflow_server.testing import LocalServer, local_server

from tests.waiting import eventually

MIB = 1024 * 1024


def refused(answer: httpx2.Response, told: str) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    error = answer.json()["error"]
    assert error["code"] == "unavailable"
    assert told in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]


@contextmanager
def half_sent(
    server: LocalServer, path: str, kind: str, start: bytes, length: int
) -> Generator[http.client.HTTPConnection]:
    """A request whose body does not come to its end."""
    connection = http.client.HTTPConnection(server.endpoint.removeprefix("http://"))
    connection.putrequest("POST", path)
    connection.putheader("Content-Type", kind)
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    connection.send(start)
    try:
        yield connection
    finally:
        connection.close()


def test_queued_runs() -> None:
    """Of twelve that come at once, one works, four times as many wait, the others are refused and leave nothing."""
    with local_server(max_concurrent_runs=1) as server, server.client(timeout=30) as client:
        agent_id = client.agents.by_name("MainAgent").id
        url = f"{server.endpoint}/api/v1/agent/{agent_id}/chat"
        told = threading.Barrier(13)

        def start(number: int) -> str | None:
            body = {"message": "[[words 1000]] [[delay 10]]", "conversation_id": f"c{number}"}
            with httpx2.stream("POST", url, json=body, timeout=30) as answer:
                if answer.status_code == 503:
                    answer.read()
                    refused(answer, "waiting for their turn")
                told.wait(30)
                return answer.headers.get("x-run-id")

        with ThreadPoolExecutor(12) as pool:
            answers = [pool.submit(start, number) for number in range(12)]
            told.wait(30)
            taken = [run_id for answer in answers if (run_id := answer.result())]
        runs = [client.runs.retrieve(run_id) for run_id in taken]
        assert sorted(run.status for run in runs) == ["queued"] * 4 + ["running"]
        assert client.conversations.list().total == 5
        working, *queued = sorted(runs, key=lambda run: run.status != "running")
        client.cancellations.cancel_run(queued[0].id)
        eventually(lambda: client.runs.retrieve(queued[0].id).status == "cancelled")  # it needs no free place
        assert client.runs.retrieve(working.id).status == "running"
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda run: client.conversations.delete(run.conversation_id), runs))
        eventually(lambda: httpx2.post(url, json={"message": "hi", "stream": False}).status_code == 200)


def test_open_streams_give_their_places_back() -> None:
    with local_server(max_streams=2) as server, server.client(max_retries=0) as client:
        agent_id = client.agents.by_name("MainAgent").id
        message = {"message": "[[words 300]] [[delay 10]]"}
        url = f"{server.endpoint}/api/v1/agent/{agent_id}/chat"
        with httpx2.stream("POST", url, json=message) as first, httpx2.stream("POST", url, json=message) as second:
            assert (first.status_code, second.status_code) == (200, 200)
            refused(httpx2.post(url, json=message), "2 event streams")
            assert client.agents.run(agent_id=agent_id, message="hi").text, "who does not stream is served"

        def again() -> bool:
            with httpx2.stream("POST", url, json={"message": "hi"}) as third:
                return third.status_code == 200

        eventually(again)


def test_requests_under_way() -> None:
    with local_server(max_requests=3) as server:
        url = f"{server.endpoint}/api/v1/agents"
        kind = "application/json"
        with (
            half_sent(server, "/api/v1/agents", kind, b"{", 100),
            half_sent(server, "/api/v1/agents", kind, b"{", 100),
        ):
            with half_sent(server, "/api/v1/agents", kind, b"{", 100):
                eventually(lambda: httpx2.get(url).status_code == 503)
                refused(httpx2.get(url), "3 requests")
                assert httpx2.get(f"{server.endpoint}/health").status_code == 200, "probes are let in"
                assert httpx2.get(f"{server.endpoint}/ready").status_code == 200
            eventually(lambda: httpx2.get(url).status_code == 200)


def test_bodies_in_memory() -> None:
    """Bodies that are held count together; one that announces no length counts as it comes."""
    with local_server(max_bodies_bytes=2 * MIB) as server:
        url, kind = f"{server.endpoint}/api/v1/agents", "application/json"
        body = b" " * (MIB + 1)
        with half_sent(server, "/api/v1/agents", kind, body, len(body) + 10):

            def chunks() -> Iterator[bytes]:
                for _ in range(8):
                    yield b" " * (MIB // 4)

            eventually(lambda: httpx2.post(url, content=body, headers={"Content-Type": kind}).status_code == 503)
            refused(httpx2.post(url, content=body, headers={"Content-Type": kind}), "bytes of requests")
            refused(httpx2.post(url, content=chunks(), headers={"Content-Type": kind}), "bytes of requests")
            assert httpx2.post(url, content=b"{}", headers={"Content-Type": kind}).status_code == 422
        eventually(lambda: httpx2.post(url, content=body, headers={"Content-Type": kind}).status_code != 503)


def test_uploads() -> None:
    kind = "multipart/form-data; boundary=b"
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello'
    with local_server(max_uploads=2) as server, server.client(max_retries=0) as client:
        path = "/api/v1/attachments"
        with half_sent(server, path, kind, start, 1000), half_sent(server, path, kind, start, 1000):
            url, whole = f"{server.endpoint}{path}", start + b"\r\n--b--\r\n"
            send = lambda: httpx2.post(url, content=whole, headers={"Content-Type": kind})  # noqa: E731
            eventually(lambda: send().status_code == 503)
            refused(send(), "2 uploads")
            assert client.attachments.list().limit, "other requests are served"
        eventually(lambda: send().status_code == 201)


def test_many_uploads_at_once_do_not_grow_the_server() -> None:
    """Sixteen files of 4 MiB at once: what is held of them is a fraction of what is sent."""
    content = b"x" * (4 * MIB)

    def parts() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n\x89PNG\r\n\x1a\n'
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]
        yield b"\r\n--b--\r\n"

    with local_server() as server:
        url, headers = f"{server.endpoint}/api/v1/attachments", {"Content-Type": "multipart/form-data; boundary=b"}
        httpx2.post(url, content=parts(), headers=headers)
        tracemalloc.start()
        try:
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(lambda _: httpx2.post(url, content=parts(), headers=headers), range(16)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert {answer.status_code for answer in answers} == {422}
        assert peak < 24 * MIB, f"{peak / MIB:.1f} MiB for 64 MiB of files, clients and server together"


TALKATIVE = """
import asyncio

from agentflow_server.definitions import ToolContext, tool


@tool(agent="MainAgent", timeout=60)
async def recite(context: ToolContext) -> str:
    \"\"\"Recite at length.\"\"\"
    for line in range(160):
        context.progress(f"{line} " + "x" * 100_000)
        await asyncio.sleep(0.002)
    return "done"
"""


def test_a_reader_that_does_not_read(tmp_path: Path) -> None:
    """A stream of 16 MB that nobody reads holds a small part of it; read later, it is whole and in order."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "tools.py").write_text(TALKATIVE)
    with local_server(app=tmp_path / "app", data=tmp_path / "data") as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        body = json.dumps({"message": "[[tool recite {}]] [[say done]]", "verbose": True, "conversation_id": "slow"})
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", int(server.endpoint.rsplit(":", 1)[1])))
            tracemalloc.start()
            try:
                connection.sendall(
                    f"POST /api/v1/agent/{agent_id}/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                messages = f"{server.endpoint}/api/v1/conversations/slow/messages"
                eventually(lambda: httpx2.get(messages).json().get("total") == 2)
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert held < 6 * MIB, f"{held / MIB:.1f} MiB"
            with connection.makefile("rb") as stream:
                events = [json.loads(line[6:]) for line in stream if line.startswith(b"data: ")]
    seqs = [event["seq"] for event in events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    told = [event["content"]["progress"] for event in events if event["type"] == "tool_progress"]
    assert [int(message.split()[0]) for message in told] == list(range(160))
    assert events[-1]["type"] == "end"
