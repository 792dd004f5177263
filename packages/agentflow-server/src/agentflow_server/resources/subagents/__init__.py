"""The room `subagents`."""
