"""The ledger: one row a job, on the platform's own database. Plain functions over a transaction.

A job is `ready` (may be claimed once its time has come), `running` (leased to one worker), `waiting` (for a person or
another job; no worker holds it), `done`, `failed` or `cancelled`. Each claim raises the job's fence; a write that
carries an older fence is refused, so a worker that slept through its lease cannot do harm (Kleppmann, "How to do
distributed locking", 2016).
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow_server.kit.ids import new_id
from agentflow_server.storage import Row, Tx


class LeaseLostError(RuntimeError):
    """The worker no longer owns the job: another one has claimed it, or it was settled."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be written.

    Args:
        kind: names the handler. queue: the worker pool it runs in.
        run_at: earliest start, microseconds since the epoch.
        dedupe_key: at most one job of this tenant and kind carries it; a second one is not written.
        owner: claimed at birth by this worker, so that no claim is needed.
    """

    tenant: str
    kind: str
    queue: str = "default"
    payload: dict[str, Any] = field(default_factory=dict[str, Any])
    id: str = field(default_factory=new_id)
    run_at: int = 0
    priority: int = 0
    max_attempts: int = 5
    dedupe_key: str | None = None
    status: str = "ready"
    owner: str | None = None
    lease_until: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job, as its handler sees it."""

    tenant: str
    id: str
    kind: str
    queue: str
    payload: dict[str, Any]
    fence: int
    attempts: int
    max_attempts: int
    run_at: int = 0


_INSERT = (
    "INSERT INTO jobs (tenant, id, queue, kind, status, priority, run_at, lease_owner, lease_until, fence, attempts,"
    " max_attempts, dedupe_key, payload, created_at, updated_at) VALUES (:tenant, :id, :queue, :kind, :status,"
    " :priority, :run_at, :owner, :lease, :fence, :fence, :max_attempts, :dedupe, :payload, :now, :now)"
    " ON CONFLICT DO NOTHING"
)
_IS_DUE = "((status = 'ready' AND run_at <= :now) OR (status = 'running' AND lease_until < :now))"
_KINDS_DUE = f"SELECT DISTINCT queue, kind FROM jobs WHERE {_IS_DUE}"  # noqa: S608 - constants
# Turn by turn: the first job of every tenant, then the second of each; a tenant's jobs that run already count as turns.
_DUE = (
    "SELECT due.tenant, due.id FROM (SELECT tenant, id, priority, run_at, ROW_NUMBER() OVER (PARTITION BY tenant"  # noqa: S608
    f" ORDER BY priority DESC, run_at, id) AS turn FROM jobs WHERE queue = :queue AND {{known}} AND {_IS_DUE}) AS due"
    " LEFT JOIN (SELECT tenant, COUNT(*) AS busy FROM jobs WHERE queue = :queue AND status = 'running'"
    " AND lease_until >= :now GROUP BY tenant) AS held ON held.tenant = due.tenant"
    " ORDER BY due.priority DESC, due.turn + COALESCE(held.busy, 0), due.run_at, due.id LIMIT :limit"
)
_KNOWN = {
    "sqlite": "kind IN (SELECT value FROM json_each(:kinds))",
    "postgresql": "kind = ANY(ARRAY(SELECT json_array_elements_text(CAST(:kinds AS json))))",
}
_LOCK = "SELECT 1 AS ok FROM jobs WHERE tenant = :tenant AND id = :id FOR UPDATE SKIP LOCKED"
_TAKE = (
    "UPDATE jobs SET status = 'running', lease_owner = :owner, lease_until = :lease, fence = fence + 1,"  # noqa: S608
    f" attempts = attempts + 1, updated_at = :now WHERE tenant = :tenant AND id = :id AND queue = :queue AND {_IS_DUE}"
    " RETURNING tenant, id, kind, queue, payload, fence, attempts, max_attempts, run_at"
)
_TAKE_ONE = (
    "UPDATE jobs SET status = 'running', lease_owner = :owner, lease_until = :lease, fence = fence + 1,"
    " attempts = attempts + 1, updated_at = :now WHERE tenant = :tenant AND id = :id AND status = 'ready' AND {which}"
    " RETURNING tenant, id, kind, queue, payload, fence, attempts, max_attempts, run_at"
)
_OWNED = "tenant = :tenant AND id = :id AND fence = :fence AND status = 'running'"


