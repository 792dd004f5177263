"""Requests made up from our own OpenAPI document: whatever is sent, the server does not fail."""

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from agentflow import AgentFlow
from agentflow_server.testing import LocalServer
from hypothesis import HealthCheck, Phase, settings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/reference/openapi.json"
schema: Any = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text()))


@pytest.fixture(scope="module")
def real_ids(server: LocalServer) -> dict[str, str]:
    """Ids that exist, so that requests come further than to `not found`."""
    with server.client() as client:
        agent = client.agents.create(name="Fuzzed")
        result = client.agents.run(agent_id=agent.id, message="[[say hello]]")
    return {
        "agent_id": agent.id,
        "conversation_id": result.conversation_id,
        "message_id": result.message_id,
        "run_id": result.run_id,
        "call_id": result.call_id,
        "block_type": "core",
    }


@pytest.mark.slow
@pytest.mark.filterwarnings(  # the server of this process draws random pauses meanwhile; strategies do not
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)
@schema.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
def test_no_request_makes_the_server_fail(case: Any, server: LocalServer, real_ids: dict[str, str]) -> None:
    made_up = len(str(case.body) + str(case.query)) % 2
    if not made_up and "watch" not in case.path and case.method != "DELETE":
        given: dict[str, Any] = case.path_parameters or {}
        case.path_parameters = {name: real_ids.get(name, value) for name, value in given.items()}
    answer = case.call(base_url=server.endpoint, timeout=20)
    assert answer.status_code < 500, f"{answer.status_code} {answer.text}"


def test_the_server_is_still_well(client: AgentFlow) -> None:
    assert client.system.ready().status == "ok"
