"""What happens when a sub-agent's run ends: its parent is woken. Called inside the transaction that ends it."""

import json
from typing import Any

from agentflow_server.eventlog import runs
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.jobs import ledger
from agentflow_server.kit.clock import Clock
from agentflow_server.runtime.engine import Follower
from agentflow_server.storage import Tx


def follower(clock: Clock) -> Follower:
    """Wakes the run that waits for this one; cancels what a failed run has left behind."""

    def follow(tx: Tx, run: RunHeader, result: dict[str, Any] | None) -> None:
        now = clock.micros()
        if run.parent_run_id is not None:
            ledger.wake(tx, run.tenant, run.parent_run_id, now)
        if result is None:
            for run_id in runs.descendants(tx, run):
                if not _in_background(tx, run.tenant, run_id):
                    ledger.request_cancel(tx, run.tenant, run_id, now)

    return follow


def _in_background(tx: Tx, tenant: str, run_id: str) -> bool:
    run = runs.by_id(tx, tenant, run_id)
    return run is not None and bool(json.loads(run.plan).get("background"))
