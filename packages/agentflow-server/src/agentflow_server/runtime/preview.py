"""A run's whole prompt before anything is sent: its parts in their order, and about how many tokens each takes."""

import re
from collections.abc import Iterable, Iterator

from agentflow.types.prompt_blocks import PromptPart, PromptPreview

from agentflow_server.gateway.messages import DocumentPart, ImagePart, Message, Part, SystemMessage, UserMessage
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.tools import Tool

_HIDDEN = {
    "<system_context>": "context",
    "<system_events>": "event",
    "<system_reminders>": "reminder",
}
_NAME = re.compile(r"<([A-Za-z_][\w\-]*)[^>]*>")


async def preview(engine: Engine, context: RunContext, *, history: bool) -> PromptPreview:
    """The prompt of a run that is not started. `history`: its conversation exists."""
    plan = context.plan
    tools = await engine.resolver.resolve(context)
    past = (await engine.histories.load(context)).messages if history else []
    count = engine.gateway.count_tokens
    stable = [
        *_system(plan.system, engine),
        *_tools(tools.values()),
        *(PromptPart(kind="history", name=one.role, text=_text(one), tokens=count([one])) for one in past),
    ]
    parts = [*stable, *_user(plan.user, engine)]
    return PromptPreview(
        model=plan.model,
        context_window=engine.gateway.model(plan.model).context_window,
        tokens=sum(part.tokens for part in parts),
        cached_tokens=sum(part.tokens for part in stable),
        parts=parts,
        notices=[{"type": notice.type, **notice.content} for notice in plan.notices],
    )


def _system(texts: Iterable[str], engine: Engine) -> Iterator[PromptPart]:
    for text in texts:
        tokens = engine.gateway.count_tokens([SystemMessage(text=text)])
        yield PromptPart(kind="system", name=_name(text), text=text, tokens=tokens)


def _tools(tools: Iterable[Tool]) -> Iterator[PromptPart]:
    for tool in tools:
        text = tool.spec.model_dump_json()
        yield PromptPart(kind="tool", name=tool.spec.name, text=text, tokens=len(text) // 4)


def _user(message: UserMessage, engine: Engine) -> Iterator[PromptPart]:
    last = len(message.parts) - 1
    for index, part in enumerate(message.parts):
        tokens = engine.gateway.count_tokens([UserMessage(parts=(part,))])
        yield _part(part, tokens, is_last=index == last)


def _part(part: Part, tokens: int, *, is_last: bool) -> PromptPart:
    if isinstance(part, ImagePart):
        return PromptPart(kind="image", name=part.media_type, tokens=tokens)
    if isinstance(part, DocumentPart):
        return PromptPart(kind="document", name=part.name, text=part.rendered(), tokens=tokens)
    kind = None if is_last else _HIDDEN.get(part.text.split("\n", 1)[0])
    if kind is None:
        return PromptPart(kind="message", text=part.text, tokens=tokens)
    return PromptPart(kind=kind, name=_name(part.text.split("\n", 1)[1]), text=part.text, tokens=tokens)


def _name(text: str) -> str | None:
    found = _NAME.match(text)
    return found.group(1) if found else None


def _text(message: Message) -> str:
    if isinstance(message, UserMessage):
        return "\n".join(_part(part, 0, is_last=False).text or "(an image)" for part in message.parts)
    return message.content if message.role == "tool" else message.text