def job_of(row: Row) -> Job:
    """The job in a row of the ledger."""
    return Job(
        row["tenant"], row["id"], row["kind"], row["queue"], json.loads(row["payload"]),
        row["fence"], row["attempts"], row["max_attempts"], row["run_at"],
    )  # fmt: skip


def enqueue(tx: Tx, job: NewJob, now: int) -> bool:
    """Write a job; False if its id or its dedupe key is there already."""
    status = "running" if job.owner else job.status
    return (
        tx.execute(
            _INSERT,
            {
                "tenant": job.tenant, "id": job.id, "queue": job.queue, "kind": job.kind, "status": status,
                "priority": job.priority, "run_at": job.run_at or now, "owner": job.owner, "lease": job.lease_until,
                "fence": 1 if job.owner else 0, "max_attempts": job.max_attempts, "dedupe": job.dedupe_key,
                "payload": json.dumps(job.payload), "now": now,
            },
        )
        == 1
    )  # fmt: skip


def ensure(tx: Tx, job: NewJob, now: int) -> None:
    """Write a job, unless one with its dedupe key is there: that one then does not end before this unit."""
    held = " FOR SHARE" if tx.dialect == "postgresql" else ""
    key = {"tenant": job.tenant, "kind": job.kind, "dedupe": job.dedupe_key}
    same = "SELECT 1 AS ok FROM jobs WHERE tenant = :tenant AND kind = :kind AND dedupe_key = :dedupe"
    while not enqueue(tx, job, now) and tx.one(f"{same}{held}", key) is None:
        pass


def exists(tx: Tx, tenant: str, job_id: str) -> bool:
    """Whether there is such a job, however it stands."""
    found = "SELECT 1 AS ok FROM jobs WHERE tenant = :tenant AND id = :id"
    return tx.one(found, {"tenant": tenant, "id": job_id}) is not None


def born_claimed(job: NewJob) -> Job:
    """The claimed form of a job that was written with its owner."""
    return Job(job.tenant, job.id, job.kind, job.queue, job.payload, 1, 1, job.max_attempts)


def due(tx: Tx, now: int) -> set[tuple[str, str]]:
    """The (queue, kind) of which a job may be claimed now."""
    return {(row["queue"], row["kind"]) for row in tx.all(_KINDS_DUE, {"now": now})}


def claim(
    tx: Tx, *, queue: str, kinds: Collection[str], owner: str, limit: int, now: int, lease_until: int
) -> list[Job]:
    """Take up to `limit` due jobs of a queue for `owner`, turn by turn among tenants. Runs over all tenants.

    A job that another process is just taking, or writing for, is passed over; so is one of a kind that is not among
    `kinds`: a newer version has written it, and will run it.
    """
    claimed: list[Job] = []
    wanted = {"queue": queue, "kinds": json.dumps(sorted(kinds)), "now": now, "limit": limit}
    for due in tx.all(_DUE.format(known=_KNOWN[tx.dialect]), wanted):
        key = {"tenant": due["tenant"], "id": due["id"]}
        if tx.dialect == "postgresql" and tx.one(_LOCK, key) is None:
            continue
        row = tx.one(_TAKE, {**key, "queue": queue, "owner": owner, "lease": lease_until, "now": now})
        if row is not None:
            claimed.append(job_of(row))
    return claimed


