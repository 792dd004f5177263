"""Attachments through the SDK: up, down, in a run, and what is refused. What a model gets is what was asked for."""

import base64
import hashlib
import io
import json
import random
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from agentflow import AgentFlow
from agentflow.cli.main import root
from agentflow.errors import (
    AgentFlowError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
    ValidationError,
)
from agentflow.transport.request import Request
from agentflow.types.attachments import Attachment
from agentflow_server.gateway.messages import DocumentPart, ImagePart, TextPart, UserMessage
from agentflow_server.testing import LocalServer, ScriptedModel, local_server
from click.testing import CliRunner

from tests.server.retrieval.files import pdf, sheet, word, xml_bomb, zip_bomb

MIB = 1024 * 1024
_PART = b"--b\r\nContent-Disposition: form-data; %s\r\n\r\n"


def png(width: int = 3, height: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x80" * 3 * width for _ in range(height)) if width * height < 10_000 else b""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def jpeg(width: int, height: int) -> bytes:
    """The segments of a photograph: a large profile in front of the frame header."""
    exif = b"\xff\xe1" + struct.pack(">H", 60_002) + b"\0" * 60_000
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\0" * 9
    return b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 9 + exif + frame + b"\xff\xda" + b"\0" * 100


@pytest.fixture(scope="module")
def model() -> ScriptedModel:
    return ScriptedModel(["ok"])


@pytest.fixture(scope="module")
def backend(model: ScriptedModel) -> Iterator[LocalServer]:
    with local_server(
        providers={"test": model}, max_attachment_bytes=8 * MIB, attachment_text_chars=1000, max_body_bytes=MIB
    ) as server:
        yield server


@pytest.fixture
def files(backend: LocalServer) -> Iterator[AgentFlow]:
    with backend.client(max_retries=0) as client:
        yield client


def run(client: AgentFlow, message: str = "Look", conversation_id: str | None = None, **options: Any) -> Any:
    agent_id = client.agents.by_name("MainAgent").id
    chosen = {"model": "test/any", **options}
    return client.agents.run(agent_id=agent_id, message=message, conversation_id=conversation_id, options=chosen)


def received(model: ScriptedModel) -> list[UserMessage]:
    return [message for message in model.requests[-1].messages if isinstance(message, UserMessage)]


def blobs(server: LocalServer) -> list[Path]:
    return [path for path in (server.data / "blobs").rglob("*") if path.is_file()]


def test_up_listed_down_and_gone(files: AgentFlow, backend: LocalServer, tmp_path: Path) -> None:
    before = len(blobs(backend))
    content = b"caf\xc3\xa9 " * 1000
    path = tmp_path / "Notizen größer.txt"
    path.write_bytes(content)
    steps: list[tuple[int, int | None]] = []
    made = files.attachments.upload(path, progress=lambda done, total: steps.append((done, total)))
    assert (made.name, made.media_type, made.kind, made.size) == (path.name, "text/plain", "document", len(content))
    assert made.sha256 == hashlib.sha256(content).hexdigest()
    assert made.text_chars == len(content.decode().strip())
    assert steps[-1][0] == steps[-1][1]
    assert files.attachments.list(limit=1).items[0].model_dump() == made.model_dump()
    assert files.attachments.retrieve(made.id).model_dump() == made.model_dump()
    with path.open("rb") as opened:
        again = files.attachments.upload(opened)
    third = files.attachments.upload(content, name="x.txt")
    assert len(blobs(backend)) == before + 1, "the same bytes are kept once"
    assert files.attachments.download(made.id).read() == content
    assert files.attachments.download(made.id).save(tmp_path / "copy").read_bytes() == content
    assert b"".join(files.attachments.download(made.id)) == content
    for one in (made, again, third):
        assert len(blobs(backend)) == before + 1
        files.attachments.delete(one.id)
    assert len(blobs(backend)) == before
    with pytest.raises(NotFoundError):
        files.attachments.retrieve(made.id)
    with pytest.raises(NotFoundError):
        files.attachments.download(made.id).read()
    with pytest.raises(NotFoundError):
        files.attachments.delete(made.id)


@pytest.mark.anyio
async def test_asynchronously(backend: LocalServer, tmp_path: Path) -> None:
    async with backend.async_client() as client:
        made = await client.attachments.upload(io.BytesIO(b"hello"), name="a.txt")
        assert await client.attachments.download(made.id).read() == b"hello"
        saved = await client.attachments.download(made.id).save(tmp_path / "a.txt")
        assert saved == tmp_path / "a.txt"
        assert b"".join([piece async for piece in client.attachments.download(made.id)]) == b"hello"
        assert (await client.attachments.list(limit=1)).items[0].id == made.id
        await client.attachments.delete(made.id)


def test_a_large_file_is_never_held_whole(files: AgentFlow, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png() + b"\0" * (7 * MIB))
    tracemalloc.start()
    made = files.attachments.upload(path)
    files.attachments.download(made.id).save(tmp_path / "copy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * MIB, "client and server together"
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    files.attachments.delete(made.id)


def test_ranges(files: AgentFlow, backend: LocalServer) -> None:
    made = files.attachments.upload(b"0123456789", name="a.txt")
    url = f"{backend.endpoint}/api/v1/attachments/{made.id}/content"

    def get(**headers: str) -> httpx2.Response:
        return httpx2.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})

    whole = get()
    etag = f'"{made.sha256}"'
    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, b"0123456789", etag)
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''a.txt"
    assert whole.headers["x-content-type-options"] == "nosniff"
    for asked, content in (("2-4", b"234"), ("7-", b"789"), ("-3", b"789"), ("8-99", b"89"), ("-99", b"0123456789")):
        part = get(Range=f"bytes={asked}", If_Range=etag)
        assert (part.status_code, part.content) == (206, content)
        assert part.headers["content-length"] == str(len(content))
    assert get(Range="bytes=2-4").headers["content-range"] == "bytes 2-4/10"
    for asked in ("10-", "5-2", "-0"):
        assert get(Range=f"bytes={asked}").status_code == 416
    for headers in ({"Range": "bytes=0-1,3-4"}, {"Range": "lines=1-2"}, {"Range": "bytes=0-1", "If_Range": '"other"'}):
        assert get(**headers).status_code == 200


