"""Attachments on the wire: files that runs can be given."""

from datetime import datetime
from typing import Literal

from agentflow.types.base import Page, ResponseModel


class Attachment(ResponseModel):
    """A file that was uploaded.

    Attributes:
        name: without a path. media_type: what the content is. size: in bytes. sha256: of its bytes, in hex.
        kind: an `image` is shown to models that see, of a `document` its text.
        width, height: of an image, in pixels. text_chars: how long a document's text is; a run is given a bounded part.
    """

    id: str
    name: str
    media_type: str
    kind: Literal["image", "document"] | str
    size: int
    sha256: str
    width: int | None = None
    height: int | None = None
    text_chars: int | None = None
    created_at: datetime


class AttachmentPage(Page):
    """A page of attachments."""

    attachments: list[Attachment]
