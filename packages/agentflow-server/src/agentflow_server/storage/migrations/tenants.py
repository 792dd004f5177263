"""Row-level security of a table on PostgreSQL, as statements. Used by the migrations."""

_ALLOWED = "tenant = current_setting('app.tenant', true) OR current_setting('app.every_tenant', true) = 'on'"


def secured(table: str) -> tuple[str, ...]:
    """Show a table's rows only to transactions that are bound to their tenant, or to all; its owner is no exception."""
    return (
        f'ALTER TABLE "{table}" ENABLE ROW LEVEL SECURITY',
        f'ALTER TABLE "{table}" FORCE ROW LEVEL SECURITY',
        f'CREATE POLICY tenant_isolation ON "{table}" USING ({_ALLOWED}) WITH CHECK ({_ALLOWED})',
    )
