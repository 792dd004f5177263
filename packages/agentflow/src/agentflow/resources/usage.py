"""`client.usage`: what was used, and what may be used."""

from agentflow.resources.pages import AsyncPage
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request
from agentflow.types.usage import (
    Budget,
    BudgetUpdate,
    ModelCall,
    ModelCallPage,
    MyUsageBudget,
    UsageRange,
    UsageSummary,
    UserBudgets,
    UserBudgetUpdate,
)


class AsyncUsage:
    """Usage and budgets. What concerns others than the caller is for human admins."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def summary(
        self,
        range: UsageRange = "30d",  # noqa: A002 - the wire's name
        *,
        everyone: bool = False,
        user_id: str | None = None,
    ) -> UsageSummary:
        """Tokens and cost: in total, by model, agent, user, purpose and day.

        Args:
            range: `7d`, `30d`, `90d` or `all`. everyone: the whole tenant's in place of one's own.
            user_id: that user's.

        Raises:
            PermissionDeniedError: others' usage is for human admins.
        """
        admin = everyone or user_id is not None
        path = "/api/v1/admin/usage/summary" if admin else "/api/v1/usage/summary"
        query = {"range": range, "user_id": user_id}
        return await self._transport.call(Request("GET", path, query, repeatable=True), UsageSummary)

    async def calls(
        self,
        range: UsageRange = "30d",  # noqa: A002 - the wire's name
        *,
        everyone: bool = False,
        user_id: str | None = None,
        run_id: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> AsyncPage[ModelCall]:
        """Single model calls, newest first; iterating the page walks on through all.

        Args:
            run_id: only those of a run or a batch. limit: 1 to 100. The others as for `summary`.

        Raises:
            PermissionDeniedError: others' usage is for human admins.
        """
        admin = everyone or user_id is not None
        path = "/api/v1/admin/usage/calls" if admin else "/api/v1/usage/calls"
        query = {"range": range, "user_id": user_id, "run_id": run_id, "limit": limit, "offset": offset}
        data = await self._transport.call(Request("GET", path, query, repeatable=True), ModelCallPage)

        async def fetch(start: int) -> AsyncPage[ModelCall]:
            return await self.calls(range, everyone=everyone, user_id=user_id, run_id=run_id, limit=limit, offset=start)

        return AsyncPage(data, "calls", fetch)

    async def my_budget(self) -> MyUsageBudget:
        """What the caller may still spend this month."""
        return await self._transport.call(Request("GET", "/api/v1/usage/budget", repeatable=True), MyUsageBudget)

    async def get_budget(self) -> Budget:
        """The tenant's monthly budget, and how much of it is used.

        Raises:
            PermissionDeniedError: this is for human admins.
        """
        return await self._transport.call(Request("GET", "/api/v1/admin/budget", repeatable=True), Budget)

    async def set_budget(self, cap: float | None) -> Budget:
        """Set the tenant's monthly budget.

        Args:
            cap: US dollars a month; None goes back to the server's default.

        Raises:
            PermissionDeniedError: this is for human admins.
        """
        body = BudgetUpdate(cap=cap).wire()
        return await self._transport.call(Request("PUT", "/api/v1/admin/budget", body=body, repeatable=True), Budget)

    async def user_budgets(self) -> UserBudgets:
        """The users' monthly budgets, and how much of them is used.

        Raises:
            PermissionDeniedError: this is for human admins.
        """
        return await self._transport.call(Request("GET", "/api/v1/admin/budget/users", repeatable=True), UserBudgets)

    async def set_user_budget(self, cap: float | None, *, user_id: str | None = None) -> UserBudgets:
        """Set the monthly budget of a user, or of every user without one of their own.

        Args:
            cap: US dollars a month; None goes back to what holds for every user, or to the server's default.

        Raises:
            PermissionDeniedError: this is for human admins.
        """
        body = UserBudgetUpdate(cap=cap, user_id=user_id).wire()
        request = Request("PUT", "/api/v1/admin/budget/users", body=body, repeatable=True)
        return await self._transport.call(request, UserBudgets)
