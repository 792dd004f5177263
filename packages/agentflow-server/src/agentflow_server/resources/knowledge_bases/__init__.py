"""The room `knowledge_bases`."""
