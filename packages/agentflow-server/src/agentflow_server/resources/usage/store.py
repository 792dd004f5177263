"""Rows of model calls, what a month's spending is, what is set aside, and caps. Money is in billionths of a dollar."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from agentflow_server.storage import Row, Tx

Group = Literal["model", "agent_id", "user_id", "purpose"]
_COLUMNS = (
    "id", "at", "user_id", "agent_id", "run_id", "purpose", "provider", "model", "status", "input_tokens",
    "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost", "latency_us", "first_us", "estimated",
    "own_key",
)  # fmt: skip
_SUMS = (
    "COUNT(*) AS calls, SUM(CASE WHEN status = 'completed' THEN 0 ELSE 1 END) AS unfinished,"
    " COALESCE(SUM(input_tokens), 0) AS input_tokens, COALESCE(SUM(cached_input_tokens), 0) AS cached_input_tokens,"
    " COALESCE(SUM(output_tokens), 0) AS output_tokens, COALESCE(SUM(reasoning_tokens), 0) AS reasoning_tokens,"
    " COALESCE(SUM(cost), 0) AS cost, SUM(CASE WHEN cost IS NULL THEN 1 ELSE 0 END) AS unpriced,"
    " COALESCE(AVG(latency_us), 0) AS latency_us"
)
_INSERT = (
    f"INSERT INTO model_calls (tenant, {', '.join(_COLUMNS)})"  # noqa: S608 - constants
    f" VALUES (:tenant, {', '.join(f':{name}' for name in _COLUMNS)})"
)
_SPEND = (
    "INSERT INTO spend (tenant, month, user_id, cost, calls) VALUES (:tenant, :month, :user, :cost, 1)"
    " ON CONFLICT (tenant, month, user_id) DO UPDATE SET cost = spend.cost + :cost, calls = spend.calls + 1"
)
WHOLE_TENANT = ""


class Cap(NamedTuple):
    """What may be spent in a month: by the `tenant`, by each of its `users`, by one `user`."""

    scope: str
    user_id: str
    cap: int


def record(tx: Tx, row: dict[str, Any], month: str) -> None:
    """Keep a call, and add it to what the tenant and the user have spent in the month."""
    tx.execute(_INSERT, row)
    for user in (WHOLE_TENANT, row["user_id"]):
        tx.execute(_SPEND, {"month": month, "user": user, "cost": row["cost"] or 0})


def spent(tx: Tx, month: str, user_id: str) -> int:
    """What was spent in a month by a user, or by the whole tenant."""
    row = tx.one(
        "SELECT cost FROM spend WHERE tenant = :tenant AND month = :month AND user_id = :user",
        {"month": month, "user": user_id},
    )
    return row["cost"] if row else 0


def spent_by_user(tx: Tx, month: str) -> dict[str, int]:
    """What each user has spent in a month."""
    rows = tx.all(
        "SELECT user_id, cost FROM spend WHERE tenant = :tenant AND month = :month AND user_id <> :whole",
        {"month": month, "whole": WHOLE_TENANT},
    )
    return {row["user_id"]: row["cost"] for row in rows}


def reserve(tx: Tx, reservation: str, user_id: str, amount: int, expires_at: int) -> None:
    """Set something aside."""
    tx.execute(
        "INSERT INTO spend_reservations (tenant, id, user_id, amount, expires_at)"
        " VALUES (:tenant, :id, :user, :amount, :expires)",
        {"id": reservation, "user": user_id, "amount": amount, "expires": expires_at},
    )


def release(tx: Tx, reservation: str) -> None:
    """Give back what was set aside."""
    tx.execute("DELETE FROM spend_reservations WHERE tenant = :tenant AND id = :id", {"id": reservation})


def expire(tx: Tx, now: int) -> None:
    """Forget what was set aside by processes that died."""
    tx.execute("DELETE FROM spend_reservations WHERE tenant = :tenant AND expires_at < :now", {"now": now})


def reserved(tx: Tx, user_id: str, now: int) -> int:
    """What is set aside for running calls of a user, or of the whole tenant."""
    row = tx.one(
        "SELECT COALESCE(SUM(amount), 0) AS amount FROM spend_reservations WHERE tenant = :tenant"
        " AND expires_at >= :now AND (:user = '' OR user_id = :user)",
        {"user": user_id, "now": now},
    )
    return int(row["amount"]) if row else 0


def caps(tx: Tx) -> list[Cap]:
    """Every cap that an admin has set."""
    rows = tx.all("SELECT scope, user_id, cap FROM budgets WHERE tenant = :tenant ORDER BY scope, user_id")
    return [Cap(row["scope"], row["user_id"], row["cap"]) for row in rows]


def caps_for(tx: Tx, user_id: str) -> list[Cap]:
    """The caps that hold for a user: the tenant's, every user's, its own."""
    rows = tx.all(
        "SELECT scope, user_id, cap FROM budgets WHERE tenant = :tenant AND (scope <> 'user' OR user_id = :user)",
        {"user": user_id},
    )
    return [Cap(row["scope"], row["user_id"], row["cap"]) for row in rows]


def set_cap(tx: Tx, cap: Cap, now: int, by: str) -> None:
    """Set a cap, or change it."""
    tx.execute(
        "INSERT INTO budgets (tenant, scope, user_id, cap, updated_at, updated_by)"
        " VALUES (:tenant, :scope, :user, :cap, :now, :by) ON CONFLICT (tenant, scope, user_id)"
        " DO UPDATE SET cap = :cap, updated_at = :now, updated_by = :by",
        {"scope": cap.scope, "user": cap.user_id, "cap": cap.cap, "now": now, "by": by},
    )


def clear_cap(tx: Tx, scope: str, user_id: str) -> None:
    """Remove a cap; the default holds again."""
    tx.execute(
        "DELETE FROM budgets WHERE tenant = :tenant AND scope = :scope AND user_id = :user",
        {"scope": scope, "user": user_id},
    )


def totals(tx: Tx, since: int, user_id: str | None) -> Row:
    """Sums over the calls since an instant, of one user or of all."""
    row = tx.one(f"SELECT {_SUMS} FROM model_calls WHERE {_where(user_id)}", _params(since, user_id))  # noqa: S608
    assert row is not None
    return row


def grouped(tx: Tx, group: Group, since: int, user_id: str | None, limit: int) -> list[Row]:
    """The same by model, agent, user or purpose; the dearest first."""
    return tx.all(
        f"SELECT {group} AS name, {_SUMS} FROM model_calls WHERE {_where(user_id)}"  # noqa: S608 - constants
        f" GROUP BY {group} ORDER BY cost DESC, calls DESC LIMIT :limit",
        {**_params(since, user_id), "limit": limit},
    )


def by_day(tx: Tx, since: int, user_id: str | None) -> list[Row]:
    """The same by day (UTC); `name` is the number of the day since the epoch."""
    return tx.all(
        f"SELECT at / 86400000000 AS name, {_SUMS} FROM model_calls WHERE {_where(user_id)}"  # noqa: S608
        " GROUP BY at / 86400000000 ORDER BY name",
        _params(since, user_id),
    )


def calls(tx: Tx, since: int, user_id: str | None, run_id: str | None, limit: int, offset: int) -> Sequence[Row]:
    """Single calls, newest first."""
    return tx.all(
        f"SELECT {', '.join(_COLUMNS)} FROM model_calls WHERE {_where(user_id, run_id)}"  # noqa: S608 - constants
        " ORDER BY at DESC, id DESC LIMIT :limit OFFSET :offset",
        {**_params(since, user_id, run_id), "limit": limit, "offset": offset},
    )


def count(tx: Tx, since: int, user_id: str | None, run_id: str | None) -> int:
    """How many calls there are."""
    row = tx.one(
        f"SELECT COUNT(*) AS n FROM model_calls WHERE {_where(user_id, run_id)}",  # noqa: S608 - constants
        _params(since, user_id, run_id),
    )
    return row["n"] if row else 0


def _where(user_id: str | None, run_id: str | None = None) -> str:
    own = " AND user_id = :user" if user_id is not None else ""
    run = " AND run_id = :run" if run_id is not None else ""
    return f"tenant = :tenant AND at >= :since{own}{run}"


def _params(since: int, user_id: str | None, run_id: str | None = None) -> dict[str, Any]:
    given = {"since": since, "user": user_id, "run": run_id}
    return {name: value for name, value in given.items() if value is not None}
