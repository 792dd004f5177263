"""Usage and budgets: every call is counted once, and a budget holds however many runs there are."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import APIError, BudgetExceededError, ModelUnavailableError, ValidationError
from agentflow_server.gateway import GatewaySettings
from agentflow_server.kit.clock import ManualClock
from agentflow_server.testing import LocalServer, Reply, ScriptedModel, local_server

MODEL = "openai/gpt-4o"  # a model whose price is known


def priced(model: ScriptedModel, **settings: Any) -> Any:
    return local_server(providers={"openai": model}, **settings)


def run(client: AgentFlow, message: str = "hi", **options: Any) -> Any:
    agent_id = client.agents.by_name("MainAgent").id
    return client.agents.run(agent_id=agent_id, message=message, options={"model": MODEL, **options})


def test_every_call_is_recorded_once() -> None:
    model = ScriptedModel([Reply("", calls=[("current_time", {})]), "It is late.", "A title"])
    with priced(model) as server, server.client() as client:
        result = run(client)
        calls = client.usage.calls("7d", run_id=result.run_id)
        assert [call.purpose for call in calls] == ["answer", "answer"]
        assert {call.model for call in calls} == {MODEL}
        assert {call.status for call in calls} == {"completed"}
        assert {call.agent_id for call in calls} == {client.agents.by_name("MainAgent").id}
        assert sum(call.input_tokens for call in calls) == result.usage.input_tokens
        assert sum(call.output_tokens for call in calls) == result.usage.output_tokens
        assert sum(call.cost or 0 for call in calls) == pytest.approx(result.cost)
        assert all(call.latency_ms > 0 for call in calls)
        client.conversations.generate_title(result.conversation_id)
        summary = client.usage.summary("7d")
        assert summary.calls == 3
        assert {group.name: group.calls for group in summary.by_purpose} == {"answer": 2, "title": 1}
        assert [group.name for group in summary.by_user] == ["local-dev"]
        assert [group.calls for group in summary.by_day] == [3]
        assert client.usage.get_budget().spent == pytest.approx(summary.cost)
        assert client.usage.summary("all", everyone=True).model_dump() | {"range": "7d", "since": None} == (
            summary.model_dump() | {"since": None}
        )


def test_calls_that_fail_or_are_left_are_recorded_too() -> None:
    words = " ".join(f"word{number}" for number in range(200))
    model = ScriptedModel([Reply(fail=ModelUnavailableError("down")), Reply(words, delay=0.02)])
    with priced(model) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        model.replies = [Reply(fail=ModelUnavailableError("down", retry_after=61))]
        with pytest.raises(ModelUnavailableError):
            run(client)
        model.replies = [Reply(words, delay=0.02)]
        stream = client.agents.stream(agent_id=agent_id, message="hi", options={"model": MODEL})
        for event in stream:
            if event.type == "delta":
                break
        client.cancellations.cancel_run(stream.run_id or "")
        stream.result()
        left, failed = client.usage.calls("7d").items
        assert (failed.status, failed.cost, failed.estimated) == ("failed", 0.0, False)
        assert (left.status, left.estimated) == ("cancelled", True)
        assert left.output_tokens > 0
        assert client.usage.summary().unfinished == 2


def test_a_budget_stops_calls_before_they_are_made() -> None:
    model = ScriptedModel(["word " * 100])
    with priced(model) as server, server.client() as client:
        cost = run(client).cost
        client.usage.set_budget(cost * 1.5)
        assert run(client).cost == cost, "a call that is larger than what is left may be made alone"
        made = len(model.requests)
        with pytest.raises(BudgetExceededError) as caught:
            run(client)
        assert caught.value.status == 402
        assert caught.value.details["scope"] == "tenant"
        assert caught.value.details["spent"] == pytest.approx(2 * cost)
        assert len(model.requests) == made
        budget = client.usage.get_budget()
        assert (budget.remaining, budget.reserved) == (0, 0)
        assert client.usage.my_budget().tenant_exhausted
        assert client.usage.set_budget(None).cap is None
        run(client)


def test_budgets_of_users() -> None:
    model = ScriptedModel(["word " * 100])
    with priced(model, user_monthly_budget=5.0) as server, server.client() as client:
        assert client.usage.my_budget().user.cap == 5.0
        cost = run(client).cost
        client.usage.set_user_budget(cost / 2)
        with pytest.raises(BudgetExceededError, match="local-dev"):
            run(client)
        found = client.usage.set_user_budget(1.0, user_id="local-dev")
        assert [(user.user_id, user.cap, user.override) for user in found.users] == [("local-dev", 1.0, 1.0)]
        run(client)
        client.usage.set_user_budget(None, user_id="local-dev")
        with pytest.raises(BudgetExceededError):
            run(client)
        with pytest.raises(ValueError, match="cap"):
            client.usage.set_budget(-1)
        with pytest.raises(ValidationError, match="range"):
            client.usage.summary("1d")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_budget_begins_anew_with_the_month() -> None:
    clock = ManualClock()
    model = ScriptedModel(["word " * 100])
    with priced(model, clock=clock, memory_consolidation=False) as server, server.client() as client:
        cost = run(client).cost
        budget = client.usage.set_budget(cost)
        with pytest.raises(BudgetExceededError):
            run(client)
        clock.advance(budget.resets_at.timestamp() - clock.micros() / 1e6 + 1)
        assert client.usage.get_budget().spent == 0
        run(client)
        assert client.usage.summary("all").calls == 2
        clock.advance(91 * 86_400)
        assert client.usage.summary("90d").calls == 0


@pytest.mark.embedded
def test_what_a_dead_process_has_set_aside_expires(tmp_path: Any) -> None:
    import sqlite3

    clock = ManualClock()
    model = ScriptedModel(["word " * 100])
    with priced(model, data=tmp_path, clock=clock) as server, server.client() as client:
        run(client)
        client.usage.set_budget(10)
    with sqlite3.connect(tmp_path / "agentflow.db") as connection:
        connection.execute(
            "INSERT INTO spend_reservations VALUES ('agentflow', 'r', 'local-dev', 10000000000, ?)",
            (clock.micros() + 60_000_000,),
        )
    with priced(model, data=tmp_path, clock=clock) as server, server.client() as client:
        assert client.usage.get_budget().reserved == 10
        clock.advance(61)
        assert client.usage.get_budget().reserved == 0
        run(client)


@pytest.mark.parametrize("calls", [20.5])
def test_parallel_runs_cannot_overshoot(calls: float) -> None:
    runs = 64
    model = ScriptedModel([Reply("word " * 50, delay=0.0005)])
    with priced(model) as server, server.client() as client:
        agent_id = client.agents.by_name("MainAgent").id
        one = run(client, max_tokens=60).cost
        already = client.usage.get_budget().spent
        cap = client.usage.set_budget(already + one * calls).cap or 0
        refused: list[APIError] = []
        lock = threading.Lock()

        def go(_: int) -> None:
            try:
                client.agents.run(agent_id=agent_id, message="hi", options={"model": MODEL, "max_tokens": 60})
            except APIError as error:
                with lock:
                    refused.append(error)

        with ThreadPoolExecutor(runs) as pool:
            list(pool.map(go, range(runs)))
        budget = client.usage.get_budget()
        assert budget.spent <= cap + one
        assert {error.status for error in refused} <= {402, 429}
        made = len(model.requests)
        assert made == runs - len(refused) + 1
        assert made >= int(calls)
        summary = client.usage.summary("7d")
        assert summary.calls == made
        assert summary.cost == pytest.approx(made * one)
        assert budget.spent == pytest.approx(summary.cost)
        assert budget.reserved == 0


@pytest.mark.parametrize("limit", ["tenant", "provider"])
def test_calls_a_minute_are_bounded(limit: str) -> None:
    import time

    calls = 12
    rates: dict[str, Any] = {"tenant_model_rate_limit": 600} if limit == "tenant" else {}
    gateway = GatewaySettings(rate_limit=600 if limit == "provider" else 0)
    with local_server(providers={"test": ScriptedModel()}, gateway_settings=gateway, **rates) as server:
        with server.client() as client:
            began = time.monotonic()
            found = client.completions.summarize(items=["x"] * calls, model="test/m")
            assert found.succeeded == calls
            spaced = calls - 1 if limit == "provider" else calls - 11
            assert time.monotonic() - began >= spaced * 0.1 - 0.02


def test_another_user_sees_its_own_alone(tmp_path: Any) -> None:
    model = ScriptedModel(["ok"])
    with priced(model, data=tmp_path) as server, server.client() as client:
        result = run(client)
    with priced(model, data=tmp_path, dev_user_id="other") as server, server.client() as client:
        assert client.usage.summary("all").calls == 0
        assert client.usage.calls("all", run_id=result.run_id).total == 0
        assert client.usage.summary("all", everyone=True).calls == 1
        assert client.usage.summary("all", user_id="local-dev").calls == 1
    with priced(model, data=tmp_path, dev_tenant_name="other") as server, server.client() as client:
        assert client.usage.summary("all", everyone=True).calls == 0
        assert client.usage.get_budget().spent == 0


def test_the_command(server: LocalServer) -> None:
    import json

    from agentflow.cli.main import root
    from click.testing import CliRunner

    def told(*arguments: str) -> Any:
        done = CliRunner().invoke(root, [*arguments, "--endpoint", server.endpoint, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    with server.client() as client:
        client.agents.run(agent_id=client.agents.by_name("MainAgent").id, message="hi")
    assert told("usage", "summary", "--range", "7d")["calls"] >= 1
    assert told("usage", "calls", "--limit", "1")["calls"][0]["status"] == "completed"
    assert told("usage", "budget", "--set", "100")["cap"] == 100
    assert told("usage", "budget", "--set", "none")["cap"] is None
    assert told("usage", "budget", "--mine")["tenant_exhausted"] is False
    assert told("usage", "budgets", "--set", "7")["override"] == 7
    assert told("usage", "budgets", "--set", "none")["override"] is None
    for by in ("model", "day", "agent"):
        shown = CliRunner().invoke(root, ["usage", "summary", "--by", by, "--endpoint", server.endpoint])
        assert "total" in shown.output
    assert told("models", "policy")["mode"] == "platform"
    assert told("models", "use", "agentflow/scripted")["model"] == "agentflow/scripted"
    assert told("models", "use", "--clear")["model"] is None
    assert "openai" in told("models", "keys", "list")["providers"]
