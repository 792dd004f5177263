"""How many requests a tenant and a principal may make. Called for every identified request.

The truth is in the database (storage/rates.py). A process takes requests from there in lots of a hundredth of the limit
and hands them out from memory, so the database is asked once for many requests; a refusal is remembered until it ends.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from agentflow.errors import RateLimitedError

from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.storage import Database, Tx, rates

PERIOD = 60 * SECOND
_LOTS = 100
_MAX_SUBJECTS = 20_000


@dataclass(slots=True)
class _Account:
    """What this process holds for one subject.

    Attributes:
        left: requests in hand. beyond: what the database had left after the last lot. full_at: when all of the limit
        is free again. closed_until: when there will be a request again. Both in micros.
    """

    tenant: str
    subject: str
    limit: int
    left: int = 0
    beyond: int = 0
    full_at: int = 0
    closed_until: int = 0
    taking: asyncio.Task[None] | None = None

    @property
    def lot(self) -> int:
        return max(1, self.limit // _LOTS)

    @property
    def cost(self) -> int:
        return PERIOD // self.limit


@dataclass(frozen=True, slots=True)
class Standing:
    """What a response says about the limit that is nearest (IETF draft "RateLimit header fields for HTTP")."""

    name: str
    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The fields of a response."""
        return [
            (b"ratelimit-policy", f'"{self.name}";q={self.limit};w={PERIOD // SECOND}'.encode()),
            (b"ratelimit", f'"{self.name}";r={self.remaining};t={self.reset_seconds}'.encode()),
        ]


class Limits:
    """The request limits.

    Args:
        tenant, principal: requests a minute; 0 sets no limit.
    """

    def __init__(self, db: Database, clock: Clock, *, tenant: int, principal: int) -> None:
        self._db = db
        self._clock = clock
        self._tenant = tenant
        self._principal = principal
        self._accounts: OrderedDict[tuple[str, str], _Account] = OrderedDict()

    async def spend(self, tenant: str, principal: str) -> Standing | None:
        """Count a request.

        Returns:
            the standing of the limit with the least left; None without limits.

        Raises:
            RateLimitedError: a limit is reached; `retry_after` says when to come back.
        """
        standing: Standing | None = None
        for name, subject, limit in (
            ("principal", f"user:{principal}", self._principal),
            ("tenant", "tenant", self._tenant),
        ):
            if limit:
                account = self._account(tenant, subject, limit)
                await self._take_one(account, name)
                remaining = account.left + account.beyond
                if standing is None or remaining < standing.remaining:
                    reset = max(0, account.full_at - self._clock.micros()) // SECOND + 1
                    standing = Standing(name, limit, remaining, reset)
        return standing

    def _account(self, tenant: str, subject: str, limit: int) -> _Account:
        key = (tenant, subject)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(tenant, subject, limit)
            if len(self._accounts) > _MAX_SUBJECTS:
                self._accounts.popitem(last=False)
        return account

    async def _take_one(self, account: _Account, name: str) -> None:
        while account.left < 1:
            wait = account.closed_until - self._clock.micros()
            if wait > 0:
                raise RateLimitedError(
                    f"this {name} has used its {account.limit} requests a minute",
                    details={"limit": account.limit, "window_seconds": PERIOD // SECOND, "of": name},
                    retry_after=wait / SECOND,
                )
            await asyncio.shield(self._taking(account))
        account.left -= 1
        if account.left < account.lot // 4 and account.closed_until < self._clock.micros():
            self._taking(account)

    def _taking(self, account: _Account) -> asyncio.Task[None]:
        if account.taking is None or account.taking.done():
            account.taking = asyncio.create_task(self._take(account))
            account.taking.add_done_callback(_observed)
        return account.taking

    async def _take(self, account: _Account) -> None:
        """Fetch a lot, or a single request if a lot is too much; or learn until when there is none."""
        now = self._clock.micros()

        def unit(tx: Tx) -> tuple[int, int]:
            for many in (account.lot, 1):
                if rates.take(tx, account.subject, cost=many * account.cost, period=PERIOD, now=now):
                    return many, rates.paid_until(tx, account.subject)
            return 0, rates.paid_until(tx, account.subject)

        got, paid = await self._db.tenant(account.tenant).write(unit)
        account.left += got
        account.full_at = paid
        account.beyond = max(0, (now + PERIOD - paid) // account.cost)
        if got == 0:
            account.closed_until = max(now + 1, paid + account.cost - PERIOD)


def _observed(task: asyncio.Task[None]) -> None:
    """A lot that was fetched ahead and failed is asked for again by the next request that needs it."""
    if not task.cancelled():
        task.exception()
