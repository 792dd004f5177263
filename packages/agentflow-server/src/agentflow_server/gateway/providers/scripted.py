"""`agentflow/scripted`: a deterministic stand-in for a language model, for demos and tests without a key.

It is no language model and says so. Its rules are documented in docs/resources/models.md: directives in the user's
message come first, then tools whose words match, then what it was given, then a plain sentence.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from agentflow.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelContextLengthError,
    ModelError,
    ModelInterruptedError,
    ModelRateLimitedError,
    ModelTimeoutError,
    ModelUnavailableError,
)

from agentflow_server.gateway.messages import (
    AssistantMessage,
    DocumentPart,
    ImagePart,
    Message,
    ModelRequest,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from agentflow_server.gateway.providers.sample import sample
from agentflow_server.gateway.stream import Chunk, Completed, ReasoningChunk, TextChunk, ToolCallStarted

_DIRECTIVE = re.compile(r"\[\[(tool|say|words|delay|fail|json|reason|plan|revise|revised)\s+", re.DOTALL)
_WISH = re.compile(r"\bremember that ([^.!?]+[.!?]?)", re.IGNORECASE)
_HIDDEN = re.compile(r"<(system_\w+)>.*</\1>\s*", re.DOTALL)
_WORD = re.compile(r"[^\W_]{3,}")
_COMMON = frozenset(
    [
        "the",
        "and",
        "for",
        "with",
        "that",
        "this",
        "you",
        "your",
        "what",
        "which",
        "who",
        "how",
        "are",
        "was",
        "were",
        "does",
        "did",
        "can",
        "could",
        "will",
        "would",
        "have",
        "has",
        "had",
        "from",
        "into",
        "about",
        "please",
        "tell",
        "give",
        "show",
        "list",
        "there",
        "their",
        "them",
        "they",
        "our",
        "not",
        "any",
        "all",
        "its",
        "out",
        "into",
        "over",
        "than",
        "then",
        "who's",
        "current",
        "currently",
        "get",
        "gets",
    ]
)
_FAILURES: dict[str, type[ModelError]] = {
    "auth": ModelAuthError,
    "bad_request": ModelBadRequestError,
    "context_length": ModelContextLengthError,
    "interrupted": ModelInterruptedError,
    "rate_limited": ModelRateLimitedError,
    "timeout": ModelTimeoutError,
    "unavailable": ModelUnavailableError,
}
_WHO = "I am agentflow/scripted, a deterministic stand-in and no language model"


@dataclass(slots=True)
class Reply:
    """What the scripted model says next.

    Args:
        text: streamed word by word. calls: tool calls as (name, arguments). delay: seconds between two words.
        fail: raised instead of an answer; after the text if there is some.
    """

    text: str = ""
    calls: Sequence[tuple[str, dict[str, Any]]] = ()
    reasoning: str = ""
    delay: float = 0.0
    fail: ModelError | None = None


class ScriptedProvider:
    """Answers by rules."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def stream(self, request: ModelRequest, model: str) -> AsyncGenerator[Chunk, None]:
        """Ask; see `Provider.stream`."""
        return speak(self._reply(request), request, model)

    def _reply(self, request: ModelRequest) -> Reply:
        question, given, results = _read(request.messages)
        if request.output_name == "memory_edits":
            return Reply(json.dumps({"edits": _remembered(question)}, ensure_ascii=False))
        directives = [(kind, rest) for kind, rest, _, _ in _directives(question)]
        reply = Reply(delay=sum(float(rest) for kind, rest in directives if kind == "delay") / 1000)
        reply.reasoning = " ".join(rest for kind, rest in directives if kind == "reason")
        tools = request.tools if request.tool_choice != "none" else ()
        self._fail(reply, question, directives)
        asked = [rest for kind, rest in directives if kind == "tool"]
        if request.output_name in _OWN_CALLS:
            reply.text = json.dumps(_OWN_CALLS[request.output_name](directives, given, _plain(question)))
        elif asked and not results and tools:
            reply.calls = [_directed(rest) for rest in asked]
        elif said := _said(directives, revised=any(_REVISED in text for text in given)):
            reply.text = said
        elif request.output_schema is not None:
            reply.text = json.dumps(sample(request.output_schema, _plain(question)), ensure_ascii=False)
        elif not results and (match := _matching(tools, _plain(question))):
            reply.calls = [match]
        else:
            reply.text = _answer(_plain(question), given, results)
        return reply

    def _fail(self, reply: Reply, question: str, directives: list[tuple[str, str]]) -> None:
        for kind, rest in directives:
            if kind != "fail":
                continue
            code, _, times = rest.strip().partition(" times=")
            count = self._failures.get(question, 0)
            if code in _FAILURES and (not times or count < int(times)):
                self._failures[question] = count + 1
                reply.fail = _FAILURES[code](f"scripted failure: {code}")

    async def models(self) -> list[str]:
        return []

    async def aclose(self) -> None:
        return None


