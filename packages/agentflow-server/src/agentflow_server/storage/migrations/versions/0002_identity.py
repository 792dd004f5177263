"""Identity: the audit log, request rates, and an index for the runs that are under way."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_LIVE = sa.text("status IN ('queued', 'running')")


def _text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=null)


def _big(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False)


def upgrade() -> None:
    op.create_table(
        "audit_log",
        _text("tenant"),
        _text("id"),
        _big("at"),
        _text("actor"),
        _text("actor_kind"),
        _text("action"),
        _text("target"),
        _big("status"),
        _text("request_id", null=True),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("audit_log_at", "audit_log", ["tenant", "at", "id"])
    op.create_table(
        "rate_limits",
        _text("tenant"),
        _text("subject"),
        _big("paid_until"),
        sa.PrimaryKeyConstraint("tenant", "subject"),
    )
    op.create_index("runs_live", "runs", ["tenant", "user_id"], sqlite_where=_LIVE, postgresql_where=_LIVE)


def downgrade() -> None:
    op.drop_index("runs_live", "runs")
    op.drop_table("rate_limits")
    op.drop_table("audit_log")
