"""What the model is shown of a conversation's past: the parts of its thread as messages, from the last compaction on.

Histories of recent conversations are kept in memory and only lengthened, so that a long conversation costs what a
short one does; the table remains the truth, and another process simply reads it.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable

from agentflow_server.eventlog import Part, parts_of
from agentflow_server.eventlog.parts import last_part
from agentflow_server.gateway.messages import (
    MESSAGE,
    AssistantMessage,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentflow_server.runtime.context import RunContext
from agentflow_server.storage import Database, Tx

COMPACTION = "compaction"
_MESSAGE_KINDS = frozenset(
    {"user", "agent_text", "tool_request", "tool_response", "repair", "plan", "sub_agent_request"}
)
_MAX_CACHED = 64 * 1024 * 1024
_OBJECTS = 1_500  # bytes of a message's Python objects, beside its text
_LONG = 200


class History:
    """The messages of one thread. Only the run that owns the thread lengthens it.

    Attributes:
        size: about how many bytes its messages take. grown: told of every growth of it.
    """

    __slots__ = ("_open_calls", "grown", "has_images", "last_seq", "messages", "seqs", "size")

    def __init__(self) -> None:
        self.size = 0
        self.grown: Callable[[int], None] | None = None
        self.messages: list[Message] = []
        self.seqs: list[int] = []
        self.last_seq = -1
        self.has_images = False
        self._open_calls: dict[str, ToolCall] = {}

    def extend(self, parts: Iterable[Part]) -> None:
        """Add newer parts."""
        for part in parts:
            if part.seq > self.last_seq and part.kind in _MESSAGE_KINDS:
                self._add(part.seq, MESSAGE.validate_json(part.data), len(part.data))
            self.last_seq = max(self.last_seq, part.seq)

    def append(self, seq: int, message: Message) -> None:
        """Add a message that was just stored under this number."""
        self._add(seq, message, len(MESSAGE.dump_json(message)))
        self.last_seq = max(self.last_seq, seq)

    def begin_with_summary(self, seq: int, summary: str) -> None:
        """Start over behind `seq` with a summary of what came before."""
        self.messages = [summary_message(summary)]
        self.seqs = [seq]
        self._open_calls = {}
        self.last_seq = seq
        self._grow(len(summary) - self.size)

    def _grow(self, by: int) -> None:
        self.size += by
        if self.grown is not None:
            self.grown(by)

    def _add(self, seq: int, message: Message, size: int) -> None:
        self._grow(size + _OBJECTS)
        if isinstance(message, ToolMessage):
            self._open_calls.pop(message.tool_call_id, None)
        elif self._open_calls:
            self.close_open_calls()
        if isinstance(message, AssistantMessage):
            self._open_calls = {call.id: call for call in message.tool_calls}
        if isinstance(message, UserMessage):
            self.has_images = self.has_images or any(isinstance(part, ImagePart) for part in message.parts)
        self.messages.append(message)
        self.seqs.append(seq)

    def open_calls(self) -> list[ToolCall]:
        """The tool calls that have no result yet."""
        return list(self._open_calls.values())

    def close_open_calls(self) -> None:
        """Answer calls that a run left behind when it ended: providers refuse a history with open calls."""
        for call in self._open_calls.values():
            lost = "No result: the run ended before the call did."
            self.messages.append(ToolMessage(tool_call_id=call.id, name=call.name, content=lost, is_error=True))
            self.seqs.append(self.last_seq)
        self._open_calls = {}


def summary_message(summary: str) -> Message:
    """How a summary of the older conversation is shown to the model."""
    text = f"<system_events>\nThe conversation so far, summarised:\n{summary}\n</system_events>"
    return UserMessage(parts=(TextPart(text=text),))


class Histories:
    """Histories by thread, the most recently used kept in memory: at most 64 MiB of messages."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._cache: OrderedDict[tuple[str, str, str], History] = OrderedDict()
        self._size = 0

    async def load(self, context: RunContext) -> History:
        """The history of the run's thread, up to date with the table."""
        run, thread = context.run, context.thread
        key = (run.tenant, run.conversation_id, thread)
        history = self._take(key)
        db = self._db.tenant(run.tenant)
        if history is None:
            query = db.scan if run.first_seq > _LONG else db.read
            history = await query(lambda tx: read_history(tx, run.conversation_id, thread))
        else:
            after = history.last_seq
            newer = await db.read(lambda tx: parts_of(tx, run.conversation_id, after=after, thread=thread))
            if any(part.kind == COMPACTION for part in newer):  # by another process
                history = await db.scan(lambda tx: read_history(tx, run.conversation_id, thread))
            else:
                history.extend(newer)
        self._keep(key, history)
        return history

    def _take(self, key: tuple[str, str, str]) -> History | None:
        history = self._cache.pop(key, None)
        if history is not None:
            history.grown = None
            self._size -= history.size
        return history

    def _keep(self, key: tuple[str, str, str], history: History) -> None:
        self._take(key)
        history.grown = self._grown
        self._size += history.size
        self._cache[key] = history
        while self._size > _MAX_CACHED and len(self._cache) > 1:
            self._take(next(iter(self._cache)))

    def _grown(self, by: int) -> None:
        self._size += by


def read_history(tx: Tx, conversation_id: str, thread: str) -> History:
    """Read a thread from its last compaction on."""
    history = History()
    compaction = last_part(tx, conversation_id, COMPACTION, thread)
    after = -1
    if compaction is not None:
        after = int(json.loads(compaction.data)["upto"])
        history.begin_with_summary(after, compaction.text)
    history.extend(parts_of(tx, conversation_id, after=after, thread=thread))
    return history
