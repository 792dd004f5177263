"""Attachments in the database. SQL of this room and nothing else; called by its service."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentflow_server.storage import Row, Tx

_COLUMNS = (
    "id, user_id, name, media_type, kind, size, digest, width, height, text_chars, created_at"
    " FROM attachments WHERE tenant = :tenant"
)


@dataclass(frozen=True, slots=True)
class AttachmentRecord:
    """An attachment as it is stored; `digest` names its bytes. The text of a document is read on its own."""

    id: str
    user_id: str
    name: str
    media_type: str
    kind: str
    size: int
    digest: str
    width: int | None
    height: int | None
    text_chars: int | None
    created_at: int


def _record(row: Row) -> AttachmentRecord:
    return AttachmentRecord(
        row["id"], row["user_id"], row["name"], row["media_type"], row["kind"], row["size"], row["digest"],
        row["width"], row["height"], row["text_chars"], row["created_at"],
    )  # fmt: skip


def insert(tx: Tx, attachment: AttachmentRecord, text: str | None) -> None:
    """Write a new attachment; that it uses its blob is counted before, by `use`."""
    tx.execute(
        "INSERT INTO attachments (tenant, id, user_id, name, media_type, kind, size, digest, width, height, text_chars,"
        " created_at, text) VALUES (:tenant, :id, :user, :name, :media_type, :kind, :size, :digest, :width, :height,"
        " :text_chars, :now, :text)",
        {
            "id": attachment.id, "user": attachment.user_id, "name": attachment.name,
            "media_type": attachment.media_type, "kind": attachment.kind, "size": attachment.size,
            "digest": attachment.digest, "width": attachment.width, "height": attachment.height,
            "text_chars": attachment.text_chars, "now": attachment.created_at, "text": text,
        },
    )  # fmt: skip


def by_id(tx: Tx, attachment_id: str, user_id: str) -> AttachmentRecord | None:
    row = tx.one(f"SELECT {_COLUMNS} AND id = :id AND user_id = :user", {"id": attachment_id, "user": user_id})
    return _record(row) if row else None


def text_of(tx: Tx, attachment_id: str) -> str:
    """The text of a document, as much of it as is kept."""
    row = tx.one("SELECT text FROM attachments WHERE tenant = :tenant AND id = :id", {"id": attachment_id})
    return (row["text"] if row else None) or ""


def page(tx: Tx, user_id: str, *, limit: int, offset: int) -> tuple[list[AttachmentRecord], int]:
    """A page of a user's attachments, newest first, and how many there are."""
    key = {"user": user_id, "limit": limit, "offset": offset}
    rows = tx.all(
        f"SELECT {_COLUMNS} AND user_id = :user ORDER BY created_at DESC, id DESC LIMIT :limit OFFSET :offset", key
    )
    total = tx.one("SELECT COUNT(*) AS n FROM attachments WHERE tenant = :tenant AND user_id = :user", key)
    return [_record(row) for row in rows], total["n"] if total else 0


def delete(tx: Tx, attachments: Sequence[AttachmentRecord]) -> None:
    """Remove attachments; what becomes of their blobs is decided elsewhere."""
    tx.executemany(
        "DELETE FROM attachments WHERE tenant = :tenant AND id = :id", [{"id": one.id} for one in attachments]
    )


def uses_digest(tx: Tx, digest: str) -> bool:
    """Whether an attachment of the tenant has these bytes."""
    found = "SELECT 1 AS ok FROM attachments WHERE tenant = :tenant AND digest = :digest LIMIT 1"
    return tx.one(found, {"digest": digest}) is not None
