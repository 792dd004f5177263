"""Attachments: stored, examined, given out, forgotten. Called by routes, `contribute`, and runs for their images."""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from agentflow.errors import (
    APIError,
    NotFoundError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
    ValidationError,
)
from agentflow.types.attachments import Attachment, AttachmentPage

from agentflow_server.http.forms import clean_name
from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.ids import new_id
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.attachments import sniff, store
from agentflow_server.resources.attachments.store import AttachmentRecord
from agentflow_server.retrieval.parse import ParseError, Parser
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.blobs import BlobRef, BlobStorage, Incoming
from agentflow_server.storage.idempotency import once

REF = "attachment:"
_EVERY = 1_000_000
_KEPT_IMAGES = 64 * 1024 * 1024


class _Facts(NamedTuple):
    """What a file turned out to be."""

    media_type: str
    kind: str
    width: int | None = None
    height: int | None = None
    text: str | None = None


class AttachmentsService:
    """The attachments room."""

    def __init__(self, db: Database, clock: Clock, settings: Settings, blobs: BlobStorage, parser: Parser) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._blobs = blobs.room("attachments", store.uses_digest)
        self._parser = parser
        self._images: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def upload(
        self, caller: Caller, pieces: AsyncIterable[bytes], *, name: str | None, declared: str, key: str | None
    ) -> Attachment:
        """Take a file; a second request with the same idempotency key gives the attachment of the first.

        Raises:
            PayloadTooLargeError, UnsupportedMediaTypeError, ValidationError: it is not taken; nothing of it is kept.
        """
        name = clean_name(name)
        async with self._blobs.receive(pieces, max_bytes=self._settings.max_attachment_bytes) as incoming:
            facts = await self._examine(incoming, name, declared)
            blob = await self._blobs.keep(caller.tenant, incoming)
        record = AttachmentRecord(
            new_id(), caller.user_id, name, facts.media_type, facts.kind, blob.size, blob.digest, facts.width,
            facts.height, None if facts.text is None else len(facts.text), self._clock.micros(),
        )  # fmt: skip
        needed, db = False, self._db.tenant(caller.tenant)
        try:
            found = await db.write(lambda tx: self._insert(tx, record, blob, facts.text, key))
            needed = found.id == record.id and not blob.known
            return attachment_of(found)
        finally:
            if not needed:
                await asyncio.shield(self._blobs.drop(caller.tenant, [blob]))

    async def _examine(self, incoming: Incoming, name: str, declared: str) -> _Facts:
        if incoming.size == 0:
            raise _invalid("the file is empty")
        image = await asyncio.to_thread(sniff.image_of, incoming.path, self._settings.max_image_pixels)
        if image is not None:
            facts = _Facts(sniff.media_type_of(declared, image.media_type), "image", image.width, image.height)
        else:
            facts = await self._document(incoming.path, name, declared)
        patterns = [pattern.strip() for pattern in self._settings.attachment_types.split(",")]
        if not any(fnmatch(facts.media_type, pattern) for pattern in patterns):
            raise UnsupportedMediaTypeError(
                f"files of type {facts.media_type} are not taken; accepted are {', '.join(patterns)}"
            )
        return facts

    async def _document(self, path: Path, name: str, declared: str) -> _Facts:
        try:
            document = await self._parser.parse(path, name)
        except ParseError as error:
            raise await self._refusal(error, path) from None
        return _Facts(sniff.media_type_of(declared, document.media_type), "document", text=document.text())

    async def _refusal(self, error: ParseError, path: Path) -> APIError:
        if error.code == "too_large":
            return PayloadTooLargeError(f"file: {error.message}")
        if error.code == "unsupported":
            looks = await asyncio.to_thread(sniff.guess, path)
            return UnsupportedMediaTypeError(f"{error.message} and images (its content is {looks})")
        return _invalid(error.message)

    def _insert(
        self, tx: Tx, record: AttachmentRecord, blob: BlobRef, text: str | None, key: str | None
    ) -> AttachmentRecord:
        """Write the attachment, which uses its blob, or find the one this key has led to."""
        kept = None if text is None else text[: self._settings.attachment_text_chars]

        def insert() -> str:
            self._blobs.use(tx, blob)
            store.insert(tx, record, kept)
            return record.id

        body = f"{record.name}\n{record.media_type}\n{record.digest}"
        now = record.created_at
        found_id = once(tx, user_id=record.user_id, key=key, body=body, now=now, work=insert)
        found = store.by_id(tx, found_id, record.user_id)
        if found is None:
            raise _unknown(found_id)
        return found

    async def list(self, caller: Caller, *, limit: int, offset: int) -> AttachmentPage:
        """A page of the caller's attachments, newest first."""
        records, total = await self._db.tenant(caller.tenant).read(
            lambda tx: store.page(tx, caller.user_id, limit=limit, offset=offset)
        )
        found = [attachment_of(record) for record in records]
        return AttachmentPage(attachments=found, total=total, limit=limit, offset=offset)

    async def record(self, tenant: str, user_id: str, attachment_id: str) -> AttachmentRecord:
        """The stored attachment.

        Raises:
            NotFoundError: the user has no such attachment.
        """
        found = await self._db.tenant(tenant).read(lambda tx: store.by_id(tx, attachment_id, user_id))
        if found is None:
            raise _unknown(attachment_id)
        return found

    async def retrieve(self, caller: Caller, attachment_id: str) -> Attachment:
        return attachment_of(await self.record(caller.tenant, caller.user_id, attachment_id))

    async def content(self, caller: Caller, attachment_id: str) -> AttachmentRecord:
        """An attachment whose bytes are there.

        Raises:
            NotFoundError: the caller has none, or its bytes are gone.
        """
        found = await self.record(caller.tenant, caller.user_id, attachment_id)
        if not await self._blobs.has(caller.tenant, found.digest):
            raise _unknown(attachment_id)
        return found

    def read(self, caller: Caller, record: AttachmentRecord, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes of an attachment from `start` up to `end`."""
        return self._blobs.read(caller.tenant, record.digest, start=start, end=end)

    async def text(self, tenant: str, record: AttachmentRecord) -> str:
        """The text of a document, as much of it as a run is given; a note says when there is more."""
        text = await self._db.tenant(tenant).read(lambda tx: store.text_of(tx, record.id))
        whole = record.text_chars or 0
        return text if len(text) >= whole else f"{text}\n[cut: the first {len(text):,} of {whole:,} characters]"

    async def image(self, tenant: str, user_id: str, ref: str) -> str | None:
        """The bytes of an image in base64, by the reference in a stored message; None if it was deleted."""
        attachment_id = ref.removeprefix(REF)
        record = await self._db.tenant(tenant).read(lambda tx: store.by_id(tx, attachment_id, user_id))
        if record is None:
            return None
        key = (tenant, record.digest)
        if (known := self._images.get(key)) is not None:
            self._images.move_to_end(key)
            return known
        try:
            pieces = [piece async for piece in self._blobs.read(tenant, record.digest)]
        except FileNotFoundError:
            return None
        self._images[key] = encoded = base64.b64encode(b"".join(pieces)).decode()
        while len(self._images) > 1 and sum(map(len, self._images.values())) > _KEPT_IMAGES:
            self._images.popitem(last=False)
        return encoded

    async def delete(self, caller: Caller, attachment_id: str) -> None:
        """Remove an attachment, and its bytes if nothing else uses them.

        Raises:
            NotFoundError: the caller has none.
        """
        await self._forget(caller, [await self.record(caller.tenant, caller.user_id, attachment_id)])

    async def _forget(self, caller: Caller, records: "list[AttachmentRecord]") -> None:
        def unit(tx: Tx) -> None:
            store.delete(tx, records)
            for digest in {record.digest for record in records}:
                self._blobs.release(tx, digest)

        await self._db.tenant(caller.tenant).write(unit)
        await self._blobs.clear(caller.tenant)
        for record in records:
            self._images.pop((caller.tenant, record.digest), None)

    async def export_user(self, caller: Caller) -> "list[dict[str, Any]]":
        """What is known of every attachment of the caller, as JSON values; `/content` gives the bytes."""
        page = await self.list(caller, limit=_EVERY, offset=0)
        return [attachment.model_dump(mode="json") for attachment in page.attachments]

    async def erase_user(self, caller: Caller) -> int:
        """Delete every attachment of the caller; returns how many there were."""
        records, total = await self._db.tenant(caller.tenant).read(
            lambda tx: store.page(tx, caller.user_id, limit=_EVERY, offset=0)
        )
        await self._forget(caller, records)
        return total


def attachment_of(record: AttachmentRecord) -> Attachment:
    """An attachment as the wire shows it."""
    return Attachment(
        id=record.id,
        name=record.name,
        media_type=record.media_type,
        kind=record.kind,
        size=record.size,
        sha256=record.digest,
        width=record.width,
        height=record.height,
        text_chars=record.text_chars,
        created_at=to_datetime(record.created_at),
    )


def _unknown(attachment_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no attachment {attachment_id!r}", hint="client.attachments.list() shows those there are."
    )


def _invalid(message: str) -> ValidationError:
    return ValidationError(f"file: {message}", details=[{"field": "file", "message": message}])