@dataclass
class ScriptedModel:
    """A provider with exact replies, for tests: each call takes the next one, and its request is kept.

    Args:
        replies: texts, `Reply` objects or errors, in order. When they are used up, the last one is given again.
    """

    replies: Sequence[str | Reply | ModelError] = ("ok",)
    requests: list[ModelRequest] = field(default_factory=list[ModelRequest])

    def stream(self, request: ModelRequest, model: str) -> AsyncGenerator[Chunk, None]:
        """Ask; see `Provider.stream`."""
        reply = self.replies[min(len(self.requests), len(self.replies) - 1)]
        self.requests.append(request)
        if isinstance(reply, str):
            reply = Reply(reply)
        elif isinstance(reply, ModelError):
            reply = Reply(fail=reply)
        return speak(reply, request, model)

    async def models(self) -> list[str]:
        return []

    async def aclose(self) -> None:
        return None


async def speak(reply: Reply, request: ModelRequest, model: str) -> AsyncGenerator[Chunk, None]:
    """Stream a reply word by word, and complete it."""
    if reply.fail is not None and not isinstance(reply.fail, ModelInterruptedError):
        raise reply.fail
    if reply.reasoning:
        yield ReasoningChunk(reply.reasoning)
    words = re.findall(r"\s*\S+\s*?(?=\s|$)", reply.text) or ([reply.text] if reply.text else [])
    for index, word in enumerate(words):
        if reply.fail is not None and index * 2 >= len(words):
            break
        if reply.delay and index:
            await asyncio.sleep(reply.delay)
        yield TextChunk(word)
    if reply.fail is not None:
        raise reply.fail
    calls = tuple(
        ToolCall(id=f"call_{index}", name=name, arguments=json.dumps(arguments))
        for index, (name, arguments) in enumerate(reply.calls)
    )
    for index, call in enumerate(calls):
        yield ToolCallStarted(index, call.id, call.name)
    message = AssistantMessage(text="".join(words), tool_calls=calls, reasoning=reply.reasoning)
    used = Usage(
        input_tokens=sum(len(_text(item).split()) for item in request.messages),
        output_tokens=len(words) + sum(len(call.arguments.split()) for call in calls),
        reasoning_tokens=len(reply.reasoning.split()),
        requests=1,
    )
    yield Completed(message, "tool_calls" if calls else "stop", used, model, 0.0)


def _read(messages: Sequence[Message]) -> tuple[str, list[str], list[ToolMessage]]:
    """The newest question, the texts it may be answered from, and the results that came since it was asked."""
    question, given, results = "", list[str](), list[ToolMessage]()
    for message in messages:
        if isinstance(message, UserMessage):
            if question:
                given.append(_plain(question))
            texts = [part.text if isinstance(part, TextPart) else _part_text(part) for part in message.parts]
            if texts and _HIDDEN.fullmatch(texts[-1]):
                given.extend(texts)
                continue
            given.extend(texts[:-1])
            question, results = (texts[-1] if texts else ""), []
        elif isinstance(message, ToolMessage):
            results.append(message)
        elif isinstance(message, SystemMessage):
            given.append(message.text)
    return question, given, results


def _remembered(conversation: str) -> list[dict[str, Any]]:
    """Edits of core memory: what the user asked to remember, in these words."""
    wishes = [wish for line in conversation.splitlines() if line.startswith("User: ") for wish in _WISH.findall(line)]
    return [
        {"action": "add", "block": "core", "scope": "user", "entry": wish[0].upper() + wish[1:], "old_entry": None}
        for wish in wishes
    ]


def _part_text(part: ImagePart | DocumentPart) -> str:
    return part.text if isinstance(part, DocumentPart) else f"(an image, {part.media_type})"


def _text(message: Message) -> str:
    if isinstance(message, UserMessage):
        return " ".join(part.text if isinstance(part, TextPart) else _part_text(part) for part in message.parts)
    return message.content if isinstance(message, ToolMessage) else message.text


