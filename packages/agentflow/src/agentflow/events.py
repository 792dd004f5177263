"""The typed events of a run, as they come out of a stream.

    RunStarted · TextDelta · ReasoningDelta · TextDiscarded
    ToolStarted · ToolProgress · ToolResultDelta · ToolFinished
    SubAgentStarted · SubAgentFinished
    ApprovalRequired · ApprovalResolved · QuestionRequired · QuestionAnswered
    ArtifactStatus · BackgroundTask · UsageReport
    PlanUpdated · Reflection · Retrieval · RunWarning
    RunError · FinalResponse             the last event of a run is one of these
    ConversationUpdate · BatchUpdate     what watches tell
    UnknownEvent                         what a newer server sends

Every event has `.type`, `.raw` (the server's own payload) and the fields of the envelope. Decoding is lazy: a text
delta costs one parse, and objects are made only for what is looked at.
"""

from datetime import datetime
from typing import Any, cast


class Event:
    """One event of a run.

    Attributes:
        raw: the event as the server sent it.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    @property
    def type(self) -> str:
        """The event's name on the wire."""
        return str(self.raw.get("type", "unknown"))

    @property
    def seq(self) -> int | None:
        """Its number in the conversation; also the id a stream is resumed by."""
        return self.raw.get("seq")

    @property
    def call_id(self) -> str | None:
        """The unit of work it belongs to: a run or a tool call."""
        return self.raw.get("call_id")

    @property
    def parent_call_id(self) -> str | None:
        """The unit that caused this one, None at the root."""
        return self.raw.get("parent_call_id")

    @property
    def root_call_id(self) -> str | None:
        """The unit at the root of the tree."""
        return self.raw.get("root_call_id")

    @property
    def content(self) -> Any:
        """The payload: text for deltas, an object for the rest."""
        return self.raw.get("content")

    @property
    def metadata(self) -> dict[str, Any] | None:
        """Display hints."""
        return self.raw.get("metadata")

    @property
    def timestamp(self) -> datetime | None:
        """When the server wrote it (UTC)."""
        value = self.raw.get("timestamp")
        return datetime.fromisoformat(value) if isinstance(value, str) else None

    def _get(self, name: str) -> Any:
        content = self.raw.get("content")
        return content.get(name) if isinstance(content, dict) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.raw!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and cast("Event", other).raw == self.raw

    def __hash__(self) -> int:
        return hash((self.type, self.seq, self.call_id))


class RunStarted(Event):
    """The run began."""

    __slots__ = ()

    @property
    def run_id(self) -> str | None:
        return self._get("run_id")

    @property
    def conversation_id(self) -> str | None:
        return self._get("conversation_id")

    @property
    def message_id(self) -> str | None:
        return self._get("message_id")

    @property
    def name(self) -> str | None:
        """The agent's name."""
        return self._get("name")

    @property
    def model(self) -> str | None:
        return self._get("model")


class TextDelta(Event):
    """A piece of the answer."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return self.raw["content"]


class ReasoningDelta(Event):
    """A piece of the model's reasoning."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return self.raw["content"]


class TextDiscarded(Event):
    """The text streamed since `since_seq` is void: the answer begins anew (the server was restarted, the model broke
    off, or the answer had to be repaired).
    """

    __slots__ = ()

    @property
    def since_seq(self) -> int | None:
        return self._get("since_seq")

    @property
    def reason(self) -> str | None:
        return self._get("reason")


class _Tool(Event):
    __slots__ = ()

    @property
    def name(self) -> str | None:
        """The tool's name."""
        return self._get("name")

    @property
    def tool_call_id(self) -> str | None:
        """The id the model gave the call."""
        return self._get("tool_call_id")


class ToolStarted(_Tool):
    """A tool is being executed."""

    __slots__ = ()

    @property
    def input(self) -> Any:
        """Its arguments."""
        return self._get("input")


class ToolProgress(_Tool):
    """A tool reports on the way; see `.content`."""

    __slots__ = ()


class ToolResultDelta(_Tool):
    """A piece of a tool's result; see `.content`."""

    __slots__ = ()


class ToolFinished(_Tool):
    """A tool has returned, or failed."""

    __slots__ = ()

    @property
    def result(self) -> Any:
        return self._get("result")

    @property
    def is_error(self) -> bool:
        return bool(self._get("is_error"))


class SubAgentStarted(RunStarted):
    """A sub-agent began."""

    __slots__ = ()


class SubAgentFinished(Event):
    """A sub-agent has answered."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return self._get("text") or ""


class _Request(Event):
    __slots__ = ()

    @property
    def id(self) -> str | None:
        """The id of the request, to answer it by."""
        return self._get("id")


class ApprovalRequired(_Request):
    """A tool call waits for somebody's approval."""

    __slots__ = ()

    @property
    def tool_name(self) -> str | None:
        return self._get("tool_name")

    @property
    def arguments(self) -> Any:
        return self._get("arguments")


class ApprovalResolved(_Request):
    """An approval was given, denied, cancelled, or it expired; `.type` says which."""

    __slots__ = ()


class QuestionRequired(_Request):
    """The run waits for answers to questions; see `.content`."""

    __slots__ = ()


class QuestionAnswered(_Request):
    """The questions were answered, or they expired; `.type` says which."""

    __slots__ = ()


class ArtifactStatus(Event):
    """An artifact was begun, changed, completed or given up; `.type` says which."""

    __slots__ = ()

    @property
    def artifact_id(self) -> str | None:
        return self._get("artifact_id") or self._get("id")


class BackgroundTask(Event):
    """A background task was begun or has ended."""

    __slots__ = ()

    @property
    def task_id(self) -> str | None:
        return self._get("task_id") or self._get("id")


