"""The log of what happened in a conversation: append, read, follow. The truth about a run."""

from agentflow_server.eventlog.events import Draft, PartDraft, StoredEvent, encode
from agentflow_server.eventlog.hub import Hub
from agentflow_server.eventlog.log import EventLog, Scope
from agentflow_server.eventlog.parts import Part, parts_of
from agentflow_server.eventlog.tail import Reader, Tail

__all__ = [
    "Draft", "EventLog", "Hub", "Part", "PartDraft", "Reader", "Scope", "StoredEvent", "Tail", "encode", "parts_of",
]  # fmt: skip
