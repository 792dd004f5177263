"""The room `cancellations`."""
