"""The run loop: ask the model, execute the calls it makes, and again, until it has answered. One loop for every run.

It holds no state of its own: what it needs to go on is folded from the log (`state`, `history`), so it may stop
anywhere and be begun again in another process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.errors import ModelContextLengthError, ModelError

from agentflow_server.eventlog import Draft, mail
from agentflow_server.gateway import Completed, ModelRequest
from agentflow_server.gateway.messages import AssistantMessage, Message, SystemMessage, TextPart, UserMessage
from agentflow_server.runtime.calls import ToolCalls, with_unique_ids
from agentflow_server.runtime.compaction import compact
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.history import History
from agentflow_server.runtime.images import shown
from agentflow_server.runtime.limits import MAX_REPAIRS
from agentflow_server.runtime.opening import message_part
from agentflow_server.runtime.planning import hidden, make_plan
from agentflow_server.runtime.reflection import Verdict, reflect
from agentflow_server.runtime.state import RunState, usage_content
from agentflow_server.runtime.step import Step
from agentflow_server.runtime.structured import OutputMismatchError, parse_output
from agentflow_server.runtime.tools import Tool


@dataclass(frozen=True, slots=True)
class Answer:
    """How a run came to its end: the final message, and the events that say so."""

    message: AssistantMessage
    output: Any
    finish_reason: str
    model: str
    drafts: tuple[Draft, ...]


class Loop:
    """Drives one run. `step.partial` is the text that is being streamed."""

    def __init__(
        self,
        engine: Engine,
        context: RunContext,
        emitter: Emitter,
        state: RunState,
        history: History,
        tools: Mapping[str, Tool],
    ) -> None:
        self._engine = engine
        self._context = context
        self._emitter = emitter
        self._state = state
        self._history = history
        self._tools = tools
        self._calls = ToolCalls(engine, context, emitter, state, history, tools)
        self._system: tuple[Message, ...] = tuple(SystemMessage(text=text) for text in context.plan.system)
        self.step = Step(engine.gateway, emitter, context, state, engine.clock)

    async def drive(self) -> Answer | None:
        """Run to the answer; None if the run was parked because it waits for somebody."""
        while True:
            while calls := self._history.open_calls():
                if not await self._calls.run(calls):
                    return None
            await self._prepare()
            completed = await self._ask()
            last = self._state.turns + 1 >= self._context.plan.max_turns
            self._state.turns += 1
            self._state.add_usage(completed.usage, completed.cost)
            if completed.message.tool_calls and not last:
                await self._keep_calls(completed)
            elif (answer := await self._finish(completed, last)) is not None:
                return answer

    async def go_on(self, answer: Answer) -> Answer | None:
        """Read the messages that came while the answer was made; it stays in the thread as what was said before."""
        self._emitter.keep_text()
        part = message_part(self._context, "agent_text", answer.message, answer.message.text, visible=False)
        *others, usage = answer.drafts
        events = await self._emitter.send((*others, usage._replace(part=part)))
        self._history.append(events[-1].seq, answer.message)
        return await self.drive()

    async def _prepare(self) -> None:
        """What comes before the model is asked: messages to the run, room in its window, a plan."""
        if not self._context.run.is_root:
            await self._read_mail()
        await compact(self._engine, self._context, self._emitter, self._state, self._history)
        if self._context.plan.planning and not self._state.planned:
            await make_plan(
                self._engine, self._context, self._emitter, self._state, self._history, self._system, self._tools
            )

    async def _read_mail(self) -> None:
        run = self._context.run
        letters = await self._engine.db.read(lambda tx: mail.unread(tx, run.tenant, run.id))
        if not letters:
            return
        messages = [UserMessage(parts=(TextPart(text=letter.text),)) for letter in letters]
        drafts = [
            self._emitter.draft(
                "user",
                {"message_id": letter.id, "text": letter.text},
                part=message_part(self._context, "sub_agent_request", message, letter.text, visible=False),
            )
            for letter, message in zip(letters, messages, strict=True)
        ]
        now = self._engine.clock.micros()
        events = await self._emitter.send(drafts, lambda tx: mail.mark_read(tx, run.tenant, run.id, letters, now))
        for event, message in zip(events, messages, strict=True):
            self._history.append(event.seq, message)

    async def _ask(self) -> Completed:
        try:
            return await self.step.ask(await self._request())
        except ModelContextLengthError:
            shorter = await compact(self._engine, self._context, self._emitter, self._state, self._history, force=True)
            if not shorter:
                raise
            return await self.step.ask(await self._request())

    async def _request(self) -> ModelRequest:
        plan = self._context.plan
        history = await shown(self._engine.images, self._context, self._history)
        last = self._state.turns + 1 >= plan.max_turns
        return ModelRequest(
            model=plan.model,
            messages=(*self._system, *history),
            tools=tuple(tool.spec for tool in self._tools.values()),
            tool_choice="none" if last else "auto",
            output_schema=plan.output.json_schema if plan.output else None,
            output_name=plan.output.name if plan.output else None,
            attribution=self._context.attribution(),
            **plan.sampling,
        )

    async def _keep_calls(self, completed: Completed) -> None:
        """Store the model's calls before any of them is executed."""
        self._emitter.keep_text()
        calls = with_unique_ids(completed.message.tool_calls, self._state.call_ids)
        message = completed.message.model_copy(update={"tool_calls": calls})
        part = message_part(self._context, "tool_request", message, message.text, visible=False)
        content = {**usage_content(completed, self._state), "tool_call_ids": [item.id for item in calls]}
        events = await self._emitter.send((self._emitter.draft("usage", content, part=part),))
        self._history.append(events[0].seq, message)

    async def _finish(self, completed: Completed, last: bool) -> Answer | None:
        """The answer, or None if it has to be repaired or revised first."""
        plan = self._context.plan
        reason = "max_turns" if last and completed.message.tool_calls else completed.finish_reason
        message = completed.message.model_copy(update={"tool_calls": ()})
        output: Any = None
        if plan.output is not None:
            try:
                output = parse_output(message.text, plan.output)
            except OutputMismatchError as mismatch:
                await self._repair(completed, message, str(mismatch))
                return None
        usage = self._emitter.draft("usage", usage_content(completed, self._state))
        if last or self._state.reflections >= plan.reflections:
            return Answer(message, output, reason, completed.model, (usage,))
        verdict = await reflect(self._engine, self._context, self._emitter, self._state, self._history, message.text)
        if verdict.revise:
            await self._revise(usage, message, verdict)
            return None
        return Answer(message, output, reason, completed.model, (*verdict.drafts, usage))

    async def _revise(self, usage: Draft, message: AssistantMessage, verdict: Verdict) -> None:
        """Keep the draft and why it was sent back in the thread; for readers it is void."""
        reasons = "\n".join(f"- {reason}" for reason in verdict.reasons) or "- it can be better"
        wish = hidden(f"Your draft was not accepted:\n{reasons}\nAnswer the user again.", "system_reminders")
        used, told = verdict.drafts
        draft = usage._replace(part=message_part(self._context, "agent_text", message, message.text, visible=False))
        again = told._replace(part=message_part(self._context, "repair", wish, reasons, visible=False))
        events = await self._emitter.send((used, draft, again))
        self._history.append(events[1].seq, message)
        self._history.append(events[2].seq, wish)
        await self._emitter.discard_text("reflection")

    async def _repair(self, completed: Completed, message: AssistantMessage, problem: str) -> None:
        if self._state.repairs >= MAX_REPAIRS:
            raise ModelError(
                f"the model's answer does not fit the schema of output_type after {MAX_REPAIRS} repairs: {problem}",
                hint="Make the schema simpler, or use a model that supports structured output.",
            )
        self._state.repairs += 1
        wish = (
            f"Your answer does not fit the JSON Schema: {problem}. Answer again, with corrected JSON and nothing else."
        )
        request = UserMessage(parts=(TextPart(text=wish),))
        content = usage_content(completed, self._state, repair=True)
        draft = self._emitter.draft
        events = await self._emitter.send(
            (
                draft(
                    "usage",
                    content,
                    part=message_part(self._context, "agent_text", message, message.text, visible=False),
                ),
                draft(
                    "warning",
                    {"code": "output_repair", "message": problem},
                    part=message_part(self._context, "repair", request, wish, visible=False),
                ),
            )
        )
        self._history.append(events[0].seq, message)
        self._history.append(events[1].seq, request)
        await self._emitter.discard_text("output_repair")
