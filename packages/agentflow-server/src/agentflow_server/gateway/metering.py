"""One metered call: watches its chunks go by, and settles it exactly once, however it ends. Used by the gateway."""

import asyncio
import time
from collections.abc import Callable, Sequence

from agentflow_server.gateway import catalogue
from agentflow_server.gateway.messages import Attribution, Message, ModelRequest, Usage
from agentflow_server.gateway.ports import CallRecord, CallStatus, Meter
from agentflow_server.gateway.stream import Chunk, Completed, ReasoningChunk, TextChunk

_UNBOUNDED_OUTPUT = 16_384
Count = Callable[[Sequence[Message]], int]


class MeteredCall:
    """A call between its reservation and its settlement.

    Args:
        count: tokens of messages, about.
    """

    def __init__(self, meter: Meter, attribution: Attribution, request: ModelRequest, count: Count) -> None:
        self._meter = meter
        self._attribution = attribution
        self._request = request
        self._count = count
        self._began = 0.0
        self._first: float | None = None
        self._characters = 0
        self._reservation: str | None = None
        self._settled = False
        self.own_key = False

    async def open(self) -> None:
        """Reserve; raises as `Meter.reserve`."""
        self._reservation = await self._meter.reserve(self._attribution, self._most)
        self._began = time.monotonic()

    def _most(self) -> float:
        """An upper bound of the call's cost: two tokens for every one we count, and the longest answer there may be."""
        request = self._request
        known = catalogue.BY_ID.get(request.model)
        longest = known.max_output if known and known.max_output else _UNBOUNDED_OUTPUT
        schemas = sum(len(str(tool.parameters)) + len(tool.description) for tool in request.tools)
        usage = Usage(
            input_tokens=2 * self._count(request.messages) + schemas // 2,
            output_tokens=min(request.max_tokens or longest, longest),
        )
        return catalogue.cost_of(request.model, usage) or 0.0

    def note(self, chunk: Chunk) -> None:
        """A chunk has come. The last one settles the call."""
        if self._first is None:
            self._first = time.monotonic() - self._began
        if isinstance(chunk, TextChunk | ReasoningChunk):
            self._characters += len(chunk.text)
        elif isinstance(chunk, Completed):
            self._settle("completed", chunk.usage, chunk.cost, estimated=False)

    def completed(self, usage: Usage, estimated: bool) -> None:
        """An answer that is no stream has come: the call is settled."""
        self._first = time.monotonic() - self._began
        self._settle("completed", usage, catalogue.cost_of(self._request.model, usage), estimated=estimated)

    def end(self, error: BaseException | None) -> None:
        """The call is over, whether it was completed or not."""
        if self._settled:
            return
        if self._first is None:
            usage, cost = Usage(), 0.0
        else:
            usage = Usage(
                input_tokens=self._count(self._request.messages), output_tokens=self._characters // 4 + 1, requests=1
            )
            cost = catalogue.cost_of(self._request.model, usage)
        gone = error is None or isinstance(error, asyncio.CancelledError | GeneratorExit)
        self._settle("cancelled" if gone else "failed", usage, cost, estimated=self._first is not None)

    def _settle(self, status: CallStatus, usage: Usage, cost: float | None, *, estimated: bool) -> None:
        self._settled = True
        self._meter.settle(
            CallRecord(
                self._attribution, self._request.model, status, usage, cost, time.monotonic() - self._began,
                self._first, estimated, self.own_key, self._reservation,
            )
        )  # fmt: skip
