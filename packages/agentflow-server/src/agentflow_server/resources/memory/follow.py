"""What memory notes when a run ends: its conversation has news, to be consolidated once it has settled."""

from typing import Any

from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.jobs import NewJob, ledger
from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.memory import store
from agentflow_server.resources.memory.consolidation import KIND, QUEUE
from agentflow_server.resources.memory.store import Pending
from agentflow_server.runtime.engine import Follower
from agentflow_server.storage import Tx


def follower(clock: Clock, settings: Settings) -> Follower:
    """Puts the conversation's turn off with every run, and sees that one job of the user will come for it."""

    def follow(tx: Tx, run: RunHeader, result: dict[str, Any] | None) -> None:
        if not settings.memory_consolidation or not run.is_root or result is None:
            return
        now = clock.micros()
        due = now + int(settings.memory_idle_seconds * SECOND)
        news = Pending(run.user_id, run.conversation_id, run.agent_id, run.first_seq - 1, due, 0)
        store.note_pending(tx, run.tenant, news)
        job = NewJob(
            run.tenant, KIND, QUEUE, {"user_id": run.user_id}, run_at=due, max_attempts=20, dedupe_key=run.user_id
        )
        ledger.ensure(tx, job, now)

    return follow
