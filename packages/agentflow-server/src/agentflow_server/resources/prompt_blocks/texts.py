"""Texts of dynamic blocks that are kept in this process: by user for a while, by conversation for as long as it lasts.

Bounded; the least recently used go first. Another process, or this one after a restart, finds what a conversation was
told in the plan of its last run.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

SECOND = 1_000_000
_MAX_CHARS = 32 * 1024 * 1024
_OVERHEAD = 500


class Kept(NamedTuple):
    """A text, None if the block had nothing to say.

    Attributes:
        version: of the block's definition. made_at: microseconds since the epoch.
    """

    version: int
    made_at: int
    text: str | None

    def holds(self, version: int, now: int, ttl: int | None) -> bool:
        """Whether it may still be used; `ttl` in seconds, None is for ever."""
        return self.version == version and (ttl is None or now < self.made_at + ttl * SECOND)


class Texts:
    """Kept texts by key."""

    def __init__(self, max_chars: int = _MAX_CHARS) -> None:
        self._max = max_chars
        self._size = 0
        self._texts: OrderedDict[Hashable, Kept] = OrderedDict()

    def get(self, key: Hashable) -> Kept | None:
        """The text kept under a key, however old."""
        kept = self._texts.get(key)
        if kept is not None:
            self._texts.move_to_end(key)
        return kept

    def keep(self, key: Hashable, kept: Kept) -> None:
        """Keep a text in place of what was there."""
        if (before := self._texts.pop(key, None)) is not None:
            self._size -= _weight(before)
        self._texts[key] = kept
        self._size += _weight(kept)
        while self._size > self._max:
            self._size -= _weight(self._texts.popitem(last=False)[1])


def _weight(kept: Kept) -> int:
    return len(kept.text or "") + _OVERHEAD
