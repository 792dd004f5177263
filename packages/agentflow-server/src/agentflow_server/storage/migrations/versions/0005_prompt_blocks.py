"""Prompt blocks and attachments."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Filled in by its change."""


def downgrade() -> None:
    """Filled in by its change."""
