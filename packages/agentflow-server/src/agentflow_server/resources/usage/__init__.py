"""The room `usage`."""
