"""The room `cached_results`."""
