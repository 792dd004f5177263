"""What the gateway asks of rooms above it: which models a tenant may use and with whose keys, and what calls cost.

The rooms `models` and `usage` implement these; app.py hands them in. Without them every configured model may be used
and nothing is counted.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from agentflow_server.gateway.messages import Attribution, Usage
from agentflow_server.gateway.settings import Endpoint

UseCase = Literal["agent_chat", "completions", "titles"]
CallStatus = Literal["completed", "failed", "cancelled"]


class Preferred(NamedTuple):
    """Models that were chosen beforehand: by the user for everything, by the tenant's admins for a use case."""

    user: str | None = None
    tenant: str | None = None


class Policy(Protocol):
    """A tenant's rules about models."""

    async def endpoint(self, tenant: str, model_id: str) -> Endpoint | None:
        """The tenant's own way to the model's provider; None for the server's.

        Raises:
            PermissionDeniedError: the tenant may not use the model.
        """
        ...

    async def preferred(self, tenant: str, user_id: str, use_case: UseCase, default: str) -> Preferred:
        """What is used when nobody asks for a model; `default` is the server's."""
        ...


class Embeddings(NamedTuple):
    """Vectors of texts. input_tokens: as the provider has counted them, None if it has not."""

    vectors: list[list[float]]
    input_tokens: int | None


class CallRecord(NamedTuple):
    """What became of one model call.

    Attributes:
        reservation: what `Meter.reserve` gave. cost: US dollars, None if the price is not known.
        seconds, first_seconds: to the end, and to the first chunk. estimated: the tokens are ours to guess, because
            the provider did not get to tell them. own_key: it was made with the tenant's key.
    """

    attribution: Attribution
    model: str
    status: CallStatus
    usage: Usage
    cost: float | None
    seconds: float
    first_seconds: float | None
    estimated: bool
    own_key: bool
    reservation: str | None


class Meter(Protocol):
    """Counts calls, and stops them at a budget."""

    async def reserve(self, attribution: Attribution, most: Callable[[], float]) -> str | None:
        """Set aside what a call may cost; None if no budget applies.

        Args:
            most: works out the most the call may cost, US dollars.

        Raises:
            BudgetExceededError: the budget is used up. RateLimitedError: running calls hold what is left of it.
        """
        ...

    def settle(self, record: CallRecord) -> None:
        """Write what a call used and give back what was set aside. Queues the write, and does not wait for it."""
        ...

    async def aclose(self) -> None:
        """Wait until everything is written."""
        ...
