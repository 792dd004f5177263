"""Memory on the wire: blocks of text that a user's agents keep, and what is recalled of them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from agentflow.types.base import Page, RequestModel, ResponseModel

MemoryScope = Literal["user", "agent"]
MemoryListScope = Literal["user", "agent", "all"]
MemoryBlockType = Literal["core", "archival"]


class MemoryUpdate(RequestModel):
    """The new text of a block.

    Attributes:
        content: the whole text, one entry a line. expected_updated_at: `updated_at` of the block that was read; None
            only to create one. agent_id: the agent's block of this user, in place of the user's own.
    """

    content: str
    expected_updated_at: datetime | None = None
    agent_id: str | None = Field(default=None, min_length=1, max_length=200)


class MemoryRecallRequest(RequestModel):
    """What to look for in memory."""

    query: str = Field(min_length=1, max_length=10_000)
    agent_id: str | None = Field(default=None, min_length=1, max_length=200)
    limit: int = Field(default=10, ge=1, le=100)
    min_score: float | None = Field(default=None, ge=0, le=1)


class MemoryBlock(ResponseModel):
    """A block. `updated_at` is what the next update has to expect."""

    id: str
    block_type: MemoryBlockType | str
    content: str
    scope: MemoryScope | str
    agent_id: str | None = None
    created_at: datetime
    updated_at: datetime


class MemoryPage(Page):
    """A page of blocks."""

    blocks: list[MemoryBlock]


class MemoryRecallResult(ResponseModel):
    """An entry that was found.

    Attributes:
        score: 0 to 1, words and meaning together. line_number: of the entry in its block, from 1.
        updated_at: when its block was changed last.
    """

    content: str
    score: float
    block_type: MemoryBlockType | str
    scope: MemoryScope | str
    agent_id: str | None = None
    line_number: int
    updated_at: datetime


class MemoryRecallPage(ResponseModel):
    """What was found, the best first.

    Attributes:
        mode: `hybrid` (words and meaning), or `keyword` where no embedding is available.
        pending: entries that so far are found by their words alone: their meaning is still being computed.
    """

    results: list[MemoryRecallResult]
    mode: Literal["hybrid", "keyword"] | str
    pending: int = 0


class UserExport(ResponseModel):
    """Everything the server holds about a user, by resource."""

    user_id: str
    exported_at: datetime
    data: dict[str, Any]


class Erasure(ResponseModel):
    """How much was erased, by resource."""

    erased: dict[str, int]
