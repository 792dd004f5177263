"""DBOS as the engine: for organisations that already run it, and want to see and steer the platform's work there.

Every time a job becomes ready, a trigger on the ledger enqueues a DBOS workflow in the same transaction, so neither is
ever without the other. DBOS dequeues it in some process, tenant by tenant, and the workflow takes the job from the
ledger with the next fence and runs it; it returns when the job has ended, waits, or was given back. What happens to a
job is decided by its fence alone: a workflow that DBOS runs twice, or too late, finds that its job has moved on.

DBOS by itself brings back the work of a process only when one of the same name starts again. Here it is the lease that
tells that a process is gone: its jobs are made ready, which enqueues them anew.

Arguments are DBOS's portable JSON (docs.dbos.dev, "Cross-language interaction"); nothing is pickled.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta

from agentflow_server.jobs import ledger
from agentflow_server.jobs.ledger import Job
from agentflow_server.jobs.port import Workplace, forever
from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.kit.settings import SettingsError
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.errors import StorageUnavailableError

Attempt = Callable[[str, str, int], Coroutine[None, None, None]]
logger = logging.getLogger(__name__)
WORKFLOW = "agentflow_job"
_APPLICATION = "agentflow"
_POLL_SECONDS = 0.25
_PAUSE = 1.0
_UNKNOWN_AGAIN = 5 * SECOND
_KEPT = timedelta(days=1)
_TIDIED_EVERY = 3600.0
_AT_ONCE = 500
_FINISHED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_ID = "jobs.tenant || '/' || jobs.id || '/' || jobs.fence"
_ANNOUNCE = f"""
CREATE OR REPLACE FUNCTION agentflow_announce_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM dbos.enqueue_workflow(
    workflow_name => '{WORKFLOW}', queue_name => '{_APPLICATION}.' || NEW.queue,
    positional_args => ARRAY[to_json(NEW.tenant), to_json(NEW.id), to_json(NEW.fence)],
    workflow_id => NEW.tenant || '/' || NEW.id || '/' || NEW.fence, app_version => '{_APPLICATION}',
    priority => CAST(greatest(1, 1000000 - NEW.priority) AS integer), queue_partition_key => NEW.tenant,
    application_name => '{_APPLICATION}',
    delay_until_epoch_ms => CASE WHEN NEW.run_at > EXTRACT(EPOCH FROM clock_timestamp()) * 1000000
      THEN NEW.run_at / 1000 + 1 END
  );
  RETURN NULL;
