"""Fills in the images of a thread: a stored message refers to an image by its id, the model is sent its bytes.

So an image is kept once, however often its turn is replayed, and is gone when its owner deletes it.
"""

from collections.abc import Sequence
from typing import Protocol

from agentflow_server.gateway.messages import ImagePart, Message, Part, TextPart, UserMessage
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.history import History

_GONE = TextPart(text="[an image that was attached here has been deleted]")


class ImageSource(Protocol):
    """Where the images of stored messages are."""

    async def image(self, tenant: str, user_id: str, ref: str) -> str | None:
        """The bytes of an image in base64; None if it is no longer there."""
        ...


async def shown(source: ImageSource | None, context: RunContext, history: History) -> Sequence[Message]:
    """A thread's messages with the bytes of their images; words stand in for one that was deleted."""
    if source is None or not history.has_images:
        return history.messages
    return [
        message.model_copy(update={"parts": tuple([await _filled(source, context, part) for part in message.parts])})
        if isinstance(message, UserMessage) and any(isinstance(part, ImagePart) for part in message.parts)
        else message
        for message in history.messages
    ]


async def _filled(source: ImageSource, context: RunContext, part: Part) -> Part:
    if not isinstance(part, ImagePart) or part.url is None:
        return part
    data = await source.image(context.tenant, context.run.user_id, part.url)
    return _GONE if data is None else part.model_copy(update={"data": data, "url": None})
