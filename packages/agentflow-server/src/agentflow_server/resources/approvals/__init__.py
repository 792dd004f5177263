"""The room `approvals`."""
