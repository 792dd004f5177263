"""Keeps a long thread inside the model's window: the older part is summarised by the model, the newest is kept.

The summary is a durable part of the thread; from then on the model sees it instead of what it stands for.
"""

import json

from agentflow_server.eventlog import PartDraft
from agentflow_server.gateway import Completed, ModelRequest
from agentflow_server.gateway.messages import (
    AssistantMessage,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.emitter import Emitter
from agentflow_server.runtime.engine import Engine
from agentflow_server.runtime.history import COMPACTION, History
from agentflow_server.runtime.limits import COMPACT_ABOVE, KEEP_AFTER_COMPACTION, SUMMARY_TOKENS
from agentflow_server.runtime.state import RunState, usage_content

_INSTRUCTION = (
    "Summarise the conversation below for the assistant that will carry it on. Keep every fact, name, number, decision,"
    " open question and promise that later turns may need; leave out greetings and wording. Write plain sentences."
)
_MAX_PER_MESSAGE = 4_000


async def compact(
    engine: Engine, context: RunContext, emitter: Emitter, state: RunState, history: History, *, force: bool = False
) -> bool:
    """Summarise the older part of the thread if it has grown near the model's window (or if `force`d)."""
    window = engine.gateway.model(context.plan.model).context_window
    limit = int(window * COMPACT_ABOVE) - int(context.plan.sampling.get("max_tokens") or 0)
    size = engine.gateway.count_tokens(history.messages)
    if size <= max(limit, window // 4) and not force:
        return False
    cut = _cut(engine, history, int(window * KEEP_AFTER_COMPACTION))
    if cut <= 0:
        return False
    older, upto = history.messages[:cut], history.seqs[cut - 1]
    completed = await _summarise(engine, context, older)
    state.add_usage(completed.usage, completed.cost)
    summary = completed.message.text
    part = PartDraft(
        COMPACTION, context.thread, context.run.id, context.run.message_id, False, summary, json.dumps({"upto": upto})
    )
    content = {"code": "conversation_compacted", "message": f"{cut} older messages were summarised to fit the model"}
    usage = usage_content(completed, state, purpose="compaction")
    await emitter.send((emitter.draft("usage", usage), emitter.draft("warning", content, part=part)))
    newer = list(zip(history.seqs[cut:], history.messages[cut:], strict=True))
    last = history.last_seq
    history.begin_with_summary(upto, summary)
    for seq, message in newer:
        history.append(seq, message)
    history.last_seq = last
    return True


def _cut(engine: Engine, history: History, keep_tokens: int) -> int:
    """How many of the oldest messages go: the rest begins with a user message, and never with a tool's answer."""
    messages = history.messages
    size = 0
    cut = len(messages) - 1
    while cut > 0:
        size += engine.gateway.count_tokens(messages[cut : cut + 1])
        if size > keep_tokens:
            break
        cut -= 1
    while cut < len(messages) - 1 and isinstance(messages[cut], ToolMessage | AssistantMessage):
        cut += 1
    return 0 if isinstance(messages[cut], ToolMessage | AssistantMessage) else cut


async def _summarise(engine: Engine, context: RunContext, messages: list[Message]) -> Completed:
    budget = int(engine.gateway.model(context.plan.model).context_window * COMPACT_ABOVE) * 3
    lines: list[str] = []
    for message in reversed(messages):
        line = _line(message)
        budget -= len(line)
        if budget < 0:
            break
        lines.append(line)
    request = ModelRequest(
        model=context.plan.model,
        messages=(
            SystemMessage(text=_INSTRUCTION),
            UserMessage(parts=(TextPart(text="\n".join(reversed(lines))),)),
        ),
        max_tokens=SUMMARY_TOKENS,
        attribution=context.attribution("compaction"),
    )
    return await engine.gateway.complete(request)


def _line(message: Message) -> str:
    if isinstance(message, UserMessage):
        *hidden, said = [_shown(part) for part in message.parts]
        text = "\n".join([said, *hidden])  # what the user wrote first: the rest may be cut
        return f"User: {text[:_MAX_PER_MESSAGE]}"
    if isinstance(message, AssistantMessage):
        calls = "".join(f" [called {item.name}({item.arguments[:300]})]" for item in message.tool_calls)
        return f"Assistant: {message.text[:_MAX_PER_MESSAGE]}{calls}"
    if isinstance(message, ToolMessage):
        return f"Result of {message.name}: {message.content[:1000]}"
    return message.text[:_MAX_PER_MESSAGE]


def _shown(part: Part) -> str:
    if isinstance(part, ImagePart):
        return "[an image]"
    return part.rendered() if isinstance(part, DocumentPart) else part.text
