"""The room `artifacts`."""
