"""Any endpoint that speaks OpenAI's chat completions: the hot path of most runs.

Written on our own wire: the request is joined from messages that were serialised once, the answer is split and parsed
from bytes. Source of the format: OpenAI API reference, "Create chat completion", streaming.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from agentflow.errors import ModelBadRequestError, ModelInterruptedError, ModelTimeoutError, ModelUnavailableError
from pydantic_core import from_json, to_json

from agentflow_server.gateway.failures import provider_error
from agentflow_server.gateway.http1 import Answer, Guarded, Wire, WireError, WireTimeoutError, wire_for
from agentflow_server.gateway.memo import Memo
from agentflow_server.gateway.messages import (
    AssistantMessage,
    DocumentPart,
    ImagePart,
    Message,
    ModelRequest,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentflow_server.gateway.ports import Embeddings
from agentflow_server.gateway.settings import Endpoint, GatewaySettings
from agentflow_server.gateway.stream import Chunk, Completed, FinishReason, ReasoningChunk, TextChunk, ToolCallStarted

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "content_filter": "content_filter",
}
_MAX_ERROR = 64 * 1024
_LAST_BYTES = 0.25
_MAX_LINE = 16 * 1024 * 1024


class OpenAICompatible:
    """An OpenAI-compatible provider.

    Args:
        name: as in model ids, for messages. endpoint: where it is.
    """

    def __init__(self, name: str, endpoint: Endpoint, settings: GatewaySettings) -> None:
        self._name = name
        self._endpoint = endpoint
        self._settings = settings
        self._http: Wire | None = None
        self._wire: Memo[bytes] = Memo(_wire)
        self._plain_json: set[str] = set()

    def _send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> AbstractAsyncContextManager[Answer]:
        if self._http is None:
            limits, endpoint = self._settings, self._endpoint
            times = {"connect_timeout": limits.connect_timeout, "idle_timeout": limits.idle_timeout}
            guarded = endpoint.guarded
            self._http = Guarded(allow_private=endpoint.allow_private, **times) if guarded else wire_for(url, **times)
        return self._http.send(method, url, headers, body)

    async def stream(self, request: ModelRequest, model: str) -> AsyncGenerator[Chunk, None]:
        """Ask; see `Provider.stream`."""
        try:
            async with aclosing(self._attempt(request, model)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        except ModelBadRequestError as error:
            told = error.message.lower()
            if request.output_schema is None or model in self._plain_json or not _names_format(told):
                raise
        self._plain_json.add(model)
        async with aclosing(self._attempt(request, model)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _attempt(self, request: ModelRequest, model: str) -> AsyncGenerator[Chunk, None]:
        url, headers = self._target(model)
        answer = _Answer(f"{self._name}/{model}")
        try:
            async with self._send("POST", url, headers, self._body(request, model)) as response:
                answer.request_id = response.headers.get("x-request-id")
                if response.status != 200:
                    raise await self._refusal(response)
                blocks = _blocks(response)
                async for block in blocks:
                    for chunk in answer.read(block):
                        yield chunk
                    if answer.done:
                        await _read_to_end(response)
                        break
        except WireError as error:
            raise self._failure(answer, error) from None
        yield answer.completed(request, self._wire)

    def _failure(self, answer: "_Answer", error: WireError) -> Exception:
        silent = isinstance(error, WireTimeoutError)
        if answer.started:
            what = "fell silent" if silent else "broke off"
            return ModelInterruptedError(f"{self._name} {what} in the middle of its answer")
        if silent and error.sent:
            return ModelTimeoutError(f"{self._name} did not begin to answer in time")
        return ModelUnavailableError(f"{self._name} could not be reached: {error}")

    async def _refusal(self, response: Answer) -> Exception:
        body = b""
        while len(body) < _MAX_ERROR and (piece := await response.read()) is not None:
            body += piece
        return provider_error(self._name, response.status, body, response.headers.get("retry-after"))

    def _target(self, model: str) -> tuple[str, dict[str, str]]:
        endpoint = self._endpoint
        key = endpoint.api_key.get_secret_value() if endpoint.api_key else None
        base = (endpoint.base_url or "").rstrip("/")
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if endpoint.kind == "azure":
            headers["api-key"] = key or ""
            return f"{base}/openai/deployments/{model}/chat/completions?api-version={endpoint.api_version}", headers
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return f"{base}/chat/completions", headers

    def _body(self, request: ModelRequest, model: str) -> bytes:
        options: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
        for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty", "reasoning_effort"):
            if (value := getattr(request, name)) is not None:
                options[name] = value
        if request.max_tokens is not None:
            modern = self._name in ("openai", "azure")
            options["max_completion_tokens" if modern else "max_tokens"] = request.max_tokens
        if request.tools:
            options["tools"] = [{"type": "function", "function": tool.model_dump()} for tool in request.tools]
            options["tool_choice"] = request.tool_choice
        get = self._wire.get
        messages = [get(message) for message in request.messages]
        if request.output_schema is not None:
            name = request.output_name or "output"
            if model in self._plain_json:
                options["response_format"] = {"type": "json_object"}
                messages.insert(0, _wire(SystemMessage(text=_json_instruction(request.output_schema))))
            else:
                schema = {"name": name, "schema": request.output_schema}
                options["response_format"] = {"type": "json_schema", "json_schema": schema}
        return b'{"messages":[%s],%s' % (b",".join(messages), to_json(options)[1:])

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Embeddings of texts (`POST /embeddings`); see `EmbeddingProvider`."""
        url, headers = self._target(model)
        target = url.replace("/chat/completions", "/embeddings")
        content = to_json({"model": model, "input": list(texts), "encoding_format": "float"})
        body = b""
        try:
            async with self._send("POST", target, headers, content) as response:
                while (piece := await response.read()) is not None:
                    body += piece
        except WireError as error:
            raise ModelUnavailableError(f"{self._name} could not be reached: {error}") from None
        if response.status != 200:
            raise provider_error(self._name, response.status, body[:_MAX_ERROR], response.headers.get("retry-after"))
        try:
            told = from_json(body)
            rows = sorted(told["data"], key=lambda row: row["index"])
            return Embeddings([row["embedding"] for row in rows], (told.get("usage") or {}).get("prompt_tokens"))
        except (ValueError, LookupError, TypeError):
            raise ModelUnavailableError(f"{self._name} answered with something that is no list of embeddings") from None

    async def models(self) -> list[str]:
        """The models a local endpoint lists; none if it does not answer quickly."""
        url, headers = self._target("")
        body = b""
        try:
            async with (
                asyncio.timeout(3.0),
                self._send("GET", url.replace("/chat/completions", "/models"), headers, b"") as response,
            ):
                while (piece := await response.read()) is not None:
                    body += piece
                listed = json.loads(body)["data"] if response.status == 200 else ()
                return [str(item["id"]) for item in listed]
        except (WireError, TimeoutError, ValueError, KeyError, TypeError):
            return []

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()


