"""The room `prompt_blocks`."""