def test_a_retried_upload_makes_one_attachment(files: AgentFlow) -> None:
    first = files.attachments.upload(b"once", name="a.txt", idempotency_key="k")
    assert files.attachments.upload(b"once", name="a.txt", idempotency_key="k").id == first.id
    with pytest.raises(ConflictError):
        files.attachments.upload(b"twice", name="a.txt", idempotency_key="k")
    files.attachments.delete(first.id)


@pytest.mark.parametrize(
    ("name", "make", "media_type", "text"),
    [
        ("report.pdf", lambda: pdf([[(12, "Rainfall was high.")]]), "application/pdf", "Rainfall"),
        ("report.docx", word, "application/vnd.openxmlformats-officedocument.wordprocessingml.document", None),
        ("report.xlsx", sheet, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", None),
        (
            "page.html",
            lambda: b"<html><body><p>Rainfall</p><script>x()</script></body></html>",
            "text/html",
            "Rainfall",
        ),
        ("data.json", lambda: b'{"rain": 3}', "application/json", '"rain"'),
    ],
)
def test_documents_become_text(
    files: AgentFlow, model: ScriptedModel, name: str, make: Callable[[], bytes], media_type: str, text: str | None
) -> None:
    made = files.attachments.upload(make(), name=name)
    assert (made.media_type, made.kind) == (media_type, "document")
    run(files, attachment_ids=[made.id])
    document, said = received(model)[-1].parts
    assert isinstance(document, DocumentPart)
    assert document.name == name
    assert document.text.strip()
    assert text is None or text in document.text
    assert "x()" not in document.text
    assert said == TextPart(text="Look")
    files.attachments.delete(made.id)


def test_a_document_is_bounded_and_stays_with_its_turn(files: AgentFlow, model: ScriptedModel) -> None:
    made = files.attachments.upload(b"</document> " + b"word " * 1000, name='a"><b.txt')
    first = run(files, attachment_ids=[made.id, made.id])
    (document, _) = received(model)[-1].parts
    assert isinstance(document, DocumentPart)
    assert document.text.endswith("[cut: the first 1,000 of 5,011 characters]")
    assert document.rendered().count("</document>") == 1
    assert '<document name="a&quot;&gt;&lt;b.txt">' in document.rendered()
    files.attachments.delete(made.id)
    run(files, "And now?", first.conversation_id)
    assert received(model)[0].parts[0] == document
    detail = files.conversations.detail(first.conversation_id)
    assert [message.content for message in detail.messages if message.role == "user"] == ["Look", "And now?"]
    with pytest.raises(NotFoundError, match=made.id):
        run(files, attachment_ids=[made.id])


@pytest.mark.parametrize(
    ("data", "media_type", "size"),
    [
        (png(), "image/png", (3, 2)),
        (jpeg(640, 480), "image/jpeg", (640, 480)),
        (b"GIF89a" + struct.pack("<HH", 5, 7) + b"\0" * 20, "image/gif", (5, 7)),
        (b"RIFF\x28\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x0f\0\0" + b"\x07\0\0" + b"\0" * 8, "image/webp", (16, 8)),
    ],
    ids=["png", "jpeg", "gif", "webp"],
)
def test_images_are_seen(
    files: AgentFlow, model: ScriptedModel, data: bytes, media_type: str, size: tuple[int, int]
) -> None:
    made = files.attachments.upload(data, name="picture")
    assert (made.media_type, made.kind, (made.width, made.height)) == (media_type, "image", size)
    first = run(files, attachment_ids=[made.id], image_detail="low")
    image, _ = received(model)[-1].parts
    encoded = base64.b64encode(data).decode()
    assert image == ImagePart(media_type=media_type, data=encoded, detail="low")
    run(files, "Again", first.conversation_id)
    assert received(model)[0].parts[0] == image, "replayed with its bytes"
    stored = json.dumps(files.conversations.timeline(first.conversation_id).model_dump(mode="json"))
    assert encoded not in stored, "kept once, not in every turn"
    files.attachments.delete(made.id)
    run(files, "And now?", first.conversation_id)
    assert received(model)[0].parts[0] == TextPart(text="[an image that was attached here has been deleted]")


def test_a_model_that_is_known_not_to_see_is_not_asked(files: AgentFlow) -> None:
    made = files.attachments.upload(png(), name="a.png")
    with pytest.raises(ValidationError, match=r"a\.png is an image, and agentflow/scripted cannot see"):
        run(files, attachment_ids=[made.id], model="agentflow/scripted")


def test_how_many_a_run_takes(files: AgentFlow) -> None:
    made = [files.attachments.upload(b"text %d" % number, name="a.txt").id for number in range(11)]
    run(files, attachment_ids=made[:10])
    with pytest.raises(ValidationError, match="attachment_ids: 11 are too many"):
        run(files, attachment_ids=made)


@pytest.mark.parametrize(
    ("data", "name", "media_type", "error", "match"),
    [
        (b"", "a.txt", None, ValidationError, "empty"),
        (
            png(),
            "a.jpg",
            "image/jpeg",
            UnsupportedMediaTypeError,
            "declared as image/jpeg, but its content is image/png",
        ),
        (b"<html><body><p>Hello</p><script>", "a.png", "image/png", UnsupportedMediaTypeError, "declared as image/png"),
        (b"hello", "a.pdf", "application/pdf", UnsupportedMediaTypeError, "declared as application/pdf"),
        (png(), "a.txt", "text/plain", UnsupportedMediaTypeError, "its content is image/png"),
        (b"MZ\x90\0" + b"\0" * 60 + b"PE\0\0" * 30, "a.exe", None, UnsupportedMediaTypeError, "portable-executable"),
        (b"PK\x05\x06" + b"\0" * 18, "a.zip", "application/zip", AgentFlowError, "file"),
        (zip_bomb(), "a.docx", None, ValidationError, "unpacked"),
        (xml_bomb(), "a.docx", None, ValidationError, "entities"),
        (b"%PDF-1.7 not really", "a.pdf", None, ValidationError, "damaged"),
        (png(20_000, 20_000), "a.png", None, ValidationError, "20000 × 20000 pixels"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "a.png", None, ValidationError, "size cannot be read"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 9 + b"\xff", "a.jpg", None, ValidationError, "cannot be read"),
        (b"x" * (8 * MIB + 1), "a.txt", None, PayloadTooLargeError, "8388608"),
    ],
)
def test_what_is_refused_leaves_nothing(
    files: AgentFlow, backend: LocalServer, data: bytes, name: str, media_type: str | None, error: type, match: str
) -> None:
    before, total = blobs(backend), files.attachments.list().total
    with pytest.raises(error, match=match):
        files.attachments.upload(data, name=name, media_type=media_type)
    assert blobs(backend) == before
    assert files.attachments.list().total == total


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\report.txt", "report.txt"),
        ("a\0b\x1b[31m.txt", "ab[31m.txt"),
        ("‮txt.exe", "txt.exe"),
        ("..", "file"),
        ("", "file"),
        ("é" * 300 + ".txt", "é" * 196 + ".txt"),
        ("日本語.txt", "日本語.txt"),
    ],
)
def test_names_are_harmless(files: AgentFlow, backend: LocalServer, sent: str, kept: str) -> None:
    boundary = "b0undary"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{sent}"\r\n'
        f"Content-Type: text/plain\r\n\r\nhello {kept}\r\n--{boundary}--\r\n"
    )
    answer = httpx2.post(
        f"{backend.endpoint}/api/v1/attachments",
        content=body.encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    assert answer.status_code == 201, answer.text
    made = Attachment.model_validate(answer.json())
    assert made.name == kept
    assert all(re.fullmatch("[0-9a-f]{64}-[0-9a-f]{8}", path.name) for path in blobs(backend)), (
        "files are named by their content"
    )
    files.attachments.delete(made.id)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"", 415),
        ("multipart/form-data; boundary=b", b"nonsense", 400),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422),
        ("multipart/form-data; boundary=b", _PART % b'name="x"' + b"1\r\n--b--\r\n", 422),
        ("multipart/form-data; boundary=b", _PART % b'name="file"; filename="a"' + b"cut", 400),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X-Long: " + b"x" * 100_000, 400),
        ("application/json", b"x" * (2 * MIB), 413),
    ],
)  # fmt: skip
def test_forms_that_are_none(backend: LocalServer, kind: str, body: bytes, status: int) -> None:
    answer = httpx2.post(f"{backend.endpoint}/api/v1/attachments", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_other_users_see_nothing(tmp_path: Path) -> None:
    with local_server(data=tmp_path, dev_user_id="anna") as server, server.client() as client:
        made = client.attachments.upload(b"Anna's", name="a.txt")
    others: list[dict[str, Any]] = [{"dev_user_id": "bert"}, {"dev_user_id": "anna", "dev_tenant_name": "elsewhere"}]
    for other in others:
        with local_server(data=tmp_path, **other) as server, server.client() as client:
            assert client.attachments.list().total == 0
            agent_id = client.agents.by_name("MainAgent").id
            for call in (
                lambda client=client: client.attachments.retrieve(made.id),
                lambda client=client: client.attachments.download(made.id).read(),
                lambda client=client: client.attachments.delete(made.id),
                lambda client=client, agent_id=agent_id: client.agents.run(
                    agent_id=agent_id, message="x", options={"attachment_ids": [made.id]}
                ),
            ):
                with pytest.raises(NotFoundError):
                    call()
            own = client.attachments.upload(b"Anna's", name="b.txt")
            client.attachments.delete(own.id)
    with local_server(data=tmp_path, dev_user_id="anna") as server, server.client() as client:
        assert client.attachments.download(made.id).read() == b"Anna's"


def test_uploads_and_deletions_of_the_same_bytes_do_not_meet(backend: LocalServer) -> None:
    kept: list[tuple[str, bytes]] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        with backend.client() as client:
            for _ in range(8):
                content = b"shared %d" % chance.randrange(2)
                made = client.attachments.upload(content, name="a.txt")
                assert client.attachments.download(made.id).read() == content
                if chance.random() < 0.7:
                    client.attachments.delete(made.id)
                else:
                    kept.append((made.id, content))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with backend.client() as client:
        for attachment_id, content in kept:
            assert client.attachments.download(attachment_id).read() == content


def test_types_can_be_narrowed() -> None:
    with local_server(attachment_types="image/png, text/*") as server, server.client() as client:
        assert client.attachments.upload(png(), name="a.png").kind == "image"
        assert client.attachments.upload(b"x,y", name="a.csv").media_type == "text/csv"
        with pytest.raises(UnsupportedMediaTypeError, match="accepted are image/png, text/"):
            client.attachments.upload(jpeg(1, 1), name="a.jpg")


def test_the_command(backend: LocalServer, files: AgentFlow, tmp_path: Path) -> None:
    def agentflow(*arguments: str) -> str:
        done = CliRunner().invoke(root, [*arguments, "--endpoint", backend.endpoint])
        assert done.exit_code == 0, done.output
        return done.output

    path = tmp_path / "report.txt"
    path.write_text("The budget is 40,000 euros.")
    made = json.loads(agentflow("attachments", "upload", str(path), "--json"))[0]
    assert made["name"] == "report.txt"
    assert json.loads(agentflow("attachments", "list", "--json"))["attachments"][0]["id"] == made["id"]
    assert "report.txt" in agentflow("attachments", "show", made["id"])
    target = tmp_path / "copy.txt"
    agentflow("attachments", "download", made["id"], "-o", str(target))
    assert target.read_bytes() == path.read_bytes()
    told = agentflow("agents", "run", "MainAgent", "How large is the budget?", "--attach", str(path), "--no-stream")
    assert "40,000" in told
    agentflow("attachments", "delete", made["id"])
    with pytest.raises(NotFoundError):
        files.attachments.retrieve(made["id"])


def test_a_range_behind_the_end_is_said(files: AgentFlow) -> None:
    made = files.attachments.upload(b"abc", name="a.txt")
    behind = {"Range": "bytes=9-"}
    request = Request("GET", f"/api/v1/attachments/{made.id}/content", headers=behind, download=True)
    with pytest.raises(BadRequestError, match="outside the 3 bytes"):
        files._transport.raw(request)