END $$
"""
_TRIGGERS = {
    "agentflow_ready_job": "AFTER INSERT ON jobs FOR EACH ROW WHEN (NEW.status = 'ready')",
    "agentflow_job_ready_again": "AFTER UPDATE OF status, fence ON jobs FOR EACH ROW"
    " WHEN (NEW.status = 'ready' AND (OLD.status <> 'ready' OR OLD.fence <> NEW.fence))",
}
_HAS_TRIGGER = "SELECT 1 AS ok FROM pg_trigger WHERE tgname = :name AND tgrelid = 'jobs'::regclass"
# Ready for a while, and DBOS is not about to run it: its process died between the two, or the job is older than this
# engine. The next fence gives it a workflow of its own.
_ANNOUNCE_LOST = (
    "UPDATE jobs SET fence = fence + 1, updated_at = :now WHERE status = 'ready' AND run_at < :silent"  # noqa: S608
    " AND updated_at < :silent AND NOT EXISTS (SELECT 1 FROM dbos.workflow_status AS w"
    f" WHERE w.workflow_uuid = {_ID} AND (w.status IN ('ENQUEUED', 'DELAYED')"
    " OR (w.status = 'PENDING' AND w.updated_at * 1000 > :silent)))"
)
_LEFT_BEHIND = (
    "SELECT w.workflow_uuid AS id FROM dbos.workflow_status AS w WHERE w.name = :name AND w.status = 'PENDING'"
    " AND w.updated_at * 1000 < :silent AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.status = 'running'"
    " AND jobs.tenant || '/' || jobs.id || '/' || (jobs.fence - 1) = w.workflow_uuid) LIMIT :most"
)
_one_at_a_time = threading.Lock()


class DbosEngine:
    """Brings jobs through DBOS's queues, one for each of the worker's. DBOS allows one of them in a process.

    Args:
        url: the platform's own database, `postgresql://…`; DBOS keeps its tables there in the schema `dbos`.

    Raises:
        SettingsError: DBOS is not installed.
    """

    def __init__(self, db: Database, clock: Clock, url: str) -> None:
        try:
            import dbos  # pyright: ignore[reportUnusedImport] # noqa: F401
        except ImportError:
            raise SettingsError(
                "AGENTFLOW_JOB_ENGINE: dbos is not installed; install it with: pip install 'agentflow-server[dbos]'"
            ) from None
        self._db = db
        self._clock = clock
        self._url = url
        self._launched = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, worker: Workplace) -> None:
        if not _one_at_a_time.acquire(blocking=False):
            raise SettingsError("AGENTFLOW_JOB_ENGINE: DBOS runs once in a process, and another server here uses it")
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._launched = True
        await asyncio.to_thread(self._launch)
        await self._db.write(_install)
        self._tasks = [
            asyncio.create_task(forever(self._look_after)),
            asyncio.create_task(forever(self._tidy)),
        ]

    def ring(self) -> None:
        """DBOS looks by itself."""

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        if self._launched:
            await asyncio.to_thread(_destroy)
            _one_at_a_time.release()
            self._launched = False

    def _launch(self) -> None:
        """Start DBOS beside the server's loop; its log lines join the server's."""
        from dbos import DBOS
        from dbos._serialization import DBOSPortableJSON

        _join_logs()
        DBOS(
            config={
                "name": _APPLICATION, "system_database_url": self._url, "application_version": _APPLICATION,
                "executor_id": self._worker.owner, "serializer": DBOSPortableJSON, "sys_db_pool_size": 4,
                "log_level": "WARNING",
            }
        )  # fmt: skip
        DBOS.workflow(name=WORKFLOW)(_workflow_of(self._attempt, self._loop))
        DBOS.listen_queues([f"{_APPLICATION}.{queue}" for queue in self._worker.queues])
        DBOS.launch()
        for queue, concurrency in self._worker.queues.items():
            DBOS.register_queue(
                f"{_APPLICATION}.{queue}", worker_concurrency=concurrency, partition_worker_concurrency=concurrency,
                polling_interval_sec=_POLL_SECONDS, on_conflict="always_update",
            )  # fmt: skip

    async def _attempt(self, tenant: str, job_id: str, fence: int) -> None:
        job = await self._taken(tenant, job_id, fence)
        if job is None:
            return
        known = job.kind in self._worker.kinds(job.queue)
        if known and not self._worker.stopping:
            await asyncio.wait((self._worker.run(job),))
            return
        now = self._clock.micros()
        later = now if known else now + _UNKNOWN_AGAIN  # a newer version has written it, and will run it
        await self._db.write(lambda tx: ledger.release(tx, job, now, run_at=later, unused=True))

    async def _taken(self, tenant: str, job_id: str, fence: int) -> Job | None:
        worker = self._worker
        while True:
            now = self._clock.micros()
            with contextlib.suppress(StorageUnavailableError):
                return await self._db.write(
                    lambda tx, now=now: ledger.take(
                        tx, tenant, job_id, fence, owner=worker.owner, now=now, lease_until=worker.lease_until()
                    ),
                    serial=False,
                )
            await asyncio.sleep(_PAUSE)

    async def _look_after(self) -> None:
        """Bring back what a process has left that is gone."""
        now = await self._worker.watch_clock()
        silent = now - int(self._worker.lease_seconds * SECOND)

        def unit(tx: Tx) -> None:
            ledger.revive(tx, now)
            tx.execute(_ANNOUNCE_LOST, {"now": now, "silent": silent})

        await self._db.write(unit, serial=False)
        await asyncio.sleep(self._worker.lease_seconds / 3)

    async def _tidy(self) -> None:
        """Remove workflows that have ended a day ago, and those that died with their process."""
        silent = self._clock.micros() - int(_KEPT.total_seconds() * SECOND)
        wanted = {"name": WORKFLOW, "silent": silent, "most": _AT_ONCE}
        left = await self._db.scan(lambda tx: [row["id"] for row in tx.all(_LEFT_BEHIND, wanted)])
        gone = await asyncio.to_thread(_remove, left)
        await asyncio.sleep(1.0 if gone >= _AT_ONCE else _TIDIED_EVERY)


def _workflow_of(attempt: Attempt, loop: asyncio.AbstractEventLoop) -> Attempt:
    """The workflow of one attempt at a job. It works in the server's loop, not in DBOS's."""

    async def workflow(tenant: str, job_id: str, fence: int) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(attempt(tenant, job_id, fence), loop))

    return workflow


def _install(tx: Tx) -> None:
    tx.one("SELECT pg_advisory_xact_lock(hashtext('agentflow_announce_job')) AS ok")
    tx.execute(_ANNOUNCE)
    for name, when in _TRIGGERS.items():
        if tx.one(_HAS_TRIGGER, {"name": name}) is None:
            tx.execute(f"CREATE OR REPLACE TRIGGER {name} {when} EXECUTE FUNCTION agentflow_announce_job()")


def uninstall(tx: Tx) -> None:
    """Let the ledger stand alone again, if DBOS was used before. Its processes then find new work by looking."""
    for name in _TRIGGERS:
        if tx.one(_HAS_TRIGGER, {"name": name}) is not None:
            tx.execute(f"DROP TRIGGER IF EXISTS {name} ON jobs")


def _remove(left: list[str]) -> int:
    """Delete workflows that ended long ago, and some others. DBOS's coroutines would take over the loop's threads."""
    from dbos import DBOS

    ended = DBOS.list_workflows(
        name=WORKFLOW, status=_FINISHED, completed_before=(datetime.now(UTC) - _KEPT).isoformat(), limit=_AT_ONCE,
        load_input=False, load_output=False,
    )  # fmt: skip
    gone = [*(one.workflow_id for one in ended), *left]
    if gone:
        DBOS.delete_workflows(gone)
    return len(gone)


def _join_logs() -> None:
    log = logging.getLogger("dbos")
    for handler in list(log.handlers):
        log.removeHandler(handler)
    log.addHandler(logging.NullHandler())  # without one DBOS adds its own
    log.propagate = True


def _destroy() -> None:
    from dbos import DBOS

    DBOS.destroy(destroy_registry=True)
