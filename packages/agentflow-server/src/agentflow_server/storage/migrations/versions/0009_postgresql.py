"""What only PostgreSQL has: row-level security."""

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Filled in by its change."""


def downgrade() -> None:
    """Filled in by its change."""
