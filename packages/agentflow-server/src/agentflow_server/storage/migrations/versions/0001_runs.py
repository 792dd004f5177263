"""Tenants, agents, conversations, runs, their event log and the job ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str, *, null: bool = False, default: str | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=null, server_default=default)


def _big(name: str, *, null: bool = False, default: int | None = None) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=null, server_default=None if default is None else str(default))


def upgrade() -> None:
    op.create_table("tenants", _text("tenant"), _big("created_at"), sa.PrimaryKeyConstraint("tenant"))
    op.create_table(
        "idempotency_keys",
        _text("tenant"),
        _text("user_id"),
        _text("key"),
        _text("body_hash"),
        _text("outcome"),
        _big("created_at"),
        sa.PrimaryKeyConstraint("tenant", "user_id", "key"),
    )
    _rooms()
    _log()
    op.create_table(
        "jobs",
        _text("tenant"),
        _text("id"),
        _text("queue"),
        _text("kind"),
        _text("status"),
        _big("priority", default=0),
        _big("run_at"),
        _text("lease_owner", null=True),
        _big("lease_until", default=0),
        _big("fence", default=0),
        _big("attempts", default=0),
        _big("max_attempts", default=5),
        _big("cancel_requested", default=0),
        _text("dedupe_key", null=True),
        _text("payload", default="{}"),
        _text("progress", null=True),
        _text("result", null=True),
        _text("error", null=True),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("jobs_due", "jobs", ["status", "queue", "priority", "run_at"])
    op.create_index("jobs_dedupe", "jobs", ["tenant", "kind", "dedupe_key"], unique=True)


def _rooms() -> None:
    op.create_table(
        "agents",
        _text("tenant"),
        _text("id"),
        _text("name"),
        _text("data"),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("agents_name", "agents", ["tenant", "name"], unique=True)
    op.create_table(
        "conversations",
        _text("tenant"),
        _text("id"),
        _text("user_id"),
        _text("agent_id"),
        _text("title", null=True),
        _text("source", null=True),
        _text("source_ref_id", null=True),
        _text("metadata", default="{}"),
        _big("message_count", default=0),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("conversations_user", "conversations", ["tenant", "user_id", "updated_at"])
    op.create_index("conversations_source", "conversations", ["tenant", "source_ref_id", "updated_at"])


def _log() -> None:
    op.create_table(
        "runs",
        _text("tenant"),
        _text("id"),
        _text("conversation_id"),
        _text("message_id"),
        _text("agent_id"),
        _text("user_id"),
        _text("call_id"),
        _text("root_call_id"),
        _text("parent_run_id", null=True),
        _text("status"),
        _text("body_hash"),
        _text("plan"),
        _text("result", null=True),
        _text("error", null=True),
        _big("first_seq"),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("runs_message", "runs", ["tenant", "conversation_id", "message_id"], unique=True)
    op.create_index("runs_active", "runs", ["tenant", "conversation_id", "status"])
    op.create_index("runs_call", "runs", ["tenant", "call_id"], unique=True)
    op.create_table(
        "event_heads",
        _text("tenant"),
        _text("conversation_id"),
        _big("next_seq"),
        sa.PrimaryKeyConstraint("tenant", "conversation_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        _text("tenant"),
        _text("conversation_id"),
        _big("seq"),
        _text("type"),
        _text("call_id"),
        _text("root_call_id"),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "conversation_id", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parts",
        _text("tenant"),
        _text("conversation_id"),
        _big("seq"),
        _text("kind"),
        _text("thread"),
        _text("run_id"),
        _text("message_id"),
        _text("call_id"),
        _text("parent_call_id", null=True),
        _text("root_call_id"),
        _big("visible"),
        _text("text"),
        _text("data"),
        _big("created_at"),
        sa.PrimaryKeyConstraint("tenant", "conversation_id", "seq"),
    )


def downgrade() -> None:
    for table in (
        "parts",
        "events",
        "event_heads",
        "runs",
        "conversations",
        "agents",
        "jobs",
        "idempotency_keys",
        "tenants",
    ):
        op.drop_table(table)
