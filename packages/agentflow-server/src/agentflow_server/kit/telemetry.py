"""Traces and metrics: what spans and counters are called, and nothing of what they are about.

Spans follow OpenTelemetry's conventions for generative AI (semantic conventions 1.37, "GenAI spans"; still in
development there, so their names stand in this file alone). Without an OpenTelemetry SDK they go nowhere.
Metrics are Prometheus's, one registry a process.
"""

import os
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_tracer = trace.get_tracer("agentflow_server")
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
registry = CollectorRegistry()
requests = Histogram(
    "agentflow_request_seconds", "Requests, until their last byte", ["method", "route", "status"],
    buckets=_SECONDS, registry=registry,
)  # fmt: skip
runs = Counter("agentflow_runs", "Runs this process has ended", ["status"], registry=registry)
tokens = Counter("agentflow_tokens", "Tokens of model calls", ["model", "direction"], registry=registry)
jobs = Histogram(
    "agentflow_job_seconds", "Jobs, while a handler had them", ["kind"], buckets=_SECONDS, registry=registry
)
waits = Histogram(
    "agentflow_job_wait_seconds", "Jobs, between being due and being claimed", ["queue"],
    buckets=_SECONDS, registry=registry,
)  # fmt: skip
running = Gauge("agentflow_jobs_running", "Jobs this process runs now", registry=registry)
streams = Gauge("agentflow_streams_open", "Event streams this process serves now", registry=registry)
queue = Gauge("agentflow_queue_depth", "Jobs that are due, of every tenant", ["queue"], registry=registry)


def configure() -> None:
    """Send spans where the standard variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`), if they do.

    Raises:
        ImportError: they do, and the extra `telemetry` is not installed.
    """
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "agentflow-server")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def carrier() -> str | None:
    """The current span as a `traceparent` (W3C Trace Context), to be stored with work that is done later."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers.get("traceparent")


@contextmanager
def _span(name: str, kind: SpanKind, attributes: Mapping[str, str | int], parent: str | None = None) -> Generator[Span]:
    context = propagate.extract({"traceparent": parent}) if parent else None
    with _tracer.start_as_current_span(
        name, context, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise


def request_span(method: str, request_id: str, traceparent: str | None) -> AbstractContextManager[Span]:
    """A request that is answered; continues the caller's trace."""
    attributes = {"http.request.method": method, "agentflow.request.id": request_id}
    return _span(method, SpanKind.SERVER, attributes, traceparent)


def run_span(
    *, agent: str, agent_id: str, run_id: str, conversation_id: str, tenant: str, trace: str | None
) -> AbstractContextManager[Span]:
    """A run, or the part of it that this process drives; belongs to the trace of the request that asked for it."""
    attributes = {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent, "gen_ai.agent.id": agent_id,
        "gen_ai.conversation.id": conversation_id, "agentflow.run.id": run_id, "agentflow.tenant": tenant,
    }  # fmt: skip
    return _span(f"invoke_agent {agent}", SpanKind.INTERNAL, attributes, trace)


def model_span(model: str) -> AbstractContextManager[Span]:
    """One model call of a run."""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}
    return _span(f"chat {model}", SpanKind.CLIENT, attributes)


def model_answered(span: Span, model: str, *, input_tokens: int, output_tokens: int, finish_reason: str) -> None:
    """Note what a model call used."""
    span.set_attributes(
        {
            "gen_ai.response.model": model, "gen_ai.usage.input_tokens": input_tokens,
            "gen_ai.usage.output_tokens": output_tokens, "gen_ai.response.finish_reasons": (finish_reason,),
        }
    )  # fmt: skip
    tokens.labels(model, "input").inc(input_tokens)
    tokens.labels(model, "output").inc(output_tokens)


def tool_span(name: str, call_id: str) -> AbstractContextManager[Span]:
    """One tool call of a run."""
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, "gen_ai.tool.call.id": call_id}
    return _span(f"execute_tool {name}", SpanKind.INTERNAL, attributes)


def exposition() -> bytes:
    """Every metric, as Prometheus reads it."""
    return generate_latest(registry)
