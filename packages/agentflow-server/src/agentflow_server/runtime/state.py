"""Where a run stands, folded from its events: all that is needed to go on after a crash, an answer or a restart.

A run that has just begun has an empty fold and reads nothing. Nothing of a run's state is stored anywhere else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentflow_server.gateway import Completed
from agentflow_server.gateway.messages import Usage
from agentflow_server.runtime.context import RunContext
from agentflow_server.storage import Database, Tx

_FACTS = (
    "SELECT seq, type, data FROM events WHERE tenant = :tenant AND conversation_id = :conversation"
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
        begun: the run's `start` is written. turns: model calls that were completed.
        usage, cost: what they used, US dollars.
        started_calls: tool calls whose execution was begun, by the id the model gave them.
        void_since: number of the first piece of text that no completed model call stands behind, or None.
        first_text_ms: from the acceptance of the run to its first piece of text, milliseconds.
        planned: a plan was made. reflections: how often a draft was looked at.
    """

    begun: bool = False
    turns: int = 0
    tool_calls: int = 0
    repairs: int = 0
    interruptions: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    started_calls: set[str] = field(default_factory=set[str])
    call_ids: set[str] = field(default_factory=set[str])
    void_since: int | None = None
    first_text_ms: float | None = None
    background_tasks: list[Any] = field(default_factory=list[Any])
    citations: list[Any] = field(default_factory=list[Any])
    planned: bool = False
    reflections: int = 0

    def add_outcome(self, content: Mapping[str, Any]) -> None:
        """Add what the end of a tool call says, also of the sub-agent it waited for."""
        self.tool_calls += 1
        self.background_tasks.extend(content.get("background_tasks", ()))
        self.citations.extend(content.get("citations", ()))
        if "usage" in content:
            self.add_usage(Usage.model_validate(content["usage"]), content.get("cost"))

    def add_usage(self, usage: Usage, cost: float | None) -> None:
        """Add what a model call used."""
        self.usage = self.usage + usage
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost


def usage_content(
    completed: Completed, state: RunState, *, purpose: str = "answer", repair: bool = False
) -> dict[str, Any]:
    """The content of a `usage` event: what one model call used, and what the fold needs to know of it."""
    return {
        "purpose": purpose,
        "model": completed.model,
        "usage": completed.usage.model_dump(),
        "cost": completed.cost,
        "finish_reason": completed.finish_reason,
        "turn": state.turns,
        "repair": repair,
        "tool_call_ids": [call.id for call in completed.message.tool_calls],
        "time_to_first_token_ms": state.first_text_ms,
        "provider_request_id": completed.provider_request_id,
    }


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
        content = event["content"] if isinstance(event["content"], dict) else {}
        if event["call_id"] == run.call_id:
            if _apply_own(state, row["type"], content):
                settled = row["seq"]
        elif event["parent_call_id"] == run.call_id and "tool_call_id" in content:
            _apply_tool(state, row["type"], content)
    text = tx.one(_LAST_TEXT, {**key, "after": settled})
    state.void_since = text["first"] if text else None
    return state


def _apply_own(state: RunState, type_: str, content: dict[str, Any]) -> bool:
    """Fold an event of the run itself; True if the text before it is accounted for."""
    if type_ in ("user", "start"):
        state.begun = True
        if "tool_call_id" in content:
            state.started_calls.add(content["tool_call_id"])
    elif type_ == "plan":
        state.planned = True
    elif type_ == "reflection":
        state.reflections += 1
    elif type_ == "usage":
        state.add_usage(Usage.model_validate(content["usage"]), content.get("cost"))
        if content["purpose"] != "answer":
            return False
        state.turns += 1
        state.repairs += bool(content.get("repair"))
        state.call_ids.update(content.get("tool_call_ids", ()))
        state.first_text_ms = state.first_text_ms or content.get("time_to_first_token_ms")
        return True
    return type_ == "text_discarded"


def _apply_tool(state: RunState, type_: str, content: dict[str, Any]) -> None:
    if type_ == "start":
        state.started_calls.add(content["tool_call_id"])
    elif type_ == "end":
        state.add_outcome(content)
