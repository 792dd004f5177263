"""What is said to a model, independent of any provider. Messages are immutable, and stored in the log as they are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

NO_ATTRIBUTES: Mapping[str, str] = {}
_IN_QUOTES = {ord('"'): "&quot;", ord("<"): "&lt;", ord(">"): "&gt;", ord("\n"): " ", ord("\r"): " "}


def tagged(name: str, body: str, attributes: Mapping[str, str] = NO_ATTRIBUTES) -> str:
    r"""Text inside a tag: how a model is shown what is data. The text cannot end its own tag: `</name` in it is written
    `<\/name`.
    """
    closing = re.compile(rf"<(\s*)/(?=\s*{re.escape(name)}\b)", re.IGNORECASE)
    inner = closing.sub(r"<\1\\/", body)
    given = "".join(f' {key}="{value.translate(_IN_QUOTES)}"' for key, value in attributes.items())
    return f"<{name}{given}>\n{inner}\n</{name}>"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class TextPart(_Frozen):
    """Text."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(_Frozen):
    """An image: its bytes in base64, or where it is."""

    type: Literal["image"] = "image"
    media_type: str = "image/png"
    data: str | None = None
    url: str | None = None
    detail: Literal["auto", "low", "high"] = "auto"


class DocumentPart(_Frozen):
    """The text of a document; shown to the model as marked data."""

    type: Literal["document"] = "document"
    name: str
    text: str

    def rendered(self) -> str:
        """The document as text."""
        return tagged("document", self.text, {"name": self.name})


Part = Annotated[TextPart | ImagePart | DocumentPart, Field(discriminator="type")]


class ToolCall(_Frozen):
    """A call the model makes; `arguments` is the JSON it wrote."""

    id: str
    name: str
    arguments: str = "{}"


class SystemMessage(_Frozen):
    """What the agent is."""

    role: Literal["system"] = "system"
    text: str


class UserMessage(_Frozen):
    """What the user said; hidden context comes first, the user's own text last."""

    role: Literal["user"] = "user"
    parts: tuple[Part, ...]


class AssistantMessage(_Frozen):
    """What the model said. `provider_data`: what its provider wants back unchanged (signatures of thinking)."""

    role: Literal["assistant"] = "assistant"
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    provider_data: dict[str, Any] | None = None


class ToolMessage(_Frozen):
    """The result of a call."""

    role: Literal["tool"] = "tool"
    tool_call_id: str
    name: str
    content: str
    is_error: bool = False


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage
MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="role")])


class ToolSpec(_Frozen):
    """A tool as the model sees it; `parameters` is a JSON Schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class Usage(_Frozen):
    """Tokens. `input_tokens` includes the cached ones, `output_tokens` those of reasoning."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            requests=self.requests + other.requests,
        )


ToolChoice = Literal["auto", "none", "required"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """For whom a model is asked: what usage is recorded under, and whose budget pays.

    Attributes:
        purpose: `answer`, `compaction`, `title`, `query_rewrite`, `memory`, `completion`, …
    """

    tenant: str
    user_id: str
    agent_id: str | None = None
    run_id: str | None = None
    purpose: str = "answer"


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of a model.

    Args:
        model: `provider/model`. output_schema: JSON Schema the answer must fit. timeout: seconds for the whole call.
        attribution: for whom; every caller that acts for somebody says so.
    """

    model: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    tool_choice: ToolChoice = "auto"
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    reasoning_summary: str | None = None
    output_schema: dict[str, Any] | None = None
    output_name: str | None = None
    timeout: float | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    attribution: Attribution | None = None