def take(tx: Tx, tenant: str, job_id: str, fence: int, *, owner: str, now: int, lease_until: int) -> Job | None:
    """Take the one job that was announced as ready with this fence; None if it has been taken or ended since."""
    key = {"tenant": tenant, "id": job_id, "fence": fence, "owner": owner, "now": now, "lease": lease_until}
    row = tx.one(_TAKE_ONE.format(which="fence = :fence"), key)
    return None if row is None else job_of(row)


def take_unwanted(tx: Tx, tenant: str, job_id: str, *, owner: str, now: int, lease_until: int) -> Job | None:
    """Take a job that waits for its turn and that somebody asked to cancel; None if it does not."""
    key = {"tenant": tenant, "id": job_id, "owner": owner, "now": now, "lease": lease_until}
    row = tx.one(_TAKE_ONE.format(which="cancel_requested = 1"), key)
    return None if row is None else job_of(row)


def revive(tx: Tx, now: int) -> int:
    """Make running jobs ready whose workers have been silent for too long; returns how many. Over all tenants."""
    return tx.execute(
        "UPDATE jobs SET status = 'ready', lease_owner = NULL, updated_at = :now"
        " WHERE status = 'running' AND lease_until < :now",
        {"now": now},
    )


def keep_due(tx: Tx, before: int, now: int) -> None:
    """After a clock was set back from `before` to `now`: what was due stays due."""
    tx.execute(
        "UPDATE jobs SET run_at = :now WHERE status = 'ready' AND run_at > :now AND run_at <= :before",
        {"before": before, "now": now},
    )


def next_due(tx: Tx) -> int | None:
    """When the next ready job may start, or None."""
    row = tx.one("SELECT MIN(run_at) AS at FROM jobs WHERE status = 'ready'")
    return row["at"] if row else None


def depths(tx: Tx, now: int) -> dict[str, int]:
    """How many jobs are due in each queue, over all tenants."""
    rows = tx.all(f"SELECT queue, COUNT(*) AS n FROM jobs WHERE {_IS_DUE} GROUP BY queue", {"now": now})  # noqa: S608
    return {row["queue"]: row["n"] for row in rows}


def backlog(tx: Tx, queue: str, most: int) -> int:
    """How many jobs of this tenant wait in a queue, counted up to `most`. `tx` is bound to the tenant."""
    row = tx.one(
        "SELECT COUNT(*) AS n FROM (SELECT 1 FROM jobs WHERE tenant = :tenant AND queue = :queue"
        " AND status IN ('ready', 'waiting') LIMIT :most) AS waiting",
        {"queue": queue, "most": most},
    )
    return row["n"] if row else 0


def renew(tx: Tx, jobs: Sequence[Job], *, owner: str, lease_until: int) -> list[Job]:
    """Lengthen the leases of jobs that are alive; returns those that `owner` has lost."""
    lost: list[Job] = []
    for job in jobs:
        key = {"tenant": job.tenant, "id": job.id, "fence": job.fence, "owner": owner, "lease": lease_until}
        if tx.execute(f"UPDATE jobs SET lease_until = :lease WHERE {_OWNED} AND lease_owner = :owner", key) == 1:  # noqa: S608
            continue
        row = tx.one("SELECT fence FROM jobs WHERE tenant = :tenant AND id = :id", key)
        if row is None or row["fence"] != job.fence:
            lost.append(job)
    return lost


def wanted_gone(tx: Tx, owner: str) -> list[tuple[str, str]]:
    """(tenant, id) of the running jobs of `owner` that somebody asked to cancel."""
    rows = tx.all(
        "SELECT tenant, id FROM jobs WHERE status = 'running' AND cancel_requested = 1 AND lease_owner = :owner",
        {"owner": owner},
    )
    return [(row["tenant"], row["id"]) for row in rows]


def check_fence(tx: Tx, job: Job) -> None:
    """Raise LeaseLostError unless the worker still owns the job. Part of every unit a worker writes."""
    held = " FOR NO KEY UPDATE" if tx.dialect == "postgresql" else ""  # nobody claims it until we have committed
    if tx.one(f"SELECT 1 AS ok FROM jobs WHERE {_OWNED}{held}", _key(job)) is None:  # noqa: S608 - constants
        raise LeaseLostError(f"job {job.id} is no longer owned by this worker")


