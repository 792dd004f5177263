"""Memory blocks, their entries and what was recalled of them."""

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Filled in by its change."""


def downgrade() -> None:
    """Filled in by its change."""
