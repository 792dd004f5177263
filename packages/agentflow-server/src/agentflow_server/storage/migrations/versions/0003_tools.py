"""Tools, their assignments and credentials; MCP servers; approvals and questions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=null)


def _big(name: str, *, null: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=null)


def upgrade() -> None:
    op.create_table(
        "tools",
        _text("tenant"),
        _text("id"),
        _text("name"),
        _text("kind"),
        _text("data"),
        _text("sealed", null=True),
        _text("server_id", null=True),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("tools_name", "tools", ["tenant", "name"], unique=True)
    op.create_index("tools_server", "tools", ["tenant", "server_id"])
    op.create_table(
        "tool_assignments",
        _text("tenant"),
        _text("agent_id"),
        _text("tool_id"),
        _big("position"),
        _big("require_approval"),
        _big("approval_timeout_ms"),
        sa.PrimaryKeyConstraint("tenant", "agent_id", "tool_id"),
    )
    op.create_index("tool_assignments_tool", "tool_assignments", ["tenant", "tool_id"])
    op.create_table(
        "mcp_servers",
        _text("tenant"),
        _text("id"),
        _text("name"),
        _text("data"),
        _text("sealed", null=True),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("mcp_servers_name", "mcp_servers", ["tenant", "name"], unique=True)
    op.create_table(
        "mcp_attachments",
        _text("tenant"),
        _text("agent_id"),
        _text("server_id"),
        sa.PrimaryKeyConstraint("tenant", "agent_id", "server_id"),
    )
    op.create_table("approvals", *_request(), _text("tool_id"), _text("tool_name"), _text("arguments"),
        _text("modified_arguments", null=True), _text("schema"), _text("reason", null=True),
        sa.PrimaryKeyConstraint("tenant", "id"))  # fmt: skip
    op.create_index("approvals_user", "approvals", ["tenant", "user_id", "status", "created_at"])
    op.create_index("approvals_run", "approvals", ["tenant", "run_id"])
    op.create_table("questions", *_request(), _text("items"), _text("answers", null=True),
        sa.PrimaryKeyConstraint("tenant", "id"))  # fmt: skip
    op.create_index("questions_user", "questions", ["tenant", "user_id", "status", "created_at"])
    op.create_index("questions_run", "questions", ["tenant", "run_id"])


def _request() -> "list[sa.Column[str] | sa.Column[int]]":
    """What a run waits for somebody to answer."""
    return [
        _text("tenant"),
        _text("id"),
        _text("status"),
        _text("agent_id"),
        _text("user_id"),
        _text("conversation_id"),
        _text("run_id"),
        _text("call_id"),
        _text("resolved_by", null=True),
        _big("created_at"),
        _big("expires_at"),
        _big("resolved_at", null=True),
    ]


def downgrade() -> None:
    for table in ("questions", "approvals", "mcp_attachments", "mcp_servers", "tool_assignments", "tools"):
        op.drop_table(table)
