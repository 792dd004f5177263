"""Remembers what was worked out for a message object: its JSON for a provider, its size.

Messages are immutable and long conversations show the same ones again at every turn, so that a turn costs what is new.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from agentflow_server.gateway.messages import ImagePart, Message, UserMessage

V = TypeVar("V")


class Memo(Generic[V]):
    """A function of message objects, by identity; forgets the older half when it is full. Images are not remembered:
    they are large, and made anew for every call.
    """

    def __init__(self, function: Callable[[Message], V], size: int = 100_000) -> None:
        self._function = function
        self._size = size
        self._known: dict[int, tuple[Message, V]] = {}

    def get(self, message: Message) -> V:
        """The function's value for this message."""
        known = self._known.get(id(message))
        if known is not None:
            return known[1]
        value = self._function(message)
        if isinstance(message, UserMessage) and any(isinstance(part, ImagePart) for part in message.parts):
            return value
        if len(self._known) >= self._size:
            for key in list(self._known)[: self._size // 2]:
                del self._known[key]
        self._known[id(message)] = (message, value)
        return value
