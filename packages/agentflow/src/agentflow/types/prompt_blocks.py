"""Prompt blocks on the wire: named pieces of what a model is told."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from agentflow.types.base import Page, RequestModel, ResponseModel

RESERVED = frozenset(
    {"system_context", "system_reminders", "system_events", "session_context", "context_ref", "document"}
)
MAX_BODY = 100_000
Role = Literal["system", "user"]
Mode = Literal["cached", "real_time"]
BlockScope = Literal["conversation", "turn"]
_INSTEAD = {
    "content": "the text goes into `body`",
    "template": "a block is plain text in `body`; what changes is a dynamic block, a function on the server",
    "source": "a block is plain text in `body`; code is a dynamic block, a function on the server",
    "kind": "it is called `type`",
    "url": "blocks are not fetched; a dynamic block is a function on the server",
    "renderer_url": "blocks are not fetched; a dynamic block is a function on the server",
    "code": "code is not uploaded; a dynamic block is a function on the server",
}


def _not_reserved(name: str) -> str:
    if name.lower() in RESERVED:
        raise ValueError(f"{name!r} is a name the platform uses itself")
    return name


BlockName = Annotated[
    str,
    Field(min_length=1, max_length=100, pattern=r"^[A-Za-z_][A-Za-z0-9_\-]*$"),
    AfterValidator(_not_reserved),
]
Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=50)]
Agents = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200)]


class _Block(RequestModel):
    @model_validator(mode="before")
    @classmethod
    def _say_it_our_way(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name in _INSTEAD and name not in cls.model_fields:
                raise ValueError(f"`{name}` is not a field of a prompt block: {_INSTEAD[name]}")
        return value


class PromptBlockCreate(_Block):
    """A new static block.

    Attributes:
        message: `system` belongs to the system prompt, `user` to the hidden context of the user's message.
        mode: `cached` may be kept, `real_time` is made for every run. scope: a text for the whole conversation, or one
            for each turn. order: smaller ones come first, then by name.
        ttl: seconds a text may be kept. agents: ids or names of those it is for; empty means all.
    """

    name: BlockName
    description: str | None = Field(default=None, max_length=2_000)
    message: Role = "system"
    type: Literal["static", "dynamic"] = "static"
    mode: Mode = "cached"
    scope: BlockScope = "conversation"
    tags: Tags = Field(default_factory=list[str])
    body: str | None = Field(default=None, max_length=MAX_BODY)
    order: int = Field(default=100, ge=0, le=1_000_000)
    ttl: int | None = Field(default=None, ge=0, le=31_536_000)
    agents: Agents = Field(default_factory=list[str])
    enabled: bool = True


class PromptBlockUpdate(_Block):
    """Changes to a block; what is left out stays. A dynamic block has no `body`."""

    description: str | None = Field(default=None, max_length=2_000)
    message: Role | None = None
    mode: Mode | None = None
    scope: BlockScope | None = None
    tags: Tags | None = None
    body: str | None = Field(default=None, max_length=MAX_BODY)
    order: int | None = Field(default=None, ge=0, le=1_000_000)
    ttl: int | None = Field(default=None, ge=0, le=31_536_000)
    agents: Agents | None = None
    enabled: bool | None = None


class PromptBlock(ResponseModel):
    """A block.

    Attributes:
        type: `static` has a `body`; `dynamic` is a function on the server. builtin: it comes with the server or its app
            and can be disabled, not deleted. version: grows with every change and every `invalidate_cache`.
    """

    name: str
    description: str | None = None
    message: Role | str = "system"
    type: Literal["static", "dynamic"] | str = "static"
    mode: Mode | str = "cached"
    scope: BlockScope | str = "conversation"
    tags: list[str] = Field(default_factory=list[str])
    body: str | None = None
    order: int = 100
    ttl: int | None = None
    agents: list[str] = Field(default_factory=list[str])
    enabled: bool = True
    builtin: bool = False
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None


class PromptBlockPage(Page):
    """A page of blocks."""

    prompt_blocks: list[PromptBlock]


class PromptBlockPreviewRequest(RequestModel):
    """What to try: another body for a static block, an agent for a dynamic one."""

    body: str | None = Field(default=None, max_length=MAX_BODY)
    agent_id: str | None = Field(default=None, min_length=1, max_length=200)
    message: str = Field(default="", max_length=100_000)
    client_timezone: str | None = Field(default=None, max_length=100)


class PromptBlockPreview(ResponseModel):
    """A block as the model would see it.

    Attributes:
        body: the text alone. wrapped: inside its tag; empty if the block has nothing to say. tokens: about how many.
    """

    name: str
    body: str
    wrapped: str
    tokens: int


class PromptPart(ResponseModel):
    """A piece of an assembled prompt.

    Attributes:
        kind: `system`, `tool`, `history`, `context`, `event`, `reminder`, `image`, `document`, `message`, in order.
        tokens: about how many. text: None for an image.
    """

    kind: str
    name: str | None = None
    text: str | None = None
    tokens: int


class PromptPreview(ResponseModel):
    """A whole prompt, before anything is sent.

    Attributes:
        tokens: of all parts. cached_tokens: of the stable prefix: system blocks and history.
        notices: what a run would tell when it begins, for example what was left out.
    """

    model: str
    context_window: int
    tokens: int
    cached_tokens: int
    parts: list[PromptPart]
    notices: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
