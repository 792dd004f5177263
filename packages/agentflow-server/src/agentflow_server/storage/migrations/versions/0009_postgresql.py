"""What only PostgreSQL has: row-level security on every table that has tenants.

A later migration that makes such a table calls `secure` for it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
_TABLES = sa.text(
    "SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t"
    " USING (table_schema, table_name) WHERE c.table_schema = current_schema() AND c.column_name = 'tenant'"
    " AND t.table_type = 'BASE TABLE' ORDER BY c.table_name"
)
_ALLOWED = "tenant = current_setting('app.tenant', true) OR current_setting('app.every_tenant', true) = 'on'"


def _tables() -> list[str]:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return []
    return list(connection.execute(_TABLES).scalars())


def upgrade() -> None:
    for table in _tables():
        secure(table)


def secure(table: str) -> None:
    """Show a table's rows only to transactions that are bound to their tenant, or to all; its owner is no exception."""
    op.execute(f'ALTER TABLE "{table}" ENABLE ROW LEVEL SECURITY')
    op.execute(f'ALTER TABLE "{table}" FORCE ROW LEVEL SECURITY')
    op.execute(f'CREATE POLICY tenant_isolation ON "{table}" USING ({_ALLOWED}) WITH CHECK ({_ALLOWED})')


def downgrade() -> None:
    for table in _tables():
        op.execute(f'DROP POLICY tenant_isolation ON "{table}"')
        op.execute(f'ALTER TABLE "{table}" NO FORCE ROW LEVEL SECURITY')
        op.execute(f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY')
