"""The room `conversations`."""
