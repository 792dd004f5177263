"""What can go wrong in storage itself. The HTTP floor turns these into the wire's envelope."""

from agentflow.errors import UnavailableError


class StorageUnavailableError(UnavailableError):
    """The database cannot take a write now: the disk is full or gone, or the server is shutting down."""
