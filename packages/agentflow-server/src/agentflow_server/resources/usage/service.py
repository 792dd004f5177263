"""What was used, by whom and for what, and what may be used. Called by routes."""

from typing import Any, get_args

from agentflow.errors import ValidationError
from agentflow.types.usage import (
    Budget,
    BudgetUpdate,
    ModelCall,
    ModelCallPage,
    MyUsageBudget,
    UsageGroup,
    UsageRange,
    UsageSummary,
    UsageTotals,
    UserBudget,
    UserBudgets,
    UserBudgetUpdate,
)

from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import SECOND, Clock, to_datetime, to_iso
from agentflow_server.resources.usage import budgets, store
from agentflow_server.resources.usage.budgets import NANO, Defaults, Effective, Standing, month_of, nano
from agentflow_server.resources.usage.store import WHOLE_TENANT, Cap
from agentflow_server.storage import Database, Row, Tx

_DAY = 86_400 * SECOND
_GROUPS = 100


class UsageService:
    """The usage room."""

    def __init__(self, db: Database, clock: Clock, defaults: Defaults) -> None:
        self._db = db
        self._clock = clock
        self._defaults = defaults

    async def summary(self, caller: Caller, range_: str, user_id: str | None) -> UsageSummary:
        """Sums over a span of time, of one user or (None) of everybody.

        Raises:
            ValidationError: there is no such range.
        """
        since = self._since(range_)

        def look(tx: Tx) -> UsageSummary:
            def groups(by: store.Group) -> list[UsageGroup]:
                return [_group(row, row["name"]) for row in store.grouped(tx, by, since, user_id, _GROUPS)]

            return UsageSummary(
                **_totals(store.totals(tx, since, user_id)).model_dump(),
                range=range_,
                since=to_datetime(since) if since else None,
                by_model=groups("model"),
                by_agent=groups("agent_id"),
                by_user=groups("user_id"),
                by_purpose=groups("purpose"),
                by_day=[_group(row, to_iso(row["name"] * _DAY)[:10]) for row in store.by_day(tx, since, user_id)],
            )

        return await self._db.tenant(caller.tenant).scan(look)

    async def calls(
        self, caller: Caller, range_: str, user_id: str | None, run_id: str | None, limit: int, offset: int
    ) -> ModelCallPage:
        """Single calls, newest first.

        Raises:
            ValidationError: there is no such range.
        """
        since = self._since(range_)
        rows, total = await self._db.tenant(caller.tenant).scan(
            lambda tx: (
                store.calls(tx, since, user_id, run_id, limit, offset),
                store.count(tx, since, user_id, run_id),
            )
        )
        return ModelCallPage(calls=[_call(row) for row in rows], total=total, limit=limit, offset=offset)

    def _since(self, range_: str) -> int:
        if range_ not in get_args(UsageRange):
            told = f"must be one of {', '.join(get_args(UsageRange))}, not {range_!r}"
            raise ValidationError(f"range: {told}", details=[{"field": "range", "message": told}])
        return 0 if range_ == "all" else self._clock.micros() - int(range_[:-1]) * _DAY

    async def own_budget(self, caller: Caller) -> MyUsageBudget:
        """What the caller may still spend."""
        whole, own = await self._db.tenant(caller.tenant).read(lambda tx: self._standings(tx, caller.user_id))
        cap = whole.effective.cap
        return MyUsageBudget(user=self._budget(own), tenant_exhausted=cap is not None and whole.spent >= cap)

    async def budget(self, caller: Caller) -> Budget:
        """The tenant's budget."""
        whole, _ = await self._db.tenant(caller.tenant).read(lambda tx: self._standings(tx, caller.user_id))
        return self._budget(whole)

    async def set_budget(self, caller: Caller, wanted: BudgetUpdate) -> Budget:
        """Change the tenant's budget."""
        await self._change(caller, "tenant", WHOLE_TENANT, wanted.cap)
        return await self.budget(caller)

    async def user_budgets(self, caller: Caller) -> UserBudgets:
        """Everybody's budget."""

        def look(tx: Tx) -> UserBudgets:
            caps = store.caps(tx)
            spent = store.spent_by_user(tx, month_of(self._clock.micros()))
            names = sorted({*spent, *(cap.user_id for cap in caps if cap.scope == "user")})
            each = next((cap.cap for cap in caps if cap.scope == "users"), None)
            return UserBudgets(
                override=_dollars(each),
                default=_dollars(self._defaults.user),
                users=[
                    UserBudget(user_id=name, **self._budget(self._standings(tx, name)[1]).model_dump())
                    for name in names
                ],
            )

        return await self._db.tenant(caller.tenant).scan(look)

    async def set_user_budget(self, caller: Caller, wanted: UserBudgetUpdate) -> UserBudgets:
        """Change a user's budget, or everybody's."""
        scope = "users" if wanted.user_id is None else "user"
        await self._change(caller, scope, wanted.user_id or "", wanted.cap)
        return await self.user_budgets(caller)

    async def _change(self, caller: Caller, scope: str, user_id: str, cap: float | None) -> None:
        now = self._clock.micros()

        def unit(tx: Tx) -> None:
            if cap is None:
                store.clear_cap(tx, scope, user_id)
            else:
                store.set_cap(tx, Cap(scope, user_id, nano(cap)), now, caller.user_id)

        await self._db.tenant(caller.tenant).write(unit)

    def _standings(self, tx: Tx, user_id: str) -> tuple[Standing, Standing]:
        now = self._clock.micros()
        whole, own = budgets.effective(tx, user_id, self._defaults)
        return budgets.standing(tx, whole, month_of(now), now), budgets.standing(tx, own, month_of(now), now)

    def _budget(self, found: Standing) -> Budget:
        held: Effective = found.effective
        default = self._defaults.user if held.user_id else self._defaults.tenant
        left = None if held.cap is None else max(0, held.cap - found.spent - found.reserved)
        return Budget(
            cap=_dollars(held.cap),
            override=_dollars(held.cap) if held.override else None,
            default=_dollars(default),
            spent=found.spent / NANO,
            reserved=found.reserved / NANO,
            remaining=_dollars(left),
            resets_at=to_datetime(budgets.next_month(self._clock.micros())),
        )


def _dollars(amount: int | None) -> float | None:
    return None if amount is None else amount / NANO


def _totals(row: Row) -> UsageTotals:
    return UsageTotals(
        calls=row["calls"],
        unfinished=int(row["unfinished"] or 0),
        input_tokens=int(row["input_tokens"]),
        cached_input_tokens=int(row["cached_input_tokens"]),
        output_tokens=int(row["output_tokens"]),
        reasoning_tokens=int(row["reasoning_tokens"]),
        cost=int(row["cost"]) / NANO,
        unpriced_calls=int(row["unpriced"] or 0),
        average_latency_ms=round(float(row["latency_us"]) / 1000, 3),
    )


def _group(row: Row, name: str | None) -> UsageGroup:
    return UsageGroup(name=name, **_totals(row).model_dump())


def _call(row: Row) -> ModelCall:
    shown: dict[str, Any] = {name: row[name] for name in ModelCall.model_fields if name in row.keys()}  # noqa: SIM118
    shown.update(
        at=to_datetime(row["at"]),
        cost=_dollars(row["cost"]),
        latency_ms=row["latency_us"] / 1000,
        time_to_first_token_ms=None if row["first_us"] is None else row["first_us"] / 1000,
        estimated=bool(row["estimated"]),
        own_key=bool(row["own_key"]),
    )
    return ModelCall(**shown)
