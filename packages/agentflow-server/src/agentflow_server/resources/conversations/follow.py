"""What conversations note when a run ends. Called inside the transaction that ends it."""

from typing import Any

from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.kit.clock import Clock
from agentflow_server.resources.conversations import store
from agentflow_server.runtime.engine import Follower
from agentflow_server.storage import Tx


def follower(clock: Clock) -> Follower:
    """Counts the answer, and moves the conversation to the top of the list."""

    def follow(tx: Tx, run: RunHeader, result: dict[str, Any] | None) -> None:
        if run.is_root:
            answered = int(bool(result and result["text"]))
            store.touch(tx, run.tenant, run.conversation_id, messages=answered, now=clock.micros())

    return follow
