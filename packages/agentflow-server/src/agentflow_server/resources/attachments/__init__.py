"""The room `attachments`."""
