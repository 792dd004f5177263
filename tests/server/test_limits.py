"""Back-pressure: what is more than the server takes is refused with 503 and Retry-After, and it does not grow."""

import asyncio
import http.client
import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest
from agentflow_server.testing import LocalServer, local_server

MIB = 1024 * 1024


def refused(answer: httpx2.Response, told: str) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    error = answer.json()["error"]
    assert error["code"] == "unavailable"
    assert told in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
        assert sorted(client.runs.retrieve(run_id).status for run_id in taken) == ["queued"] * 4 + ["running"]
        assert client.conversations.list().total == 5
        for conversation in client.conversations.list():
            client.conversations.delete(conversation.id)
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


@pytest.mark.anyio
async def test_a_reader_that_does_not_read() -> None:
    """A stream that nobody reads holds a bounded part of its events; read later, it has every one of them in order."""
    words = 40_000
    with local_server() as server:
        async with server.async_client(timeout=60) as client:
            agent_id = (await client.agents.by_name("MainAgent")).id
        host, port = server.endpoint.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
        body = json.dumps({"message": f"[[words {words}]]", "verbose": True, "conversation_id": "slow"}).encode()
        head = f"POST /api/v1/agent/{agent_id}/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        tracemalloc.start()
        try:
            writer.write(head.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

            def ended() -> bool:
                found = httpx2.get(f"{server.endpoint}/api/v1/conversations/slow/messages")
                return found.status_code == 200 and found.json()["total"] == 2

            await asyncio.to_thread(eventually, ended)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 16 * MIB, f"{held / MIB:.1f} MiB"
        seqs: list[int] = []
        text = ""
        async with asyncio.timeout(60):
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    seqs.append(int(line[4:]))
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    text += event["content"]["text"] if event["type"] == "text_delta" else ""
        writer.close()
        assert seqs == sorted(set(seqs))
        assert len(text.split()) == words
