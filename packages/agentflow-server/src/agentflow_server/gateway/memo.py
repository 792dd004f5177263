"""Remembers what was worked out for a message object: its JSON for a provider, its size.

Messages are immutable and long conversations show the same ones again at every turn, so that a turn costs what is new.
"""

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import ref

from agentflow_server.gateway.messages import ImagePart, Message, UserMessage

V = TypeVar("V")


class Memo(Generic[V]):
    """A function of message objects, by identity; what it knows of a message goes with the message. Images are not
    remembered: they are large, and made anew for every call.
    """

    def __init__(self, function: Callable[[Message], V]) -> None:
        self._function = function
        self._known: dict[int, tuple[ref[Message], V]] = {}

    def get(self, message: Message) -> V:
        """The function's value for this message."""
        key = id(message)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        value = self._function(message)
        if isinstance(message, UserMessage) and any(isinstance(part, ImagePart) for part in message.parts):
            return value
        self._known[key] = (ref(message, lambda _: self._known.pop(key, None)), value)
        return value
