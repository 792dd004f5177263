"""The room `batches`."""
