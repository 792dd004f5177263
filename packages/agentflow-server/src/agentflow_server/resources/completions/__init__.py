"""The room `completions`."""
