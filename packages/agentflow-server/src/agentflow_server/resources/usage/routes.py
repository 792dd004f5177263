"""HTTP of the usage room: one's own usage for everybody, the tenant's usage and budgets for human admins."""

from typing import Annotated

from agentflow.types.usage import (
    Budget,
    BudgetUpdate,
    ModelCallPage,
    MyUsageBudget,
    UsageSummary,
    UserBudgets,
    UserBudgetUpdate,
)
from fastapi import APIRouter, Query

from agentflow_server.http.identity import AdminCaller, CurrentCaller
from agentflow_server.http.pages import Limit, Offset
from agentflow_server.resources.usage.service import UsageService

Range = Annotated[str, Query(alias="range", description="`7d`, `30d`, `90d` or `all`")]


def router(service: UsageService) -> APIRouter:
    """The room's routes."""
    routes = APIRouter(tags=["usage"])

    @routes.get("/usage/summary")
    async def own_summary(caller: CurrentCaller, range_: Range = "30d") -> UsageSummary:
        """What the caller has used."""
        return await service.summary(caller, range_, caller.user_id)

    @routes.get("/usage/calls")
    async def own_calls(
        caller: CurrentCaller,
        range_: Range = "30d",
        run_id: str | None = None,
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> ModelCallPage:
        """The caller's model calls, newest first."""
        return await service.calls(caller, range_, caller.user_id, run_id, limit, offset)

    @routes.get("/usage/budget")
    async def own_budget(caller: CurrentCaller) -> MyUsageBudget:
        """What the caller may still spend this month."""
        return await service.own_budget(caller)

    _admin(routes, service)
    return routes


def _admin(routes: APIRouter, service: UsageService) -> None:
    @routes.get("/admin/usage/summary")
    async def summary(caller: AdminCaller, range_: Range = "30d", user_id: str | None = None) -> UsageSummary:
        """What the tenant, or one of its users, has used."""
        return await service.summary(caller, range_, user_id)

    @routes.get("/admin/usage/calls")
    async def calls(
        caller: AdminCaller,
        range_: Range = "30d",
        user_id: str | None = None,
        run_id: str | None = None,
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> ModelCallPage:
        """The tenant's model calls, newest first."""
        return await service.calls(caller, range_, user_id, run_id, limit, offset)

    @routes.get("/admin/budget")
    async def budget(caller: AdminCaller) -> Budget:
        """The tenant's monthly budget."""
        return await service.budget(caller)

    @routes.put("/admin/budget")
    async def set_budget(caller: AdminCaller, body: BudgetUpdate) -> Budget:
        """Set the tenant's monthly budget, or go back to the default."""
        return await service.set_budget(caller, body)

    @routes.get("/admin/budget/users")
    async def user_budgets(caller: AdminCaller) -> UserBudgets:
        """The users' monthly budgets."""
        return await service.user_budgets(caller)

    @routes.put("/admin/budget/users")
    async def set_user_budget(caller: AdminCaller, body: UserBudgetUpdate) -> UserBudgets:
        """Set a user's monthly budget, or that of every user."""
        return await service.set_user_budget(caller, body)
