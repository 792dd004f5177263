"""What only PostgreSQL has: row-level security on every table that has tenants.

A later migration that makes such a table executes `secured` for it.
"""

import sqlalchemy as sa
from agentflow_server.storage.migrations.tenants import secured
from alembic import op

revision = "0009"
down_revision = "0008"
_TABLES = sa.text(
    "SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t"
    " USING (table_schema, table_name) WHERE c.table_schema = current_schema() AND c.column_name = 'tenant'"
    " AND t.table_type = 'BASE TABLE' ORDER BY c.table_name"
)


def _tables() -> list[str]:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return []
    return list(connection.execute(_TABLES).scalars())


def upgrade() -> None:
    for table in _tables():
        for statement in secured(table):
            op.execute(statement)


def downgrade() -> None:
    for table in _tables():
        op.execute(f'DROP POLICY tenant_isolation ON "{table}"')
        op.execute(f'ALTER TABLE "{table}" NO FORCE ROW LEVEL SECURITY')
        op.execute(f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY')
