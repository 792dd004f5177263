"""Memory: blocks, the vectors of their entries, and the conversations that are still to be consolidated."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False)


def _big(name: str, *, default: int | None = None) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=None if default is None else str(default))


def _blob(name: str) -> "sa.Column[bytes]":
    return sa.Column(name, sa.LargeBinary, nullable=False)


def upgrade() -> None:
    """The text comes last: what is asked for without it is read without its pages."""
    op.create_table(
        "memory_blocks",
        _text("tenant"),
        _text("user_id"),
        _text("agent_id"),
        _text("block_type"),
        _text("id"),
        _big("created_at"),
        _big("updated_at"),
        _text("content"),
        sa.PrimaryKeyConstraint("tenant", "user_id", "agent_id", "block_type"),
    )
    op.create_table(
        "memory_vectors",
        _text("tenant"),
        _text("user_id"),
        _text("embedder"),
        _big("seq"),
        _blob("keys"),
        _blob("vectors"),
        sa.PrimaryKeyConstraint("tenant", "user_id", "embedder", "seq"),
    )
    op.create_table(
        "memory_pending",
        _text("tenant"),
        _text("user_id"),
        _text("conversation_id"),
        _text("agent_id"),
        _big("upto"),
        _big("due_at"),
        _big("attempts", default=0),
        sa.PrimaryKeyConstraint("tenant", "user_id", "conversation_id"),
    )


def downgrade() -> None:
    for table in ("memory_pending", "memory_vectors", "memory_blocks"):
        op.drop_table(table)
