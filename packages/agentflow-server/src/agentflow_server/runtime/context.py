"""Who a run is: the ids every event carries, and the job that proves this process still owns it."""

from dataclasses import dataclass

from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.gateway import Attribution
from agentflow_server.jobs import Job
from agentflow_server.runtime.plan import Plan


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run that is being driven."""

    run: RunHeader
    plan: Plan
    job: Job

    @property
    def tenant(self) -> str:
        return self.run.tenant

    def attribution(self, purpose: str = "answer") -> Attribution:
        """For whom this run asks a model."""
        run = self.run
        return Attribution(run.tenant, run.user_id, run.agent_id, run.id, purpose)

    @property
    def thread(self) -> str:
        """The thread the run writes to: the conversation's own for a root run, its own (or an elder's) for a child."""
        return "" if self.run.is_root else self.plan.thread or self.run.call_id
