"""Which scope a route asks for: a room has one name everywhere, so its scope is `agentflow:<room>`. For identity.py.

A run lives in a conversation and needs that scope. Agents and models may be read by everybody of the tenant: whoever
may talk has to find out whom to talk to. Admin routes ask for an `AdminCaller` in place of a scope.
"""

from collections.abc import Iterable

PREFIX = "agentflow:"
ADMIN = "agentflow:admin"
_LIVES_IN = {"runs": "conversations"}
_READ_BY_ALL = frozenset({"agents", "models"})
_WITHOUT = frozenset({"system", "usage"})
_READS = frozenset({"GET", "HEAD"})
ROOMS = (
    "agents", "approvals", "artifacts", "attachments", "background", "batches", "cached_results", "cancellations",
    "completions", "conversations", "knowledge_bases", "memory", "models", "prompt_blocks", "questions", "subagents",
    "tools",
)  # fmt: skip
SCOPES = frozenset(f"{PREFIX}{room}" for room in ROOMS)


def required_scope(tags: Iterable[object], method: str) -> str | None:
    """The scope for a route of a room, named by the route's first tag; None: it is enough to be known.

    Raises:
        ValueError: the tag is no room: such a route would be open to all scopes by mistake.
    """
    room = str(next(iter(tags), ""))
    room = _LIVES_IN.get(room, room)
    if room in _WITHOUT or (room in _READ_BY_ALL and method in _READS):
        return None
    if room not in ROOMS:
        raise ValueError(f"a route's first tag must be its room, not {room!r}: its scope follows from it")
    return f"{PREFIX}{room}"