async def _read_to_end(response: Answer) -> None:
    """Take what stands behind `[DONE]`, so that the connection can be used again; a server that holds it is left."""
    try:
        async with asyncio.timeout(_LAST_BYTES):
            while await response.read() is not None:
                pass
    except TimeoutError:
        pass


async def _blocks(response: Answer) -> AsyncIterator[list[bytes]]:
    """The data lines of each network read (server-sent events; this format never splits one over two lines)."""
    rest = b""
    while (piece := await response.read()) is not None:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        if len(rest) > _MAX_LINE:
            raise ModelInterruptedError("the provider sent an event without an end")
        block = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        if block:
            yield block
    if rest.startswith(b"data:"):
        yield [rest[5:].strip()]


class _Answer:
    """Puts an answer together from its frames."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._finish: FinishReason | None = None
        self._usage: dict[str, Any] | None = None
        self.request_id: str | None = None
        self.done = False

    @property
    def started(self) -> bool:
        return bool(self._text or self._reasoning or self._calls or self._finish)

    def read(self, block: list[bytes]) -> list[Chunk]:
        """Take in the frames of one network read; adjacent text becomes one chunk."""
        text: list[str] = []
        reasoning: list[str] = []
        others: list[Chunk] = []
        for data in block:
            if data == b"[DONE]":
                self.done = True
                break
            frame = self._parse(data)
            if usage := frame.get("usage"):
                self._usage = usage
            if choices := frame.get("choices"):
                self._choice(choices[0], text, reasoning, others)
        chunks: list[Chunk] = []
        if reasoning:
            self._reasoning.extend(reasoning)
            chunks.append(ReasoningChunk("".join(reasoning)))
        if text:
            self._text.extend(text)
            chunks.append(TextChunk("".join(text)))
        return chunks + others if others else chunks

    def _choice(self, choice: dict[str, Any], text: list[str], reasoning: list[str], others: list[Chunk]) -> None:
        if delta := choice.get("delta"):
            if content := delta.get("content"):
                text.append(content)
            if len(delta) > 1 or "content" not in delta:
                self._less_common(delta, text, reasoning, others)
        if reason := choice.get("finish_reason"):
            self._finish = _FINISH.get(reason, "stop")

    def _parse(self, data: bytes) -> dict[str, Any]:
        try:
            frame = from_json(data)
        except ValueError:
            raise ModelInterruptedError(f"{self._model} sent something that is not JSON in its answer") from None
        if not isinstance(frame, dict):
            raise ModelInterruptedError(f"{self._model} sent something that is not an event in its answer")
        if error := frame.get("error"):
            told = error.get("message", "") if isinstance(error, dict) else error
            raise ModelInterruptedError(f"{self._model} failed while it answered: {str(told)[:300]}")
        return frame

    def _less_common(self, delta: dict[str, Any], text: list[str], reasoning: list[str], others: list[Chunk]) -> None:
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            reasoning.append(thought if isinstance(thought, str) else "")
        if refusal := delta.get("refusal"):
            text.append(refusal)
        for position, call in enumerate(delta.get("tool_calls") or ()):
            index = call.get("index", position)
            known = self._calls.get(index)
            function = call.get("function") or {}
            if known is None:
                known = self._calls[index] = {"id": call.get("id") or "", "name": "", "arguments": ""}
                others.append(ToolCallStarted(index, known["id"], function.get("name") or ""))
            known["name"] += function.get("name") or ""
            known["arguments"] += function.get("arguments") or ""

    def completed(self, request: ModelRequest, wire: Memo[bytes]) -> Completed:
        """The whole answer.

        Raises:
            ModelInterruptedError: the provider never said that it was complete.
        """
        if self._finish is None:
            raise ModelInterruptedError(f"{self._model} broke off before its answer was complete")
        calls = tuple(
            ToolCall(id=call["id"] or f"call_{index}", name=call["name"], arguments=call["arguments"] or "{}")
            for index, call in sorted(self._calls.items())
        )
        text = "".join(self._text)
        message = AssistantMessage(text=text, tool_calls=calls, reasoning="".join(self._reasoning))
        finish = "tool_calls" if calls and self._finish == "stop" else self._finish
        usage = self._read_usage(request, wire, len(text))
        return Completed(message, finish, usage, self._model, None, self.request_id)

    def _read_usage(self, request: ModelRequest, wire: Memo[bytes], characters: int) -> Usage:
        if self._usage is None:
            size = sum(len(wire.get(message)) for message in request.messages)
            return Usage(input_tokens=size // 4, output_tokens=characters // 4 + 1, requests=1)
        told = self._usage
        prompt, completion = told.get("prompt_tokens_details") or {}, told.get("completion_tokens_details") or {}
        return Usage(
            input_tokens=told.get("prompt_tokens") or 0,
            cached_input_tokens=prompt.get("cached_tokens") or 0,
            output_tokens=told.get("completion_tokens") or 0,
            reasoning_tokens=completion.get("reasoning_tokens") or 0,
            requests=1,
        )


def _wire(message: Message) -> bytes:
    """A message as the endpoint reads it."""
    if isinstance(message, UserMessage):
        return to_json({"role": "user", "content": _user_content(message)})
    if isinstance(message, AssistantMessage):
        body: dict[str, Any] = {"role": "assistant", "content": message.text or None}
        if message.tool_calls:
            body["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in message.tool_calls
            ]
        elif not message.text:
            body["content"] = ""
        return to_json(body)
    if isinstance(message, ToolMessage):
        return to_json({"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content})
    return to_json({"role": "system", "content": message.text})


def _user_content(message: UserMessage) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, ImagePart) for part in message.parts):
        return "\n\n".join(
            part.rendered() if isinstance(part, DocumentPart) else part.text
            for part in message.parts
            if not isinstance(part, ImagePart)
        )
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ImagePart):
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            content.append({"type": "image_url", "image_url": {"url": url, "detail": part.detail}})
        else:
            content.append({"type": "text", "text": part.rendered() if isinstance(part, DocumentPart) else part.text})
    return content


def _names_format(message: str) -> bool:
    return any(word in message for word in ("response_format", "json_schema", "structured output"))


def _json_instruction(schema: dict[str, Any]) -> str:
    return f"Answer with one JSON value and nothing else. It must fit this JSON Schema:\n{json.dumps(schema)}"
