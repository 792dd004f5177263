"""How much a process takes in at once: requests, uploads, bytes of bodies. Asked by the doorman for every request.

What is beyond is refused at once with 503 and `Retry-After`: a client that comes back later is better served than one
that waits in a process which grows until it dies.
"""

from dataclasses import dataclass

from agentflow.errors import UnavailableError

RETRY_AFTER = 2.0


@dataclass(slots=True)
class Capacity:
    """The bounds of a process, and what of them is taken.

    Args:
        max_requests: requests under way, open streams among them. max_uploads: forms with files among those.
        max_bytes: of all request bodies that are held in memory.
    """

    max_requests: int
    max_uploads: int
    max_bytes: int
    requests: int = 0
    uploads: int = 0
    bytes: int = 0


class Place:
    """One request's share. `leave` gives it back, however often it is called."""

    __slots__ = ("_bytes", "_capacity", "_entered", "_upload")

    def __init__(self, capacity: Capacity, *, upload: bool) -> None:
        self._capacity = capacity
        self._upload = upload
        self._bytes = 0
        self._entered = False

    def enter(self) -> None:
        """Take a place.

        Raises:
            UnavailableError: all are taken.
        """
        capacity = self._capacity
        if capacity.requests >= capacity.max_requests:
            raise _full(f"{capacity.max_requests} requests", "AGENTFLOW_MAX_REQUESTS")
        if self._upload and capacity.uploads >= capacity.max_uploads:
            raise _full(f"{capacity.max_uploads} uploads", "AGENTFLOW_MAX_UPLOADS")
        capacity.requests += 1
        capacity.uploads += self._upload
        self._entered = True

    def hold(self, size: int) -> None:
        """Count bytes of the body that are held from now on.

        Raises:
            UnavailableError: there are too many.
        """
        capacity = self._capacity
        if capacity.bytes + size > capacity.max_bytes:
            raise _full(f"{capacity.max_bytes} bytes of requests", "AGENTFLOW_MAX_BODIES_BYTES")
        capacity.bytes += size
        self._bytes += size

    def leave(self) -> None:
        if self._entered:
            self._capacity.requests -= 1
            self._capacity.uploads -= self._upload
            self._entered = False
        self._capacity.bytes -= self._bytes
        self._bytes = 0


def _full(what: str, variable: str) -> UnavailableError:
    return UnavailableError(
        f"the server is busy: it has {what} in hand", retry_after=RETRY_AFTER, hint=f"Try again shortly ({variable})."
    )
