"""Sub-agents, mail to runs, background tasks, artifacts, cached results."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _text(name: str, *, null: bool = False, default: str | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=null, server_default=default)


def _big(name: str, *, null: bool = False, default: int | None = None) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=null, server_default=None if default is None else str(default))


def upgrade() -> None:
    op.create_table(
        "agent_subagents",
        _text("tenant"),
        _text("parent_id"),
        _text("child_id"),
        _big("background", default=0),
        _big("created_at"),
        sa.PrimaryKeyConstraint("tenant", "parent_id", "child_id"),
    )
    op.create_index("agent_subagents_child", "agent_subagents", ["tenant", "child_id"])
    op.create_table(
        "run_mail",
        _text("tenant"),
        _text("run_id"),
        _text("id"),
        _text("text"),
        _big("created_at"),
        _big("read_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "run_id", "id"),
    )
    op.create_table(
        "background_tasks",
        _text("tenant"),
        _text("id"),
        _text("user_id"),
        _text("conversation_id"),
        _text("began_by"),
        _text("kind"),
        _text("name"),
        _text("run_id", null=True),
        _text("status"),
        _text("input", default="{}"),
        _text("result", null=True),
        _text("error", null=True),
        _big("collected", default=0),
        _big("created_at"),
        _big("ended_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("background_tasks_user", "background_tasks", ["tenant", "user_id", "created_at"])
    op.create_index("background_tasks_conversation", "background_tasks", ["tenant", "conversation_id", "created_at"])
    op.create_index("background_tasks_run", "background_tasks", ["tenant", "run_id"])
    op.create_table(
        "cached_results",
        _text("tenant"),
        _text("conversation_id"),
        _text("id"),
        _text("user_id"),
        _text("run_id"),
        _text("tool_name"),
        _text("summary"),
        _text("content"),
        _big("size"),
        _big("created_at"),
        _big("expires_at"),
        sa.PrimaryKeyConstraint("tenant", "conversation_id", "id"),
    )
    op.create_index("cached_results_expiry", "cached_results", ["tenant", "expires_at"])
    _artifacts()


def _artifacts() -> None:
    op.create_table(
        "artifact_types",
        _text("tenant"),
        _text("name"),
        _text("data"),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "name"),
    )
    op.create_table(
        "artifacts",
        _text("tenant"),
        _text("id"),
        _text("user_id"),
        _text("conversation_id"),
        _text("run_id", null=True),
        _text("type"),
        _text("title"),
        _text("content"),
        _text("state"),
        _big("version"),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("artifacts_conversation", "artifacts", ["tenant", "conversation_id", "created_at"])
    op.create_table(
        "artifact_versions",
        _text("tenant"),
        _text("artifact_id"),
        _big("version"),
        _text("conversation_id"),
        _text("author"),
        _text("change"),
        _text("title"),
        _text("content"),
        _text("state"),
        _big("created_at"),
        sa.PrimaryKeyConstraint("tenant", "artifact_id", "version"),
    )
    op.create_index("artifact_versions_new", "artifact_versions", ["tenant", "conversation_id", "created_at"])


def downgrade() -> None:
    for table in (
        "artifact_versions",
        "artifacts",
        "artifact_types",
        "cached_results",
        "background_tasks",
        "run_mail",
        "agent_subagents",
    ):
        op.drop_table(table)
