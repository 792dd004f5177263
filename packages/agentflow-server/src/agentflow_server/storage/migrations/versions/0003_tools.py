"""Tools, their assignments and credentials; approvals and questions."""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Filled in by its change."""


def downgrade() -> None:
    """Filled in by its change."""
