"""Cached results on the wire."""

import json
from datetime import datetime
from typing import Any

from agentflow.types.base import Page, ResponseModel


class CachedResultEntry(ResponseModel):
    """A large tool result that is kept for a while.

    Attributes:
        summary: what the model was shown in its place. size: characters.
    """

    cache_id: str
    conversation_id: str
    run_id: str | None = None
    tool_name: str
    summary: str
    size: int
    created_at: datetime | None = None
    expires_at: datetime | None = None


class CachedResult(CachedResultEntry):
    """A result, or the piece of it that was asked for.

    Attributes:
        content: text, as the tool gave it. next_offset: where the next piece begins, None at the end.
    """

    content: str
    offset: int = 0
    next_offset: int | None = None

    def json_value(self) -> Any:
        """The content as a JSON value.

        Raises:
            ValueError: it is no JSON, or only a piece.
        """
        return json.loads(self.content)


class CachedResultPage(Page):
    """A page of cached results."""

    cached_results: list[CachedResultEntry]
