"""Anthropic and Google through pydantic-ai's model layer: the one module that imports it, and only when it is used."""

import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx2
from agentflow.errors import ModelBadRequestError, ModelInterruptedError, ModelUnavailableError
from pydantic_ai import messages as theirs
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from agentflow_server.gateway.failures import provider_error
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
from agentflow_server.gateway.settings import Endpoint, GatewaySettings
from agentflow_server.gateway.stream import Chunk, Completed, FinishReason, ReasoningChunk, TextChunk, ToolCallStarted
from agentflow_server.kit.outbound import outbound_client

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_call": "tool_calls",
}


class PydanticAI:
    """A provider that pydantic-ai knows."""

    def __init__(self, name: str, endpoint: Endpoint, settings: GatewaySettings) -> None:
        self._name = name
        self._endpoint = endpoint
        timeout = httpx2.Timeout(settings.idle_timeout, connect=settings.connect_timeout)
        if endpoint.guarded:
            self._http = outbound_client(allow_private=endpoint.allow_private)
            self._http.timeout = timeout
        else:
            self._http = httpx2.AsyncClient(timeout=timeout)
        self._models: dict[str, Model[Any]] = {}

    def _model(self, name: str) -> "Model[Any]":
        if name not in self._models:
            key = self._endpoint.api_key.get_secret_value() if self._endpoint.api_key else None
            if self._endpoint.kind == "anthropic":
                from anthropic import AsyncAnthropic
                from pydantic_ai.models.anthropic import AnthropicModel
                from pydantic_ai.providers.anthropic import AnthropicProvider

                client = AsyncAnthropic(
                    api_key=key, base_url=self._endpoint.base_url, max_retries=0, http_client=cast("Any", self._http)
                )
                self._models[name] = AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client))
            else:
                from pydantic_ai.models.google import GoogleModel
                from pydantic_ai.providers.google import GoogleProvider

                provider = GoogleProvider(
                    api_key=key, base_url=self._endpoint.base_url, http_client=cast("Any", self._http)
                )
                self._models[name] = GoogleModel(name, provider=provider)
        return self._models[name]

    async def stream(self, request: ModelRequest, model: str) -> AsyncGenerator[Chunk, None]:
        """Ask; see `Provider.stream`."""
        started = False
        try:
            async with self._model(model).request_stream(
                _messages(request.messages), _settings(request), _parameters(request)
            ) as response:
                async for event in response:
                    for chunk in _chunks(event):
                        started = True
                        yield chunk
                completed = _completed(response.get(), f"{self._name}/{model}")
        except ModelHTTPError as error:
            body = error.body if isinstance(error.body, (str, bytes)) else json.dumps(error.body, default=str)
            raise provider_error(
                self._name, error.status_code, body if isinstance(body, bytes) else body.encode()
            ) from None
        except (ModelAPIError, httpx2.HTTPError, UnexpectedModelBehavior) as error:
            if started:
                raise ModelInterruptedError(f"{self._name} broke off in the middle of its answer") from error
            raise ModelUnavailableError(f"{self._name} could not be reached: {type(error).__name__}") from error
        yield completed

    async def models(self) -> list[str]:
        """These providers' models stand in the catalogue."""
        return []

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _chunks(event: Any) -> list[Chunk]:
    if isinstance(event, theirs.PartStartEvent):
        part = event.part
        if isinstance(part, theirs.TextPart) and part.content:
            return [TextChunk(part.content)]
        if isinstance(part, theirs.ThinkingPart) and part.content:
            return [ReasoningChunk(part.content)]
        if isinstance(part, theirs.ToolCallPart):
            return [ToolCallStarted(event.index, part.tool_call_id, part.tool_name)]
    elif isinstance(event, theirs.PartDeltaEvent):
        delta = event.delta
        if isinstance(delta, theirs.TextPartDelta) and delta.content_delta:
            return [TextChunk(delta.content_delta)]
        if isinstance(delta, theirs.ThinkingPartDelta) and delta.content_delta:
            return [ReasoningChunk(delta.content_delta)]
    return []


_RESPONSE = theirs.ModelMessagesTypeAdapter


def _completed(response: theirs.ModelResponse, model: str) -> Completed:
    if response.finish_reason is None and response.state != "complete":
        raise ModelInterruptedError(f"{model} broke off before its answer was complete")
    calls = tuple(
        ToolCall(id=part.tool_call_id, name=part.tool_name, arguments=part.args_as_json_str())
        for part in response.parts
        if isinstance(part, theirs.ToolCallPart)
    )
    text = "".join(part.content for part in response.parts if isinstance(part, theirs.TextPart))
    thinking = "".join(part.content for part in response.parts if isinstance(part, theirs.ThinkingPart))
    kept = _RESPONSE.dump_python([response], mode="json")[0] if thinking or calls else None
    usage = response.usage
    finish: FinishReason = "tool_calls" if calls else _FINISH.get(response.finish_reason or "stop", "stop")
    message = AssistantMessage(
        text=text, tool_calls=calls, reasoning=thinking, provider_data={"response": kept} if kept else None
    )
    counted = Usage(
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cache_read_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=int(usage.details.get("reasoning_tokens", 0) or usage.details.get("thoughts_tokens", 0)),
        requests=1,
    )
    return Completed(message, finish, counted, model, None, response.provider_response_id)


def _messages(messages: "Any") -> list[theirs.ModelMessage]:
    result: list[theirs.ModelMessage] = []
    for message in cast("list[Message]", list(messages)):
        if isinstance(message, AssistantMessage):
            result.append(_response(message))
        else:
            part = _request_part(message)
            last = result[-1] if result else None
            if isinstance(last, theirs.ModelRequest):
                last.parts = [*last.parts, part]
            else:
                result.append(theirs.ModelRequest(parts=[part]))
    return result


def _response(message: AssistantMessage) -> theirs.ModelResponse:
    kept = (message.provider_data or {}).get("response")
    if kept is not None:
        response = _RESPONSE.validate_python([kept])[0]
        same = [call.id for call in message.tool_calls] == [
            part.tool_call_id for part in response.parts if isinstance(part, theirs.ToolCallPart)
        ]
        if isinstance(response, theirs.ModelResponse) and same:
            return response
    parts: list[Any] = [theirs.TextPart(message.text)] if message.text else []
    parts += [theirs.ToolCallPart(call.name, call.arguments, call.id) for call in message.tool_calls]
    return theirs.ModelResponse(parts=parts or [theirs.TextPart("")])


def _request_part(message: SystemMessage | UserMessage | ToolMessage) -> theirs.ModelRequestPart:
    if isinstance(message, SystemMessage):
        return theirs.SystemPromptPart(message.text)
    if isinstance(message, ToolMessage):
        outcome = "failed" if message.is_error else "success"
        return theirs.ToolReturnPart(message.name, message.content, message.tool_call_id, outcome=outcome)
    content: list[theirs.UserContent] = []
    for part in message.parts:
        if isinstance(part, ImagePart):
            content.append(_image(part))
        else:
            content.append(part.rendered() if isinstance(part, DocumentPart) else part.text)
    return theirs.UserPromptPart(content)


def _image(part: ImagePart) -> theirs.UserContent:
    if part.url:
        return theirs.ImageUrl(part.url)
    import base64

    return theirs.BinaryContent(base64.b64decode(part.data or ""), media_type=part.media_type)


def _settings(request: ModelRequest) -> ModelSettings:
    settings: dict[str, Any] = {}
    for name in ("temperature", "top_p", "max_tokens", "frequency_penalty", "presence_penalty"):
        if (value := getattr(request, name)) is not None:
            settings[name] = value
    if request.tools and request.tool_choice != "auto":
        settings["tool_choice"] = request.tool_choice
    return cast("ModelSettings", settings)


def _parameters(request: ModelRequest) -> ModelRequestParameters:
    tools = [
        ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=tool.parameters)
        for tool in request.tools
    ]
    if request.output_schema is None:
        return ModelRequestParameters(function_tools=tools, thinking=_thinking(request))
    if request.output_schema.get("type") != "object":
        raise ModelBadRequestError("this provider's structured output needs a schema of type object")
    definition = OutputObjectDefinition(json_schema=request.output_schema, name=request.output_name)
    return ModelRequestParameters(
        function_tools=tools, output_mode="native", output_object=definition, thinking=_thinking(request)
    )


def _thinking(request: ModelRequest) -> Any:
    return None if request.reasoning_effort in (None, "none") else request.reasoning_effort