def settle(tx: Tx, job: Job, status: str, now: int, *, result: Any = None, error: str | None = None) -> None:
    """End a job as `done`, `failed` or `cancelled`."""
    _own(
        tx,
        "UPDATE jobs SET status = :status, lease_owner = NULL, result = :result, error = :error, dedupe_key = NULL,"  # noqa: S608
        f" updated_at = :now WHERE {_OWNED}",
        {**_key(job), "status": status, "result": None if result is None else json.dumps(result), "error": error,
         "now": now},
    )  # fmt: skip


def park(tx: Tx, job: Job, now: int) -> None:
    """Let go of a job until `wake`: it waits for an answer, and nobody holds it.

    One whose cancellation was asked for does not wait: a worker comes and ends it.
    """
    _own(
        tx,
        "UPDATE jobs SET status = CASE cancel_requested WHEN 1 THEN 'ready' ELSE 'waiting' END, lease_owner = NULL,"  # noqa: S608
        f" run_at = :now, updated_at = :now WHERE {_OWNED}",
        {**_key(job), "now": now},
    )


def release(tx: Tx, job: Job, now: int, *, run_at: int = 0, unused: bool = False) -> None:
    """Give a job back to be claimed again: at once, or at `run_at`; if it was not begun, its attempt does not count."""
    _own(
        tx,
        "UPDATE jobs SET status = 'ready', lease_owner = NULL, run_at = :run_at, updated_at = :now,"  # noqa: S608
        f" attempts = attempts - :unused WHERE {_OWNED}",
        {**_key(job), "run_at": run_at or now, "now": now, "unused": int(unused)},
    )


def wake(tx: Tx, tenant: str, job_id: str, now: int, *, run_at: int = 0) -> bool:
    """Make a waiting job ready; False if it was not waiting."""
    return (
        tx.execute(
            "UPDATE jobs SET status = 'ready', run_at = :run_at, updated_at = :now"
            " WHERE tenant = :tenant AND id = :id AND status = 'waiting'",
            {"tenant": tenant, "id": job_id, "run_at": run_at or now, "now": now},
        )
        == 1
    )


def request_cancel(tx: Tx, tenant: str, job_id: str, now: int) -> str | None:
    """Ask for a job to be cancelled; returns its status, or None if there is no such job.

    A waiting job is made ready, so that a worker comes and ends it.
    """
    row = tx.one(
        "UPDATE jobs SET cancel_requested = 1, updated_at = :now,"
        " status = CASE status WHEN 'waiting' THEN 'ready' ELSE status END,"
        " run_at = CASE status WHEN 'waiting' THEN :now ELSE run_at END"
        " WHERE tenant = :tenant AND id = :id RETURNING status",
        {"tenant": tenant, "id": job_id, "now": now},
    )
    return row["status"] if row else None


def cancel_requested(tx: Tx, tenant: str, job_id: str) -> bool:
    """Whether somebody asked for the job to be cancelled."""
    row = tx.one(
        "SELECT cancel_requested FROM jobs WHERE tenant = :tenant AND id = :id", {"tenant": tenant, "id": job_id}
    )
    return bool(row and row["cancel_requested"])


def abandon_leases(tx: Tx) -> None:
    """Make every lease overdue. Only for the embedded server, which owns its folder alone: no other worker lives."""
    tx.execute("UPDATE jobs SET lease_until = 0 WHERE status = 'running'")


def _key(job: Job) -> dict[str, Any]:
    return {"tenant": job.tenant, "id": job.id, "fence": job.fence}


def _own(tx: Tx, sql: str, params: dict[str, Any]) -> None:
    if tx.execute(sql, params) != 1:
        raise LeaseLostError(f"job {params['id']} is no longer owned by this worker")
