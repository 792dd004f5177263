"""The gateway's meter: every model call is recorded once, and stops at a budget before it is made.

Reservations live in the database, so parallel calls of all processes see each other, and expire if a process dies.
Without a budget nothing is written before a call.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from agentflow.errors import BudgetExceededError, RateLimitedError

from agentflow_server.gateway import Attribution
from agentflow_server.gateway.ports import CallRecord
from agentflow_server.kit.clock import SECOND, Clock, to_iso
from agentflow_server.kit.ids import new_id
from agentflow_server.resources.usage import budgets, store
from agentflow_server.resources.usage.budgets import NANO, Defaults, Standing, month_of, nano
from agentflow_server.storage import Database, TenantDatabase, Tx, rates

logger = logging.getLogger(__name__)
_PATIENCE = 30.0
_LOOK_AGAIN = 0.5
_MINUTE = 60 * SECOND


class _Answer(NamedTuple):
    """What became of a wish to reserve: its id, or the cap that stood in the way."""

    reservation: str | None
    obstacle: Standing | None = None


class UsageMeter:
    """Counts and bounds model calls.

    Args:
        expire_after: seconds after which what a dead process has set aside is free again.
        rate: model calls a minute of a tenant; 0 sets no limit.
    """

    def __init__(self, db: Database, clock: Clock, defaults: Defaults, *, expire_after: float, rate: int = 0) -> None:
        self._rate = rate
        self._db = db
        self._clock = clock
        self._defaults = defaults
        self._expire_after = int(expire_after * SECOND)
        self._writing: set[asyncio.Future[None]] = set()
        self._settled: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def reserve(self, attribution: Attribution, most: Callable[[], float]) -> str | None:
        """Set aside what a call may cost; see `Meter.reserve`.

        A call that does not fit beside those that are running waits for them for a while. A call that is larger than
        what is left may be made alone: a budget is exceeded by one call at most. What costs nothing is not held up.
        """
        db = self._db.tenant(attribution.tenant)
        await self._pace(db)
        caps = await db.read(lambda tx: budgets.effective(tx, attribution.user_id, self._defaults))
        if all(held.cap is None for held in caps):
            return None
        amount = nano(most())
        if amount == 0:
            return None
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        while True:
            bell = self._settled[attribution.tenant]
            bell.clear()
            answer = await db.write(lambda tx: self._try(tx, attribution, amount))
            if answer.obstacle is None:
                return answer.reservation
            if answer.obstacle.spent >= (answer.obstacle.effective.cap or 0):
                raise self._exceeded(answer.obstacle)
            if loop.time() >= until:
                raise _held(answer.obstacle)
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await bell.wait()
            except TimeoutError:
                pass

    async def _pace(self, db: TenantDatabase) -> None:
        """Wait for the tenant's turn, where calls a minute are limited. The limit holds over all processes."""
        if not self._rate:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        cost = _MINUTE // self._rate
        burst = max(cost, SECOND)
        while True:
            now = self._clock.micros()

            def unit(tx: Tx, now: int = now) -> int:
                if rates.take(tx, "model_calls", cost=cost, period=burst, now=now):
                    return 0
                return max(1, rates.paid_until(tx, "model_calls") + cost - burst - now)

            wait = await db.write(unit) / SECOND
            if not wait:
                return
            if loop.time() + wait > until:
                raise RateLimitedError(
                    f"the tenant has made its {self._rate} model calls a minute",
                    details={"limit": self._rate, "window_seconds": 60},
                    retry_after=wait,
                )
            await asyncio.sleep(wait)

    def _try(self, tx: Tx, attribution: Attribution, amount: int) -> _Answer:
        now = self._clock.micros()
        store.expire(tx, now)
        for held in budgets.effective(tx, attribution.user_id, self._defaults):
            if held.cap is None:
                continue
            found = budgets.standing(tx, held, month_of(now), now)
            left = held.cap - found.spent - found.reserved
            alone = found.reserved == 0 and left > 0
            if amount > left and not alone:
                return _Answer(None, found)
        reservation = new_id()
        store.reserve(tx, reservation, attribution.user_id, amount, now + self._expire_after)
        return _Answer(reservation)

    def _exceeded(self, found: Standing) -> BudgetExceededError:
        whose = f"the user {found.effective.user_id!r}" if found.effective.user_id else "the tenant"
        resets = to_iso(budgets.next_month(self._clock.micros()))
        return BudgetExceededError(
            f"the budget of {whose} for this month is used up: ${found.spent / NANO:.4f} of"
            f" ${(found.effective.cap or 0) / NANO:.4f}",
            details=_details(found) | {"resets_at": resets},
            hint=f"An admin can raise it; it begins anew at {resets}.",
        )

    def settle(self, record: CallRecord) -> None:
        """Write what a call used; see `Meter.settle`."""
        now = self._clock.micros()
        usage, attribution = record.usage, record.attribution
        row = {
            "id": new_id(),
            "at": now,
            "user_id": attribution.user_id,
            "agent_id": attribution.agent_id,
            "run_id": attribution.run_id,
            "purpose": attribution.purpose,
            "provider": record.model.partition("/")[0],
            "model": record.model,
            "status": record.status,
            "input_tokens": usage.input_tokens,
            "cached_input_tokens": usage.cached_input_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "cost": None if record.cost is None else nano(record.cost),
            "latency_us": int(record.seconds * SECOND),
            "first_us": None if record.first_seconds is None else int(record.first_seconds * SECOND),
            "estimated": int(record.estimated),
            "own_key": int(record.own_key),
        }

        def unit(tx: Tx) -> None:
            store.record(tx, row, month_of(now))
            if record.reservation is not None:
                store.release(tx, record.reservation)

        written = asyncio.ensure_future(self._db.tenant(attribution.tenant).write(unit, serial=False))
        self._writing.add(written)
        written.add_done_callback(lambda done: self._written(done, attribution))

    def _written(self, done: "asyncio.Future[None]", attribution: Attribution) -> None:
        self._writing.discard(done)
        if not done.cancelled() and (error := done.exception()) is not None:
            logger.error("a model call could not be recorded", extra={"tenant": attribution.tenant}, exc_info=error)
        if attribution.tenant in self._settled:
            self._settled[attribution.tenant].set()

    async def aclose(self) -> None:
        """Wait until every call is written."""
        if self._writing:
            await asyncio.wait(self._writing)


def _details(found: Standing) -> dict[str, object]:
    return {
        "scope": "user" if found.effective.user_id else "tenant",
        "cap": (found.effective.cap or 0) / NANO,
        "spent": found.spent / NANO,
        "reserved": found.reserved / NANO,
    }


def _held(found: Standing) -> RateLimitedError:
    return RateLimitedError(
        "calls that are running hold what is left of this month's budget", details=_details(found), retry_after=5.0
    )
