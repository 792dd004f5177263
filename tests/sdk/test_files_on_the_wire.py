"""Files up and down over wires good and bad: what is sent is what is there, and a broken download is taken up again."""

import asyncio
import hashlib
import io
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow, AsyncAgentFlow
from agentflow._sync.downloads import Download
from agentflow.errors import AgentFlowError, ConfigurationError, DecodeError, NotFoundError, StreamInterruptedError
from agentflow.resources.downloads import AsyncDownload
from agentflow.transport.request import Request
from agentflow.transport.uploads import FilePart, FileSource, Multipart
from python_multipart.multipart import parse_options_header

from tests.sdk.wire import Peer, Received, answer, wire

CONTENT = bytes(range(256)) * 4096
OK = b'{"ok": true}'
Send = Callable[..., None]
Save = Callable[..., bytes]


def sync_send(endpoint: str, upload: Multipart) -> None:
    with AgentFlow(endpoint=endpoint, max_retries=2) as client:
        client._transport.raw(Request("POST", "/files", upload=upload, repeatable=True))


def async_send(endpoint: str, upload: Multipart) -> None:
    async def call() -> None:
        async with AsyncAgentFlow(endpoint=endpoint, max_retries=2) as client:
            await client._transport.raw(Request("POST", "/files", upload=upload, repeatable=True))

    asyncio.run(call())


def sync_save(endpoint: str, path: Path, **options: Any) -> bytes:
    with AgentFlow(endpoint=endpoint, max_retries=0) as client:
        return Download(client._transport, "/file").save(path, **options).read_bytes()


def async_save(endpoint: str, path: Path, **options: Any) -> bytes:
    async def call() -> Path:
        async with AsyncAgentFlow(endpoint=endpoint, max_retries=0) as client:
            return await AsyncDownload(client._transport, "/file").save(path, **options)

    return asyncio.run(call()).read_bytes()


sent = pytest.mark.parametrize("send", [sync_send, async_send])
saved = pytest.mark.parametrize("save", [sync_save, async_save])


