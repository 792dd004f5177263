"""What every room stands on: database, blobs, clock, signals, hub, worker; begun and ended together by app.py."""

from collections.abc import Callable
from dataclasses import dataclass

from agentflow_server.eventlog import Hub
from agentflow_server.eventlog.catchup import CatchUp
from agentflow_server.eventlog.packing import Packer
from agentflow_server.jobs import Worker, ledger
from agentflow_server.jobs.port import Engine
from agentflow_server.kit.clock import Clock
from agentflow_server.kit.ids import new_id
from agentflow_server.kit.settings import Settings
from agentflow_server.storage import Database
from agentflow_server.storage.blobs import BlobStorage
from agentflow_server.storage.blobstore import open_store
from agentflow_server.storage.opening import open_clock, open_database, open_signals
from agentflow_server.storage.signals import Signals


@dataclass(frozen=True, slots=True)
class Ground:
    """What the rooms stand on. Ends with the database: what is stopped writes where it stands."""

    db: Database
    unlock: Callable[[], None]
    clock: Clock
    signals: Signals
    hub: Hub
    worker: Worker
    catch_up: CatchUp
    packer: Packer
    blobs: BlobStorage

    async def begin(self) -> None:
        if self.db.dialect == "sqlite":
            await self.db.write(ledger.abandon_leases)
        await self.worker.start()
        self.signals.start(self._look_again)
        self.catch_up.start()
        self.packer.start()
        await self.blobs.begin()

    def _look_again(self) -> None:
        self.hub.wake_all()
        self.worker.ring()

    async def stop(self, patience: float) -> None:
        await self.worker.stop(patience)
        await self.catch_up.stop()
        await self.packer.stop()
        await self.blobs.stop()

    async def close(self) -> None:
        await self.signals.close()
        await self.db.close()
        self.unlock()


def open_ground(settings: Settings, clock: Clock | None) -> Ground:
    """Open the configured database and what goes with it.

    Raises:
        SettingsError: it cannot be used.
    """
    store = open_store(settings)
    db, unlock = open_database(settings)
    clock = clock or open_clock(settings)
    process = new_id()
    signals = open_signals(db, process)
    hub = Hub(signals)
    worker = Worker(
        db, clock, signals, lease_seconds=settings.lease_seconds, owner=process, claims=settings.run_jobs,
        engine=_engine(settings, db, clock),
    )  # fmt: skip
    blobs = BlobStorage(db, clock, store, settings.data / "incoming")
    return Ground(db, unlock, clock, signals, hub, worker, CatchUp(db, hub, clock), Packer(db), blobs)


def _engine(settings: Settings, db: Database, clock: Clock) -> Engine | None:
    """What brings jobs to the worker, if it is not the ledger itself."""
    if settings.job_engine == "ledger" or settings.database_url is None:
        return None
    from agentflow_server.jobs.dbos import DbosEngine

    return DbosEngine(db, clock, settings.database_url.get_secret_value())
