"""The durable ledger of work: claim, lease, fence, settle; and the worker that drives it."""

from agentflow_server.jobs.ledger import Job, LeaseLostError, NewJob
from agentflow_server.jobs.worker import Handler, Settled, Worker

__all__ = ["Handler", "Job", "LeaseLostError", "NewJob", "Settled", "Worker"]
