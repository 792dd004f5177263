"""Usage, budgets, model policy, provider keys, batches and files."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def _text(name: str, *, null: bool = False, default: str | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=null, server_default=default)


def _big(name: str, *, null: bool = False, default: int | None = None) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=null, server_default=None if default is None else str(default))


def upgrade() -> None:
    _usage()
    _models()
    _batches()


def _usage() -> None:
    op.create_table(
        "model_calls",
        _text("tenant"),
        _text("id"),
        _big("at"),
        _text("user_id"),
        _text("agent_id", null=True),
        _text("run_id", null=True),
        _text("purpose"),
        _text("provider"),
        _text("model"),
        _text("status"),
        _big("input_tokens"),
        _big("cached_input_tokens"),
        _big("output_tokens"),
        _big("reasoning_tokens"),
        _big("cost", null=True),
        _big("latency_us"),
        _big("first_us", null=True),
        _big("estimated", default=0),
        _big("own_key", default=0),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("model_calls_at", "model_calls", ["tenant", "at"])
    op.create_table(
        "spend",
        _text("tenant"),
        _text("month"),
        _text("user_id"),
        _big("cost"),
        _big("calls"),
        sa.PrimaryKeyConstraint("tenant", "month", "user_id"),
    )
    op.create_table(
        "spend_reservations",
        _text("tenant"),
        _text("id"),
        _text("user_id"),
        _big("amount"),
        _big("expires_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_table(
        "budgets",
        _text("tenant"),
        _text("scope"),
        _text("user_id"),
        _big("cap"),
        _big("updated_at"),
        _text("updated_by"),
        sa.PrimaryKeyConstraint("tenant", "scope", "user_id"),
    )


def _models() -> None:
    op.create_table(
        "model_policies",
        _text("tenant"),
        _text("data"),
        _big("updated_at"),
        _text("updated_by"),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.create_table(
        "provider_keys",
        _text("tenant"),
        _text("provider"),
        _text("sealed"),
        _text("last_four"),
        _text("settings", default="{}"),
        _big("checked_at", null=True),
        _big("created_at"),
        _big("updated_at"),
        _text("updated_by"),
        sa.PrimaryKeyConstraint("tenant", "provider"),
    )
    op.create_table(
        "user_models",
        _text("tenant"),
        _text("user_id"),
        _text("model"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "user_id"),
    )


def _batches() -> None:
    op.create_table(
        "batches",
        _text("tenant"),
        _text("id"),
        _text("user_id"),
        _text("operation"),
        _text("model"),
        _text("status"),
        _text("spec"),
        _text("file", null=True),
        _text("webhook", null=True),
        _text("error", null=True),
        _big("total", default=0),
        _big("succeeded", default=0),
        _big("failed", default=0),
        _big("input_tokens", default=0),
        _big("cached_input_tokens", default=0),
        _big("output_tokens", default=0),
        _big("cost", null=True),
        _big("turn", default=0),
        _big("created_at"),
        _big("started_at", null=True),
        _big("finished_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("batches_user", "batches", ["tenant", "user_id", "created_at"])
    op.create_index("batches_status", "batches", ["tenant", "status", "turn"])
    op.create_table(
        "batch_chunks",
        _text("tenant"),
        _text("batch_id"),
        _big("number"),
        _big("first"),
        _big("size"),
        _text("status"),
        _text("job_id", null=True),
        _big("failed", default=0),
        sa.Column("items", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "batch_id", "number"),
    )
    op.create_index("batch_chunks_status", "batch_chunks", ["tenant", "status", "batch_id", "number"])
    op.create_table(
        "batch_results",
        _text("tenant"),
        _text("batch_id"),
        _big("item"),
        _big("success"),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "batch_id", "item"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in (
        "batch_results",
        "batch_chunks",
        "batches",
        "user_models",
        "provider_keys",
        "model_policies",
        "budgets",
        "spend_reservations",
        "spend",
        "model_calls",
    ):
        op.drop_table(table)
