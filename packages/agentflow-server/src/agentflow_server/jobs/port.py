"""The port between jobs and what brings them to a worker.

The ledger (`jobs.ledger`) is the record of every job, written in the transaction that also writes what a job is about.
An engine hands jobs that are due to the worker of its process: `jobs.claims` takes them from the ledger itself,
`jobs.dbos` lets a durable engine that an organisation already runs do it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agentflow_server.jobs.ledger import Job
from agentflow_server.storage.errors import StorageUnavailableError

logger = logging.getLogger(__name__)
_PAUSE = 1.0


class Workplace(Protocol):
    """What an engine knows of the worker it brings jobs to; see `Worker`."""

    owner: str
    lease_seconds: float
    stopping: bool

    @property
    def queues(self) -> Mapping[str, int]: ...
    def kinds(self, queue: str) -> Collection[str]: ...
    def free(self, queue: str) -> int: ...
    def places(self, queue: str, limit: int) -> AbstractContextManager[int]: ...
    def lease_until(self) -> int: ...
    def was_rung(self) -> bool: ...
    async def watch_clock(self) -> int: ...
    def run(self, job: Job) -> "asyncio.Task[Any]": ...


class Engine(Protocol):
    """Brings due jobs to a worker. What it promises is in `tests/conformance/test_job_engine.py`."""

    async def start(self, worker: Workplace) -> None:
        """Begin to hand jobs to `worker`, of the kinds it knows, and no more at once than its queues allow."""
        ...

    def ring(self) -> None:
        """There may be new work, or a free place for it."""
        ...

    async def stop(self) -> None:
        """Hand out no more jobs. Called before the running ones are interrupted."""
        ...

    async def close(self) -> None:
        """Give back what it holds. Called when no job runs any more."""
        ...


async def forever(step: Callable[[], Awaitable[None]]) -> None:
    """Repeat a step; a database that cannot be used for a while ends nothing."""
    while True:
        try:
            await step()
        except StorageUnavailableError as error:
            logger.warning("the worker waits for its database", extra={"reason": error.message})
            await asyncio.sleep(_PAUSE)
