"""Traces, metrics and logs: what an operator sees, and that it holds no content."""

import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from agentflow import AgentFlow
from agentflow.errors import AuthenticationError, ModelError
from agentflow_server.kit import logs, telemetry
from agentflow_server.testing import LocalServer, local_server
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SECRET = "a-secret-word"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def eventually(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    """A span that may end a moment after the answer is there."""
    deadline = time.monotonic() + 10
    while not named(exporter, name):
        assert time.monotonic() < deadline, name
    return named(exporter, name)[0]


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def test_a_trace_leads_from_the_client_to_the_tool(
    client: AgentFlow, agent_id: str, spans: InMemorySpanExporter
) -> None:
    tracer = telemetry._tracer
    with tracer.start_as_current_span("the caller") as caller:
        message = f"[[tool current_time {{}}]] [[say {SECRET} done]]"
        result = client.agents.run(agent_id=agent_id, message=message)
    ours = caller.get_span_context().trace_id
    request = eventually(spans, "POST /api/v1/agent/{agent_id}/chat")
    run = eventually(spans, "invoke_agent MainAgent")
    (tool,) = named(spans, "execute_tool current_time")
    chats = named(spans, "chat agentflow/scripted")
    assert len(chats) == 2
    family = [request, run, tool, *chats]
    assert {span.context.trace_id for span in family if span.context} == {ours}
    parents = [span.parent.span_id if span.parent else 0 for span in family]
    assert parents[0] == caller.get_span_context().span_id
    assert request.context
    assert run.context
    assert parents[1:] == [request.context.span_id, *[run.context.span_id] * 3]
    attributes = dict(chats[-1].attributes or {})
    assert attributes["gen_ai.usage.output_tokens"]
    assert attributes["gen_ai.operation.name"] == "chat"
    assert dict(run.attributes or {})["gen_ai.conversation.id"] == result.conversation_id
    assert not [span for span in family if SECRET in span.to_json()]


def test_what_failed_is_marked(client: AgentFlow, agent_id: str, spans: InMemorySpanExporter) -> None:
    assert list(client.agents.stream(agent_id=agent_id, message="[[fail bad_request]]"))
    chat = eventually(spans, "chat agentflow/scripted")
    assert chat.status.status_code is trace.StatusCode.ERROR
    assert dict(chat.attributes or {})["error.type"] == "ModelBadRequestError"


def values(server: LocalServer, **headers: str) -> dict[str, float]:
    text = httpx2.get(f"{server.endpoint}/metrics", headers=headers).text
    assert SECRET not in text
    found = re.findall(r"^(\w+(?:\{.*\})?) ([0-9.e+-]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_metrics_count(server: LocalServer, client: AgentFlow, agent_id: str) -> None:
    before = values(server)
    client.agents.run(agent_id=agent_id, message=f"[[say {SECRET}]]")
    ended = 'agentflow_runs_total{status="completed"}'
    while (after := values(server)).get(ended, 0) == before.get(ended, 0):
        pass
    assert after[ended] == before.get(ended, 0) + 1
    used = 'agentflow_tokens_total{direction="output",model="agentflow/scripted"}'
    assert after[used] > before.get(used, 0)
    route = 'agentflow_request_seconds_count{method="POST",route="/api/v1/agent/{agent_id}/chat",status="200"}'
    assert after[route] > before.get(route, 0)
    assert "agentflow_streams_open" in after


def test_metrics_may_have_a_token() -> None:
    with local_server(metrics_token="scrape") as server, server.client(max_retries=0) as client:
        with pytest.raises(AuthenticationError, match="METRICS_TOKEN"):
            client.request("GET", "/metrics")
        assert "agentflow_jobs_running" in values(server, Authorization="Bearer scrape")


def test_log_lines_carry_ids_and_no_content(client: AgentFlow, agent_id: str) -> None:
    records: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(json.loads(logs.JsonFormatter().format(record)))

    handler = Keep()
    logger = logging.getLogger("agentflow_server")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with pytest.raises(ModelError):
            client.agents.run(agent_id=agent_id, message=f"{SECRET} [[fail bad_request]]")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    requests = [line for line in records if line["message"] == "request"]
    assert requests
    assert all(line["request_id"] for line in requests)
    assert not [line for line in records if SECRET in json.dumps(line)]
