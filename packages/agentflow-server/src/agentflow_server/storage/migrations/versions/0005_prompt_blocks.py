"""Prompt blocks, attachments, and the blobs of every room."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def _text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=null)


def _big(name: str, *, null: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=null)


def upgrade() -> None:
    op.create_table(
        "prompt_blocks",
        _text("tenant"),
        _text("name"),
        _text("data"),
        _big("version"),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "name"),
    )
    op.create_table(
        "attachments",
        _text("tenant"),
        _text("id"),
        _text("user_id"),
        _text("name"),
        _text("media_type"),
        _text("kind"),
        _big("size"),
        _text("digest"),
        _big("width", null=True),
        _big("height", null=True),
        _big("text_chars", null=True),
        _big("created_at"),
        _text("text", null=True),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("attachments_user", "attachments", ["tenant", "user_id", "created_at"])
    op.create_index("attachments_digest", "attachments", ["tenant", "digest"])
    _blobs()


def _blobs() -> None:
    op.create_table(
        "blobs",
        _text("tenant"),
        _text("object"),
        _text("room"),
        _text("digest"),
        _big("size"),
        _text("state"),
        _big("due_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "object"),
    )
    stored, due = sa.text("state = 'stored'"), sa.text("due_at IS NOT NULL")
    op.create_index(
        "blobs_stored", "blobs", ["tenant", "room", "digest"], unique=True, sqlite_where=stored, postgresql_where=stored
    )
    op.create_index("blobs_due", "blobs", ["due_at"], sqlite_where=due, postgresql_where=due)


def downgrade() -> None:
    for table in ("blobs", "attachments", "prompt_blocks"):
        op.drop_table(table)
