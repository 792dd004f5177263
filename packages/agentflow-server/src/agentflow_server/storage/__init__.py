"""The platform's database: transactions, tenants, blobs and migrations. Knows no resource."""

from agentflow_server.storage.database import Database, Row, TenantDatabase, Tx, take_turns
from agentflow_server.storage.opening import open_database

__all__ = ["Database", "Row", "TenantDatabase", "Tx", "open_database", "take_turns"]
