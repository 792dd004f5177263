"""Which caps hold, how much of them is left, when they begin anew. Plain rules, for the meter and the service."""

import time
from typing import NamedTuple

from agentflow_server.kit.clock import SECOND, from_datetime, to_datetime
from agentflow_server.resources.usage import store
from agentflow_server.resources.usage.store import WHOLE_TENANT
from agentflow_server.storage import Tx

NANO = 1_000_000_000


class Defaults(NamedTuple):
    """Caps that hold where no admin has set one, billionths of a US dollar; None is no cap."""

    tenant: int | None = None
    user: int | None = None


class Effective(NamedTuple):
    """A cap that holds. `user_id` is empty for the whole tenant's; `override`: an admin has set it."""

    user_id: str
    cap: int | None
    override: bool


class Standing(NamedTuple):
    """How much of a cap is used."""

    effective: Effective
    spent: int
    reserved: int


def month_of(micros: int) -> str:
    """The calendar month (UTC) of an instant: `2026-11`."""
    return time.strftime("%Y-%m", time.gmtime(micros / SECOND))


def next_month(micros: int) -> int:
    """The instant the next calendar month (UTC) begins."""
    now = to_datetime(micros)
    years, month = divmod(now.month, 12)
    start = now.replace(year=now.year + years, month=month + 1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return from_datetime(start)


def nano(dollars: float) -> int:
    """US dollars in billionths."""
    return round(dollars * NANO)


def effective(tx: Tx, user_id: str, defaults: Defaults) -> tuple[Effective, Effective]:
    """The caps of the tenant and of a user: one set for the user, else one set for every user, else the default."""
    caps = {(cap.scope, cap.user_id): cap.cap for cap in store.caps_for(tx, user_id)}
    whole, each, own = caps.get(("tenant", "")), caps.get(("users", "")), caps.get(("user", user_id))
    return (
        Effective(WHOLE_TENANT, defaults.tenant if whole is None else whole, whole is not None),
        Effective(user_id, own if own is not None else (each if each is not None else defaults.user), own is not None),
    )


def standing(tx: Tx, held: Effective, month: str, now: int) -> Standing:
    """How much of a cap is used."""
    return Standing(held, store.spent(tx, month, held.user_id), store.reserved(tx, held.user_id, now))