class ConversationUpdate(Event):
    """How a watched conversation stands now; `.content` is the snapshot."""

    __slots__ = ()


class BatchUpdate(Event):
    """How a watched batch, or a job that fills a knowledge base, stands now. The last one of a watch is `done`."""

    __slots__ = ()

    @property
    def status(self) -> str:
        """`queued`, `processing`, `completed`, `failed` or `cancelled`."""
        return self._get("status") or "unknown"

    @property
    def progress(self) -> float:
        """0 to 1."""
        return self._get("progress") or 0.0

    @property
    def total(self) -> int:
        """How many items or files there are."""
        return self._get("total") or 0

    @property
    def processed(self) -> int:
        return self._get("processed") or 0

    @property
    def failed(self) -> int:
        return self._get("failed") or 0

    @property
    def files(self) -> list[dict[str, Any]]:
        """Of a job: the files that changed since the last update: `name`, `status`, `chunk_count`, `error`."""
        return self._get("files") or []

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return self.status in ("completed", "failed", "cancelled")


class UsageReport(Event):
    """What one model call used."""

    __slots__ = ()

    @property
    def usage(self) -> dict[str, Any]:
        return self._get("usage") or {}

    @property
    def cost(self) -> float | None:
        """US dollars, if the model's price is known."""
        return self._get("cost")


class PlanUpdated(Event):
    """The agent made or changed its plan."""

    __slots__ = ()


class Reflection(Event):
    """The agent looked at its own answer."""

    __slots__ = ()


class Retrieval(Event):
    """Knowledge was searched for the run."""

    __slots__ = ()


class RunWarning(Event):
    """Something the reader should know that did not stop the run."""

    __slots__ = ()

    @property
    def code(self) -> str | None:
        return self._get("code")

    @property
    def message(self) -> str | None:
        return self._get("message")


class RunError(Event):
    """The run failed. The last event of its stream."""

    __slots__ = ()

    @property
    def code(self) -> str | None:
        return self._get("code")

    @property
    def message(self) -> str:
        return self._get("message") or "the run failed"

    @property
    def retryable(self) -> bool:
        return bool(self._get("retryable"))


class FinalResponse(Event):
    """The run's answer. The last event of its stream; `.result` has everything else."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return self._get("text") or ""

    @property
    def finish_reason(self) -> str | None:
        return self._get("finish_reason")

    @property
    def run_id(self) -> str | None:
        return self._get("run_id")

    @property
    def conversation_id(self) -> str | None:
        return self._get("conversation_id")

    @property
    def message_id(self) -> str | None:
        return self._get("message_id")

    @property
    def output(self) -> Any:
        """The structured output, as plain JSON values."""
        return self._get("output")

    @property
    def usage(self) -> dict[str, Any]:
        return self._get("usage") or {}

    @property
    def cost(self) -> float | None:
        return self._get("cost")

    @property
    def metrics(self) -> dict[str, Any]:
        """Times, turns, and the handles of background tasks."""
        return self._get("metrics") or {}

    @property
    def background_tasks(self) -> list[Any]:
        return self._get("background_tasks") or []

    @property
    def citations(self) -> list[Any]:
        return self._get("citations") or []


class UnknownEvent(Event):
    """An event this version of the SDK does not know. Ignore it, or look at `.raw`."""

    __slots__ = ()


_BY_TYPE: dict[str, type[Event]] = {
    "delta": TextDelta,
    "reasoning_delta": ReasoningDelta,
    "text_discarded": TextDiscarded,
    "tool_progress": ToolProgress,
    "tool_result_delta": ToolResultDelta,
    "approval_required": ApprovalRequired,
    "question_required": QuestionRequired,
    "background_task": BackgroundTask,
    "conversation_update": ConversationUpdate,
    "batch_update": BatchUpdate,
    "usage": UsageReport,
    "plan": PlanUpdated,
    "reflection": Reflection,
    "retrieval": Retrieval,
    "warning": RunWarning,
}
_BY_PREFIX: tuple[tuple[str, type[Event]], ...] = (
    ("approval_", ApprovalResolved),
    ("question_", QuestionAnswered),
    ("artifact_", ArtifactStatus),
    ("background_task", BackgroundTask),
)


def event_of(raw: dict[str, Any]) -> Event:
    """The typed form of an event's payload."""
    type_ = raw.get("type")
    known = _BY_TYPE.get(type_) if isinstance(type_, str) else None
    if known is TextDelta or known is ReasoningDelta:
        return known(raw) if isinstance(raw.get("content"), str) else UnknownEvent(raw)
    return known(raw) if known is not None else _structural(raw)


def _structural(raw: dict[str, Any]) -> Event:
    """Events whose meaning depends on whose they are."""
    type_ = raw.get("type")
    if not isinstance(type_, str):
        return UnknownEvent(raw)
    content = raw.get("content")
    role = content.get("role") if isinstance(content, dict) else None
    root = raw.get("call_id") is not None and raw.get("call_id") == raw.get("root_call_id")
    if type_ == "start":
        return _STARTS.get(str(role), RunStarted if root else SubAgentStarted)(raw)
    if type_ == "end":
        return FinalResponse(raw) if root else ToolFinished(raw) if role == "tool" else SubAgentFinished(raw)
    if type_ == "error":
        return RunError(raw) if root or raw.get("call_id") is None else UnknownEvent(raw)
    for prefix, cls in _BY_PREFIX:
        if type_.startswith(prefix):
            return cls(raw)
    return UnknownEvent(raw)


_STARTS: dict[str, type[Event]] = {"tool": ToolStarted, "agent": RunStarted, "sub_agent": SubAgentStarted}


def is_terminal(event: Event) -> bool:
    """Whether a run's stream ends behind this event."""
    return isinstance(event, FinalResponse | RunError)