def form(request: Received) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a form, taken apart without the code under test."""
    _, options = parse_options_header(request.headers["content-type"])
    boundary = b"--" + options[b"boundary"]
    pieces = request.body.split(boundary)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    parts: list[tuple[dict[str, str], bytes]] = []
    for piece in pieces[1:-1]:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        parts.append((headers, body.removesuffix(b"\r\n")))
    return parts


@sent
def test_a_form_carries_what_was_given(send: Send, tmp_path: Path) -> None:
    path = tmp_path / "größe.csv"
    path.write_bytes(CONTENT)
    steps: list[tuple[int, int | None]] = []
    with path.open("rb") as opened:
        opened.seek(3)
        upload = Multipart(
            [FilePart("a", CONTENT, 'x".bin'), FilePart("b", path), FilePart("b", opened, media_type="text/x")],
            {"name": "Heron", "left_out": None},
            lambda done, total: steps.append((done, total)),
        )
        with wire([answer(OK)]) as server:
            send(server.endpoint, upload)
    request = server.requests[0]
    (name, text), (first, a), (second, b), (third, c) = form(request)
    assert (name["Content-Disposition"], text) == ('form-data; name="name"', b"Heron")
    assert first["Content-Disposition"] == 'form-data; name="a"; filename="x%22.bin"'
    assert second["Content-Disposition"].endswith('filename="größe.csv"')
    assert (second["Content-Type"], third["Content-Type"]) == ("text/csv", "text/x")
    assert (a, b, c) == (CONTENT, CONTENT, CONTENT[3:])
    assert int(request.headers["content-length"]) == len(request.body) == upload.length
    assert steps[-1] == (upload.length, upload.length)
    assert steps == sorted(steps)


@sent
def test_a_form_is_sent_again_from_its_beginning(send: Send) -> None:
    busy = answer(b"{}", status="503 X", headers="Retry-After: 0\r\n")
    with wire([busy, answer(OK)]) as server:
        send(server.endpoint, Multipart([FilePart("file", io.BytesIO(CONTENT))]))
    assert [form(request)[0][1] for request in server.requests] == [CONTENT, CONTENT]


@sent
def test_what_cannot_be_read_twice_is_sent_once(send: Send) -> None:
    class Pipe(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            return b""

    upload = Multipart([FilePart("file", Pipe())])
    assert upload.length is None
    busy = answer(b"{}", status="503 X", headers="Retry-After: 0\r\n")
    with wire([busy, answer(OK)]) as server, pytest.raises(AgentFlowError):
        send(server.endpoint, upload)
    assert len(server.requests) == 1


@pytest.mark.parametrize("source", [io.StringIO("text"), 7, Path("/")], ids=["text", "number", "folder"])
def test_what_is_no_file_is_refused(source: FileSource) -> None:
    with pytest.raises(ConfigurationError):
        Multipart([FilePart("file", source)])


def served(
    content: bytes = CONTENT, *, cut_at: int | None = None, etag: str = '"v1"', ranges: bool = True, digest: bool = True
) -> Callable[[Peer, Received], None]:
    """A server of one file; it hangs up after `cut_at` bytes of an answer."""

    def script(peer: Peer, request: Received) -> None:
        start = 0
        asked = request.headers.get("range")
        if ranges and asked and request.headers.get("if-range") == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        rest = content[start:]
        status = "206 Partial Content" if start else "200 OK"
        sum_ = b64encode(hashlib.sha256(CONTENT).digest()).decode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(rest)}\r\nConnection: close\r\n"
            f"ETag: {etag}\r\n" + (f"Repr-Digest: sha-256=:{sum_}:\r\n" if digest else "")
        )
        if start:
            head += f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}\r\n"
        peer.send(head.encode() + b"\r\n" + (rest if cut_at is None else rest[:cut_at]))

    return script


@saved
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_was(save: Save, ranges: bool, tmp_path: Path) -> None:
    steps: list[int] = []
    with wire([served(cut_at=300_000), served(cut_at=0), served(ranges=ranges)]) as server:
        found = save(server.endpoint, tmp_path / "file", progress=lambda done, _: steps.append(done))
    assert found == CONTENT
    assert steps == sorted(set(steps))
    assert steps[-1] == len(CONTENT)
    assert server.requests[-1].headers["range"] == "bytes=300000-"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@saved
def test_another_call_goes_on_with_what_is_there(save: Save, tmp_path: Path) -> None:
    gone = answer(b"{}", status="404 Not Found")
    with wire([served(cut_at=300_000), gone, served(), served()]) as server:
        with pytest.raises(NotFoundError):
            save(server.endpoint, tmp_path / "file")
        assert not (tmp_path / "file").exists()
        assert save(server.endpoint, tmp_path / "file") == CONTENT
    assert [request.headers.get("range") for request in server.requests] == [None, "bytes=300000-"] * 2


@saved
def test_two_versions_are_never_mixed(save: Save, tmp_path: Path) -> None:
    with wire([served(cut_at=300_000), served(CONTENT[::-1], etag='"v2"', digest=False)]) as server:
        with pytest.raises(StreamInterruptedError, match="changed"):
            save(server.endpoint, tmp_path / "file")
        assert save(server.endpoint, tmp_path / "file") == CONTENT[::-1]


@saved
def test_damage_is_noticed_and_not_kept(save: Save, tmp_path: Path) -> None:
    with wire([served(CONTENT[:-1] + b"?")]) as server, pytest.raises(DecodeError, match="damaged"):
        save(server.endpoint, tmp_path / "file")
    assert not list(tmp_path.iterdir())


@saved
def test_an_empty_file(save: Save, tmp_path: Path) -> None:
    with wire([served(b"", digest=False)]) as server:
        assert save(server.endpoint, tmp_path / "file") == b""


def test_without_a_version_a_download_is_not_taken_up_again(tmp_path: Path) -> None:
    with wire([served(cut_at=10, etag='W/"v1"')]) as server, pytest.raises(StreamInterruptedError, match="10 bytes"):
        sync_save(server.endpoint, tmp_path / "file")
    assert not list(tmp_path.iterdir())
