"""Time, read in one place so that tests can hand in their own clock.

Instants are whole microseconds since the Unix epoch (UTC): they compare, subtract and store as one integer.
"""

import time
from datetime import UTC, datetime
from typing import Protocol

SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where the server reads the time."""

    def micros(self) -> int:
        """Microseconds since the epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    def micros(self) -> int:
        return time.time_ns() // 1000


class SharedClock:
    """The time of a machine that several processes agree on, carried on by this machine's monotonic clock.

    Two processes never differ by more than it takes to ask, and setting this machine's clock changes nothing.
    """

    def __init__(self, micros: int) -> None:
        self.set(micros)

    def set(self, micros: int) -> None:
        """It is `micros` now."""
        self._base = micros
        self._at = time.monotonic_ns()

    def micros(self) -> int:
        return self._base + (time.monotonic_ns() - self._at) // 1000


class ManualClock:
    """A clock that stands still until it is told to move: for tests of expiry and leases."""

    def __init__(self, start: int = 1_700_000_000 * SECOND) -> None:
        self._now = start

    def micros(self) -> int:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move time on by `seconds`."""
        self._now += int(seconds * SECOND)


def to_datetime(micros: int) -> datetime:
    """The aware UTC datetime of an instant."""
    return datetime.fromtimestamp(micros / SECOND, UTC)


def to_iso(micros: int) -> str:
    """ISO 8601 with microseconds and `Z`, the wire form of an instant."""
    seconds, rest = divmod(micros, SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:06d}Z"


def from_datetime(value: datetime) -> int:
    """The instant of a datetime; a naive one is read as UTC."""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    delta = aware - EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds
