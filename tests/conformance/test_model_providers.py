"""One suite for every model provider: the scripted one, OpenAI-compatible, Anthropic, Google.

Each of the last three speaks to a loopback server that answers in the provider's own format.
"""

import asyncio
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from agentflow.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelContextLengthError,
    ModelInterruptedError,
    ModelRateLimitedError,
    ModelTimeoutError,
    ModelUnavailableError,
    NotAvailableError,
    NotFoundError,
)
from agentflow_server.gateway import (
    Chunk,
    Completed,
    Gateway,
    GatewaySettings,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    ToolSpec,
)
from agentflow_server.gateway.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentflow_server.gateway.settings import Endpoint, Kind
from pydantic import SecretStr

from tests.sdk.wire import Script, Wire, answer, stream, wire

pytestmark = pytest.mark.anyio
WEATHER = ToolSpec(
    name="weather",
    description="Tells the weather of a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
ASK: tuple[Message, ...] = (SystemMessage(text="You are brief."), UserMessage(parts=(TextPart(text="Hello?"),)))


def frames(*events: Any, named: bool = False) -> list[bytes]:
    return [
        (f"event: {event['type']}\n" if named else "").encode() + b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    ]


def openai_frame(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


OPENAI_USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}


def openai_call(index: int, city: str) -> list[dict[str, Any]]:
    first = {"index": index, "id": f"c{index}", "type": "function", "function": {"name": "weather", "arguments": ""}}
    rest = json.dumps({"city": city})
    pieces = [{"index": index, "function": {"arguments": part}} for part in (rest[:6], rest[6:])]
    return [openai_frame({"tool_calls": [piece]}) for piece in (first, *pieces)]


@dataclass
class Dialect:
    """How a provider writes the same things."""

    kind: Kind
    model: str
    text: list[bytes]
    tools: list[bytes]
    output: list[bytes]
    cut: list[bytes]
    error: Callable[[str], bytes]


OPENAI = Dialect(
    "openai",
    "openai/gpt-4o",
    [
        *frames(openai_frame({"role": "assistant", "content": ""}), openai_frame({"reasoning_content": "hm"})),
        *frames(
            openai_frame({"content": "Hel"}), openai_frame({"content": "lo"}), openai_frame({}, "stop"), OPENAI_USAGE
        ),
        b"data: [DONE]\n\n",
    ],
    [
        *frames(*openai_call(0, "Wien"), *openai_call(1, "Graz"), openai_frame({}, "tool_calls"), OPENAI_USAGE),
        b"data: [DONE]\n\n",
    ],
    [*frames(openai_frame({"content": '{"n": 3}'}), openai_frame({}, "stop"), OPENAI_USAGE), b"data: [DONE]\n\n"],
    frames(openai_frame({"content": "Hel"})),
    lambda message: json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode(),
)


def anthropic(blocks: Sequence[tuple[dict[str, Any], Sequence[dict[str, Any]]]], stop: str) -> list[bytes]:
    usage = {"input_tokens": 7, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0, "output_tokens": 1}
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    if stop:
        delta = {"stop_reason": stop, "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 4}})
        events.append({"type": "message_stop"})
    return frames(*events, named=True)


def anthropic_text(*texts: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in texts]


def anthropic_call(number: int, city: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rest = json.dumps({"city": city})
    block = {"type": "tool_use", "id": f"c{number}", "name": "weather", "input": {}}
    return block, [{"type": "input_json_delta", "partial_json": part} for part in (rest[:6], rest[6:])]


THINKING = (
    {"type": "thinking", "thinking": "", "signature": ""},
    [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "sig"}],
)
ANTHROPIC = Dialect(
    "anthropic",
    "anthropic/claude-haiku-4-5",
    anthropic([THINKING, anthropic_text("Hel", "lo")], "end_turn"),
    anthropic([anthropic_call(0, "Wien"), anthropic_call(1, "Graz")], "tool_use"),
    anthropic([anthropic_text('{"n": 3}')], "end_turn"),
    anthropic([anthropic_text("Hel")], "")[:3],
    lambda message: json.dumps({"type": "error", "error": {"type": "x", "message": message}}).encode(),
)


def google(*parts: dict[str, Any]) -> list[bytes]:
    usage = {
        "promptTokenCount": 10, "cachedContentTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 14,
        "thoughtsTokenCount": 0,
    }  # fmt: skip
    events: list[dict[str, Any]] = [
        {
            "candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0}],
            "modelVersion": "gemini-3.8-flash",
        }
        for part in parts
    ]
    events[-1]["candidates"][0]["finishReason"] = "STOP"
    events[-1]["usageMetadata"] = usage
    return frames(*events)


GOOGLE = Dialect(
    "google",
    "google/gemini-3.8-flash",
    google({"text": "hm", "thought": True}, {"text": "Hel"}, {"text": "lo"}),
    google(
        {"functionCall": {"name": "weather", "args": {"city": "Wien"}}},
        {"functionCall": {"name": "weather", "args": {"city": "Graz"}}},
    ),
    google({"text": '{"n": 3}'}),
    frames({"candidates": [{"content": {"parts": [{"text": "Hel"}], "role": "model"}, "index": 0}]}),
    lambda message: json.dumps({"error": {"code": 400, "message": message, "status": "X"}}).encode(),
)
DIALECTS = pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC, GOOGLE], ids=["openai", "anthropic", "google"])


@contextmanager
def gateway(dialect: Dialect, *scripts: Script, **settings: Any) -> Generator[tuple[Gateway, Wire]]:
    with wire(scripts) as server:
        base = server.endpoint + ("/v1" if dialect.kind == "openai" else "")
        endpoint = Endpoint(kind=dialect.kind, base_url=base, api_key=SecretStr("key-of-the-test"))
        name = dialect.model.split("/", 1)[0]
        yield Gateway(GatewaySettings(endpoints={name: endpoint}, idle_timeout=2, **settings)), server


async def ask(port: Gateway, model: str, **fields: Any) -> list[Chunk]:
    try:
        async with port.stream(ModelRequest(model, fields.pop("messages", ASK), **fields)) as chunks:
            return [chunk async for chunk in chunks]
    finally:
        await port.aclose()


def whole(chunks: list[Chunk]) -> Completed:
    assert isinstance(chunks[-1], Completed)
    assert not any(isinstance(chunk, Completed) for chunk in chunks[:-1])
    return chunks[-1]


@DIALECTS
async def test_text_streams_and_is_counted(dialect: Dialect) -> None:
    with gateway(dialect, stream(*dialect.text)) as (port, server):
        chunks = await ask(port, dialect.model)
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk)) == "Hello"
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk)) == "hm"
    completed = whole(chunks)
    assert completed.message.text == "Hello"
    assert completed.finish_reason == "stop"
    assert (completed.usage.input_tokens, completed.usage.cached_input_tokens) == (10, 3)
    assert completed.usage.output_tokens == 4
    assert completed.cost
    assert "key-of-the-test" not in str(server.requests[0].body)


@DIALECTS
async def test_parallel_tool_calls(dialect: Dialect) -> None:
    with gateway(dialect, stream(*dialect.tools)) as (port, server):
        completed = whole(await ask(port, dialect.model, tools=[WEATHER]))
    assert completed.finish_reason == "tool_calls"
    assert [call.name for call in completed.message.tool_calls] == ["weather", "weather"]
    assert [json.loads(call.arguments) for call in completed.message.tool_calls] == [{"city": "Wien"}, {"city": "Graz"}]
    assert b"Tells the weather of a city." in server.requests[0].body


@DIALECTS
async def test_a_history_with_tools_and_images_is_understood(dialect: Dialect) -> None:
    history: tuple[Message, ...] = (
        *ASK,
        AssistantMessage(tool_calls=(ToolCall(id="c1", name="weather", arguments='{"city": "Wien"}'),)),
        ToolMessage(tool_call_id="c1", name="weather", content="sunny"),
        AssistantMessage(text="It is sunny."),
        UserMessage(parts=(ImagePart(data="aGk="), TextPart(text="And this?"))),
    )
    with gateway(dialect, stream(*dialect.text)) as (port, server):
        await ask(port, dialect.model, messages=history, tools=[WEATHER], temperature=0.1, max_tokens=50)
    body = server.requests[0].body.decode()
    for piece in ("You are brief.", "Hello?", "Wien", "sunny", "It is sunny.", "aGk=", "And this?", "0.1", "50"):
        assert piece in body, piece


@DIALECTS
async def test_what_a_provider_wants_back_is_given_back(dialect: Dialect) -> None:
    with gateway(dialect, stream(*dialect.tools)) as (port, _):
        message = whole(await ask(port, dialect.model, tools=[WEATHER])).message
    restored = AssistantMessage.model_validate_json(message.model_dump_json())
    results = [ToolMessage(tool_call_id=call.id, name="weather", content="ok") for call in restored.tool_calls]
    with gateway(dialect, stream(*dialect.text)) as (port, server):
        await ask(port, dialect.model, messages=(*ASK, restored, *results), tools=[WEATHER])
    assert server.requests[0].body.count(b"Graz") == 1


@DIALECTS
async def test_structured_output(dialect: Dialect) -> None:
    with gateway(dialect, stream(*dialect.output)) as (port, server):
        completed = whole(await ask(port, dialect.model, output_schema=SCHEMA, output_name="count"))
    assert json.loads(completed.message.text) == {"n": 3}
    assert b'"n"' in server.requests[0].body


@DIALECTS
@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        ("401 Unauthorized", "bad key key-of-the-test", ModelAuthError),
        ("400 Bad Request", "no such field", ModelBadRequestError),
        ("400 Bad Request", "this model's maximum context length is 10 tokens", ModelContextLengthError),
        ("429 Too Many Requests", "slow down", ModelRateLimitedError),
        ("500 Internal Server Error", "oops", ModelUnavailableError),
    ],
)
async def test_refusals_are_told_apart(dialect: Dialect, status: str, message: str, error: type[Exception]) -> None:
    with gateway(dialect, answer(dialect.error(message), status=status), retries=0) as (port, server):
        with pytest.raises(error) as caught:
            await ask(port, dialect.model)
    assert "key-of-the-test" not in str(caught.value)
    assert len(server.requests) == 1


@DIALECTS
async def test_retried_before_the_first_chunk_only(dialect: Dialect) -> None:
    busy = answer(dialect.error("busy"), status="503 Service Unavailable", headers="Retry-After: 0\r\n")
    with gateway(dialect, busy, stream(*dialect.text), retries=1) as (port, server):
        assert whole(await ask(port, dialect.model)).message.text == "Hello"
    assert len(server.requests) == 2
    with gateway(dialect, stream(*dialect.cut, end="reset"), retries=2) as (port, server):
        with pytest.raises(ModelInterruptedError):
            await ask(port, dialect.model)
    assert len(server.requests) == 1


async def test_an_answer_that_ends_too_early_is_not_whole() -> None:
    for script in (stream(*OPENAI.cut), stream(*OPENAI.cut, b"data: [DONE]\n\n"), stream(*OPENAI.cut, b"data: {x\n\n")):
        with gateway(OPENAI, script) as (port, _), pytest.raises(ModelInterruptedError):
            await ask(port, OPENAI.model)
    failed = b'data: {"error": {"message": "overloaded"}}\n\n'
    with gateway(OPENAI, stream(*OPENAI.cut, failed)) as (port, _):
        with pytest.raises(ModelInterruptedError, match="overloaded"):
            await ask(port, OPENAI.model)


@DIALECTS
async def test_silence_is_bounded(dialect: Dialect) -> None:
    with gateway(dialect, lambda peer, _: peer.hang(), retries=0, call_timeout=0.3) as (port, _):
        with pytest.raises(ModelTimeoutError):
            await ask(port, dialect.model)


@DIALECTS
async def test_cancelling_closes_the_connection(dialect: Dialect) -> None:
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless(peer: Any, request: Any) -> None:
        stream(*dialect.cut, end="nothing")(peer, request)
        while peer._connection.recv(1):
            pass
        loop.call_soon_threadsafe(closed.set)

    with gateway(dialect, endless) as (port, _):
        got = asyncio.Event()

        async def read() -> None:
            async with port.stream(ModelRequest(dialect.model, ASK)) as chunks:
                async for _ in chunks:
                    got.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(got.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 1)
        await port.aclose()


async def test_a_connection_is_used_again() -> None:
    """And where the provider has closed it while it lay idle, nobody notices."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while head := await reader.read(65536):
            if b"\r\n\r\n" in head:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                writer.writelines(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in OPENAI.text)
                writer.write(b"0\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = Endpoint(kind="openai", base_url="http://{}:{}".format(*server.sockets[0].getsockname()))
    asked = Gateway(GatewaySettings(endpoints={"openai": endpoint}))

    async def hello() -> None:
        async with asked.stream(ModelRequest(OPENAI.model, ASK)) as chunks:
            assert whole([chunk async for chunk in chunks]).message.text == "Hello"

    for _ in range(3):
        await hello()
    assert len(connections) == 1
    connections[0].close()
    await connections[0].wait_closed()
    await hello()
    assert len(connections) == 2
    await asked.aclose()
    connections[1].close()
    await connections[1].wait_closed()
    server.close()


async def test_structured_output_falls_back_to_plain_json() -> None:
    refusal = answer(OPENAI.error("'response_format' of type 'json_schema' is not supported"), status="400 Bad Request")
    with gateway(OPENAI, refusal, stream(*OPENAI.output)) as (port, server):
        completed = whole(await ask(port, OPENAI.model, output_schema=SCHEMA))
    assert json.loads(completed.message.text) == {"n": 3}
    assert json.loads(server.requests[1].body)["response_format"] == {"type": "json_object"}


async def test_a_missing_usage_is_estimated() -> None:
    with gateway(OPENAI, stream(*OPENAI.text[:-2], b"data: [DONE]\n\n")) as (port, _):
        usage = whole(await ask(port, OPENAI.model)).usage
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0


async def test_local_models_are_listed_and_become_the_default() -> None:
    listed = answer(json.dumps({"data": [{"id": "llama3:8b"}]}).encode())
    with wire([listed]) as server:
        port = Gateway(GatewaySettings.from_env({"OLLAMA_HOST": server.endpoint}))
        models = [model.id for model in await port.catalogue() if model.available]
        assert "ollama/llama3:8b" in models
        assert await port.default_model() == "ollama/llama3:8b"
        await port.aclose()


async def test_providers_come_from_the_environment() -> None:
    settings = GatewaySettings.from_env(
        {
            "OPENAI_API_KEY": "a",
            "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
            "ANTHROPIC_API_KEY": "b",
            "GEMINI_API_KEY": "c",
            "AZURE_OPENAI_API_KEY": "d",
            "AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com",
        }
    )
    assert set(settings.endpoints) == {"openai", "anthropic", "google", "azure"}
    assert "'a'" not in repr(settings)
    port = Gateway(settings)
    assert await port.default_model() == "openai/gpt-5.4-mini"
    with pytest.raises(NotAvailableError, match="mistral"):
        await port.admit("acme", "mistral/mistral-large-latest")
    for wrong in ("nobody/x", "plain", "agentflow/unknown"):
        with pytest.raises(NotFoundError):
            port.model(wrong)
    await port.aclose()


async def test_the_scripted_model_keeps_the_port() -> None:
    port = Gateway(GatewaySettings())
    said = UserMessage(parts=(TextPart(text="[[reason hm]] [[say Hel lo]]"),))
    chunks = await ask(port, "agentflow/scripted", messages=(said,))
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk)) == "Hel lo"
    assert whole(chunks).cost == 0
    call = UserMessage(parts=(TextPart(text='[[tool weather {"city": "Wien"}]] [[tool weather {"city": "Graz"}]]'),))
    completed = whole(await ask(port, "agentflow/scripted", messages=(call,), tools=[WEATHER]))
    assert [json.loads(item.arguments)["city"] for item in completed.message.tool_calls] == ["Wien", "Graz"]
    asked = UserMessage(parts=(TextPart(text="How is the weather?"),))
    completed = whole(await ask(port, "agentflow/scripted", messages=(asked,), tools=[WEATHER]))
    assert completed.message.tool_calls[0].name == "weather"
    number = UserMessage(parts=(TextPart(text="give me 7"),))
    completed = whole(await ask(port, "agentflow/scripted", messages=(number,), output_schema=SCHEMA))
    assert json.loads(completed.message.text) == {"n": 7}
    who = UserMessage(parts=(TextPart(text="Who are you?"),))
    assert "no language model" in whole(await ask(port, "agentflow/scripted", messages=(who,))).message.text
