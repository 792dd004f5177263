"""One model call of a run: asks, passes the text on as it comes, and returns the whole answer.

An answer that breaks off in the middle is asked for again, a bounded number of times; readers are told that the text so
far is void.
"""

from agentflow.errors import ModelInterruptedError

from agentflow_server.gateway import Completed, Gateway, ModelRequest, ReasoningChunk, TextChunk
from agentflow_server.kit import telemetry
from agentflow_server.kit.clock import Clock
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.limits import MAX_INTERRUPTIONS
from agentflow_server.runtime.state import RunState


class Step:
    """Asks the model. `partial` is the text of the call that is under way."""

    def __init__(self, gateway: Gateway, emitter: Emitter, context: RunContext, state: RunState, clock: Clock) -> None:
        self._gateway = gateway
        self._emitter = emitter
        self._context = context
        self._state = state
        self._clock = clock
        self.partial: list[str] = []

    async def ask(self, request: ModelRequest) -> Completed:
        """The model's complete answer.

        Raises:
            ModelError: the provider refused, failed, or kept breaking off.
        """
        while True:
            try:
                return await self._stream(request)
            except ModelInterruptedError:
                await self._emitter.discard_text("model_interrupted")
                self._state.interruptions += 1
                if self._state.interruptions > MAX_INTERRUPTIONS:
                    raise

    async def _stream(self, request: ModelRequest) -> Completed:
        self.partial = []
        with telemetry.model_span(request.model) as span:
            completed = await self._read(request)
            usage = completed.usage
            telemetry.model_answered(
                span, completed.model, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens,
                finish_reason=completed.finish_reason,
            )  # fmt: skip
        return completed

    async def _read(self, request: ModelRequest) -> Completed:
        completed: Completed | None = None
        async with self._gateway.stream(request) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextChunk):
                    if self._state.first_text_ms is None:
                        self._state.first_text_ms = self._age_ms()
                    self.partial.append(chunk.text)
                    await self._emitter.text(chunk.text)
                elif isinstance(chunk, ReasoningChunk):
                    await self._emitter.text(chunk.text, "reasoning_delta")
                elif isinstance(chunk, Completed):
                    completed = chunk
        if completed is None:
            raise ModelInterruptedError(f"{request.model} ended its answer without saying that it is complete")
        return completed

    def _age_ms(self) -> float:
        return round((self._clock.micros() - self._context.run.created_at) / 1000, 3)
