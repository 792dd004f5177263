"""Knowledge bases: files, chunks, the word index and vectors."""

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Filled in by its change."""


def downgrade() -> None:
    """Filled in by its change."""
