"""Where a run stands, folded from its events: all that is needed to go on after a crash, an answer or a restart.

A run that begins has an empty fold and reads nothing. Nothing of a run's state is stored anywhere else.
"""

import json
from dataclasses import dataclass, field

from agentflow_server.gateway.messages import Usage
from agentflow_server.runtime.context import RunContext
from agentflow_server.storage import Database, Tx

_FACTS = (
    "SELECT seq, type, call_id, data FROM events WHERE tenant = :tenant AND conversation_id = :conversation"
    " AND seq >= :first AND root_call_id = :root AND type NOT IN ('delta', 'reasoning_delta') ORDER BY seq"
)
_LAST_TEXT = (
    "SELECT MIN(seq) AS first FROM events WHERE tenant = :tenant AND conversation_id = :conversation"
    " AND seq > :after AND call_id = :call AND type IN ('delta', 'reasoning_delta')"
)


@dataclass(slots=True)
class RunState:
    """The fold of a run's events.

    Attributes:
        turns: model calls that were completed. usage, cost: what they used, US dollars.
        started_calls: unit ids by tool call id, of calls that were begun. finished_calls: tool call ids with a result.
        void_since: number of the first piece of text that no completed model call stands behind, or None.
    """

    turns: int = 0
    tool_calls: int = 0
    repairs: int = 0
    interruptions: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    started_calls: dict[str, str] = field(default_factory=dict[str, str])
    finished_calls: set[str] = field(default_factory=set[str])
    void_since: int | None = None
    first_text_ms: float | None = None

    def count(self, usage: Usage, cost: float | None) -> None:
        """Add one model call."""
        self.turns += 1
        self.usage = self.usage + usage
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost


async def load_state(db: Database, context: RunContext) -> RunState:
    """Fold the run's events."""
    return await db.tenant(context.tenant).scan(lambda tx: _fold(tx, context))


def _fold(tx: Tx, context: RunContext) -> RunState:
    run = context.run
    key = {"conversation": run.conversation_id, "root": run.root_call_id, "first": run.first_seq, "call": run.call_id}
    state = RunState()
    settled = run.first_seq
    for row in tx.all(_FACTS, key):
        event = json.loads(bytes(row["data"]))
        if _apply(state, run.call_id, row["type"], event):
            settled = row["seq"]
    text = tx.one(_LAST_TEXT, {**key, "after": settled})
    state.void_since = text["first"] if text else None
    return state


def _apply(state: RunState, call_id: str, type_: str, event: "dict[str, object]") -> bool:
    """Fold one event; True if text before it is accounted for."""
    content = event.get("content")
    if not isinstance(content, dict):
        return False
    if event["call_id"] == call_id:
        if type_ == "usage":
            state.count(Usage.model_validate(content["usage"]), content.get("cost"))
            state.repairs += bool(content.get("repair"))
            return True
        return type_ == "text_discarded"
    if event["parent_call_id"] == call_id and (tool_call := content.get("tool_call_id")):
        if type_ == "start":
            state.started_calls[str(tool_call)] = str(event["call_id"])
        elif type_ == "end":
            state.finished_calls.add(str(tool_call))
            state.tool_calls += 1
    return False
