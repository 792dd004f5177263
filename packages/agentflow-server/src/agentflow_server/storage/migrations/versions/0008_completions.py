"""Usage, budgets, model policy, provider keys, batches and files."""

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Filled in by its change."""


def downgrade() -> None:
    """Filled in by its change."""
