"""Who a run is: the ids every event carries, and the job that proves this process still owns it."""

from dataclasses import dataclass

from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.jobs import Job
from agentflow_server.runtime.plan import Plan


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run that is being driven."""

    run: RunHeader
    plan: Plan
    job: Job
    parent_call_id: str | None

    @property
    def tenant(self) -> str:
        return self.run.tenant

    @property
    def depth(self) -> int:
        """0 for a root run, 1 for a sub-agent's, and so on."""
        return int(self.plan.settings.get("depth", 0))
