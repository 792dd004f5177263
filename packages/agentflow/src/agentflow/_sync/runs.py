"""Generated from agentflow/resources/runs.py by tools/sync_generator.py: do not edit.

How a run is asked for: the one body of the chat route, and what is made of its answer. Also runs by their id."""

from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter

from agentflow.errors import DecodeError, RunCancelledError
from agentflow._sync.streams import Stream, new_id
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.types.runs import Run, RunOptions, RunResult

Options = RunOptions | dict[str, Any] | None


class Runs:
    """`client.runs`: runs that were started before."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def retrieve(self, run_id: str) -> Run:
        """A run: where it stands and how it ended.

        Raises:
            NotFoundError: there is no such run.
        """
        return self._transport.call(Request("GET", f"/api/v1/runs/{segment(run_id)}", repeatable=True), Run)

    def stream(self, run_id: str, *, last_event_id: str | None = None, verbose: bool = False) -> Stream:
        """A run's events, from behind `last_event_id` on; from its beginning without one."""
        stream = Stream(self._transport, Request("GET", "", timeout=None), verbose=verbose)
        stream.run_id = segment(run_id)
        stream._last_id = last_event_id
        return stream


def segment(value: str) -> str:
    """An id as a part of a path."""
    if not value or not isinstance(value, str):
        raise ValueError(f"an id must be a text that is not empty, not {value!r}")
    return quote(value, safe="")


def chat_request(agent_id: str, message: str, **given: Any) -> Request:
    """The chat route's request; arguments as for `run_request`."""
    return run_request(f"/api/v1/agent/{segment(agent_id)}/chat", message, **given)


def run_request(
    path: str,
    message: str,
    *,
    stream: bool,
    options: Options,
    conversation_id: str | None,
    message_id: str | None,
    output_type: Any,
    timeout: Timeout | float | None,
) -> Request:
    """The request of a route that runs an agent. Ids are minted here, so that every attempt means the same message."""
    checked = options if isinstance(options, RunOptions) else RunOptions.model_validate(options or {})
    body = checked.wire()
    body.update(message=message, stream=stream, message_id=message_id or new_id())
    body["conversation_id"] = conversation_id or new_id()
    body.setdefault("call_id", new_id())
    if output_type is not None:
        body["output_schema"] = output_schema(output_type)
    return Request("POST", path, body=body, repeatable=True, stream=stream, timeout=timeout)


def output_schema(output_type: Any) -> dict[str, Any]:
    """The wire form of an output type: a pydantic model, or any type pydantic understands."""
    name = "".join(char if char.isalnum() else "_" for char in getattr(output_type, "__name__", "output"))[:64]
    return {"name": name or "output", "schema": TypeAdapter(output_type).json_schema()}


def run_once(transport: SyncTransport, request: Request, output_type: Any) -> RunResult:
    """Send a chat request and wait for its result."""
    result = transport.call(request, RunResult)
    return with_output(result, output_type)


def with_output(result: RunResult, output_type: Any) -> RunResult:
    """The result with its output as an `output_type`.

    Raises:
        RunCancelledError: the run was cancelled, so there is no output. DecodeError: the output does not fit.
    """
    if output_type is None:
        return result
    if result.finish_reason == "cancelled":
        raise RunCancelledError("the run was cancelled before it gave its output", result=result)
    try:
        result.output = TypeAdapter(output_type).validate_python(result.output)
    except ValueError as error:
        raise DecodeError(f"the output is not a {getattr(output_type, '__name__', output_type)}: {error}") from None
    return result
