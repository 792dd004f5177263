"""Usage and budgets on the wire. Money is in US dollars; months and days are those of UTC."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from agentflow.types.base import Page, RequestModel, ResponseModel

UsageRange = Literal["7d", "30d", "90d", "all"]


class UsageTotals(ResponseModel):
    """Sums over model calls.

    Attributes:
        unfinished: calls that failed or were left. unpriced_calls: calls of models whose price is not known.
    """

    calls: int = 0
    unfinished: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    unpriced_calls: int = 0
    average_latency_ms: float = 0.0


class UsageGroup(UsageTotals):
    """The sums of one model, agent, user, purpose or day; `name` is its id, None for calls without one."""

    name: str | None = None


class UsageSummary(UsageTotals):
    """What was used since an instant: in total, and by what. Groups have the dearest first, at most 100."""

    range: UsageRange | str
    since: datetime | None = None
    by_model: list[UsageGroup] = Field(default_factory=list[UsageGroup])
    by_agent: list[UsageGroup] = Field(default_factory=list[UsageGroup])
    by_user: list[UsageGroup] = Field(default_factory=list[UsageGroup])
    by_purpose: list[UsageGroup] = Field(default_factory=list[UsageGroup])
    by_day: list[UsageGroup] = Field(default_factory=list[UsageGroup])


class ModelCall(ResponseModel):
    """One call of a model.

    Attributes:
        run_id: the run, or the batch. purpose: `answer`, `compaction`, `title`, `completion`, `batch`, …
        status: `completed`, `failed` or `cancelled`.
        cost: None if the price is not known. estimated: the call broke off, and its tokens are the server's guess.
        own_key: it was made with the tenant's own key.
    """

    id: str
    at: datetime
    user_id: str
    agent_id: str | None = None
    run_id: str | None = None
    purpose: str
    provider: str
    model: str
    status: str
    input_tokens: int
    cached_input_tokens: int = 0
    output_tokens: int
    reasoning_tokens: int = 0
    cost: float | None = None
    latency_ms: float
    time_to_first_token_ms: float | None = None
    estimated: bool = False
    own_key: bool = False


class ModelCallPage(Page):
    """A page of calls, newest first."""

    calls: list[ModelCall]


class Budget(ResponseModel):
    """A monthly cap and how much of it is used.

    Attributes:
        cap: what holds, None for no cap: the `override` an admin has set, else the `default` of the server.
        spent: in this month. reserved: set aside for calls that are running. remaining: what is left of the cap.
        resets_at: when the next month begins.
    """

    cap: float | None = None
    override: float | None = None
    default: float | None = None
    spent: float = 0.0
    reserved: float = 0.0
    remaining: float | None = None
    resets_at: datetime


class UserBudget(Budget):
    """The same for one user."""

    user_id: str


class UserBudgets(ResponseModel):
    """Caps of users.

    Attributes:
        override: the cap an admin has set for every user. default: the server's.
        users: everybody who has spent something this month or has a cap of their own.
    """

    override: float | None = None
    default: float | None = None
    users: list[UserBudget] = Field(default_factory=list[UserBudget])


class BudgetUpdate(RequestModel):
    """A new cap in US dollars a month; null goes back to the default."""

    cap: float | None = Field(ge=0, le=1_000_000_000)


class UserBudgetUpdate(BudgetUpdate):
    """The same for one user; for every user without a cap of their own if `user_id` is left out."""

    user_id: str | None = Field(default=None, min_length=1, max_length=500)


class MyUsageBudget(ResponseModel):
    """The budgets that hold for the caller's own calls."""

    user: Budget
    tenant_exhausted: bool = False
