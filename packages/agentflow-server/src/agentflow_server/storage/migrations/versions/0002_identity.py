"""Identity: audit log, rate limits."""

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Filled in by its change."""


def downgrade() -> None:
    """Filled in by its change."""