def _directives(text: str) -> list[tuple[str, str, int, int]]:
    """The directives of a text: kind, what is said, and where. Brackets inside are balanced, so they may be nested."""
    found: list[tuple[str, str, int, int]] = []
    place = 0
    while match := _DIRECTIVE.search(text, place):
        end = _closing(text, match.end())
        if end < 0:
            break
        found.append((match.group(1), text[match.end() : end].strip(), match.start(), end + 2))
        place = end + 2
    return found


def _closing(text: str, start: int) -> int:
    """Where the brackets of a directive close: balanced, else at the first `]]`; -1 if nowhere."""
    depth = 2
    for place in range(start, len(text)):
        depth += {"[": 1, "]": -1}.get(text[place], 0)
        if depth == 0:
            return place - 1
    return text.find("]]", start)


def _plain(question: str) -> str:
    for _, _, start, end in reversed(_directives(question)):
        question = question[:start] + question[end:]
    return question.strip()


def _planned(directives: list[tuple[str, str]], given: list[str], question: str) -> dict[str, Any]:
    """The answer to a request for a plan: what `[[plan A; B]]` says, else one step."""
    said = [rest for kind, rest in directives if kind == "plan"]
    steps = [step.strip() for step in "; ".join(said).split(";") if step.strip()]
    return {"steps": steps or [f"Answer: {question}"[:200]]}


def _reflected(directives: list[tuple[str, str]], given: list[str], question: str) -> dict[str, Any]:
    """The answer to a request for a critique: the first draft meets the first `[[revise REASON]]`, and so on."""
    reasons = [rest for kind, rest in directives if kind == "revise"]
    draft = next((int(match.group(1)) for text in given if (match := _DRAFT.search(text))), 1)
    if draft <= len(reasons):
        return {"decision": "revise", "reasons": [reasons[draft - 1]]}
    return {"decision": "accept", "reasons": []}


_DRAFT = re.compile(r"^<system_context>\s*Draft (\d+),")
_REVISED = "Your draft was not accepted"
_OWN_CALLS = {"plan": _planned, "reflection": _reflected}


def _words(text: str) -> set[str]:
    return {word.rstrip("s") for word in _WORD.findall(text.lower().replace("_", " "))} - _COMMON


def _directed(rest: str) -> tuple[str, dict[str, Any]]:
    name, _, arguments = rest.strip().partition(" ")
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        parsed = {"raw": arguments}
    return name, cast("dict[str, Any]", parsed if isinstance(parsed, dict) else {"value": parsed})


def _said(directives: list[tuple[str, str]], *, revised: bool) -> str:
    pieces: list[str] = []
    if revised and (again := [rest for kind, rest in directives if kind == "revised"]):
        return " ".join(again)
    for kind, rest in directives:
        if kind in ("say", "json"):
            pieces.append(rest.strip())
        elif kind == "words":
            pieces.append(" ".join(f"word{number}" for number in range(1, int(rest) + 1)))
    return " ".join(pieces)


def _matching(tools: Sequence[ToolSpec], question: str) -> tuple[str, dict[str, Any]] | None:
    """The tool that shares most words with the question, if any does."""
    asked = _words(question)
    best: tuple[int, ToolSpec] | None = None
    for tool in tools:
        score = 2 * len(asked & _words(tool.name)) + len(asked & _words(tool.description))
        if score and (best is None or score > best[0]):
            best = (score, tool)
    if best is None:
        return None
    schema = best[1].parameters
    required = {name: schema["properties"][name] for name in schema.get("required", ()) if name in schema["properties"]}
    return best[1].name, {name: sample(part, question) for name, part in required.items()}


def _answer(question: str, given: list[str], results: list[ToolMessage]) -> str:
    if results:
        return " ".join(
            f"The tool {result.name} {'failed' if result.is_error else 'says'}: {result.content}" for result in results
        )
    asked = _words(question)
    if re.search(r"\bwho are you\b|\bwhat are you\b", question.lower()):
        return f"{_WHO}."
    best = max(_sentences(given), key=lambda sentence: len(asked & _words(sentence)), default="")
    if asked and len(asked & _words(best)) >= (1 if len(asked) < 3 else 2):
        return f"From what I was given: {best}"
    return f"{_WHO}: I call tools by simple rules and answer from what I am given. You wrote: {question}"


def _sentences(given: list[str]) -> list[str]:
    found: list[str] = []
    for text in reversed(given):
        found += [piece.strip() for piece in re.split(r"(?<=[.!?])\s+|\n+", text) if _tells(piece)]
    return found


def _tells(piece: str) -> bool:
    """Whether a sentence says something: it is no question and no markup."""
    text = piece.strip()
    return bool(text) and "<" not in text and not text.endswith("?")
