"""Sub-agents, background tasks, artifacts, cached results."""

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Filled in by its change."""


def downgrade() -> None:
    """Filled in by its change."""
