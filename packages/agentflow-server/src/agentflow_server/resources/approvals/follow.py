"""When a run ends, the approvals it still waited for are cancelled. Called in the transaction that ends it."""

from typing import Any

from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.kit.clock import Clock
from agentflow_server.resources.approvals import store
from agentflow_server.runtime.engine import Follower
from agentflow_server.storage import Tx


def follower(clock: Clock) -> Follower:
    """Cancels the run's pending approvals."""

    def follow(tx: Tx, run: RunHeader, result: dict[str, Any] | None) -> None:
        store.cancel_of_run(tx, run.tenant, run.id, clock.micros())

    return follow
