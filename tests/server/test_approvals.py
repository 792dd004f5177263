"""Approvals and questions through the SDK: a run waits for somebody, durably, and goes on as it was decided."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.cli.main import root
from agentflow.errors import APIError, ConflictError, NotFoundError, ValidationError
from agentflow.events import (
    ApprovalRequired,
    ApprovalResolved,
    Event,
    FinalResponse,
    QuestionAnswered,
    QuestionRequired,
    ToolFinished,
    ToolStarted,
)
from agentflow.resources.runs import segment
from agentflow_server.testing import LocalServer, Reply, ScriptedModel, local_server
from click.testing import CliRunner

PAY = "def pay(amount: int, to: str = 'nobody') -> str:\n    'Pays.'\n    return f'paid {amount} to {to}'\n"
ASKED: dict[str, Any] = {
    "questions": [
        {"id": "size", "question": "Which size?", "options": ["S", "M"]},
        {"id": "colours", "question": "Which colours?", "type": "multiple_choice", "options": ["red", "blue"]},
        {"id": "count", "question": "How many?", "type": "number"},
        {"id": "gift", "question": "A gift?", "type": "boolean"},
        {"id": "note", "question": "Anything else?", "required": False},
    ]
}
ANSWERS: dict[str, Any] = {"size": "M", "colours": ["red"], "count": 2, "gift": False}


@pytest.fixture
def agent(client: AgentFlow) -> Iterator[str]:
    made = client.agents.create(name="Payer", llm_config={"model": "agentflow/scripted"}, tools=["ask_user"])
    client.agents.tools.create(made.id, name="pay", description="Pays.", function_code=PAY, require_approval=True)
    yield made.id
    client.agents.tools.delete(made.id, "pay")
    client.agents.delete(made.id)


def pay(client: AgentFlow, agent_id: str, decide: Any, arguments: str = '{"amount": 5}') -> list[Event]:
    """Run a gated call; `decide` is called with the request."""
    stream = client.agents.stream(
        agent_id=agent_id, message=f"[[tool pay {arguments}]] [[say done]]", options={"verbose": True}
    )
    events: list[Event] = []
    for event in stream:
        events.append(event)
        if isinstance(event, ApprovalRequired):
            assert client.runs.retrieve(stream.run_id or "").status in ("running", "waiting")
            decide(event)
    return events


def of(events: list[Event], kind: type[Event]) -> Any:
    return next(event for event in events if isinstance(event, kind))


def test_a_call_waits_and_is_approved(client: AgentFlow, agent: str) -> None:
    def approve(event: ApprovalRequired) -> None:
        assert (event.tool_name, event.arguments) == ("pay", {"amount": 5})
        pending = client.approvals.list(tool_name="pay").items
        assert [one.id for one in pending] == [event.id]
        assert client.approvals.retrieve(event.id or "").status == "pending"
        decided = client.approvals.respond(event.id or "", "approved", reason="fine")
        assert (decided.status, decided.approver, decided.reason) == ("approved", "local-dev", "fine")
        with pytest.raises(ConflictError, match="approved before"):
            client.approvals.respond(event.id or "", "denied")
        with pytest.raises(ConflictError):
            client.approvals.cancel(event.id or "")

    events = pay(client, agent, approve)
    kinds = [event.type for event in events]
    assert kinds.index("approval_required") < kinds.index("approval_approved")
    resolved, started = of(events, ApprovalResolved), of(events, ToolStarted)
    assert resolved.content["approver"] == "local-dev"
    assert resolved.seq < started.seq
    assert of(events, ToolFinished).result == "paid 5 to nobody"
    assert of(events, FinalResponse).text == "done"
    assert kinds.count("approval_required") == kinds.count("approval_approved") == 1


def test_changed_arguments_are_checked_and_used(client: AgentFlow, agent: str) -> None:
    def change(event: ApprovalRequired) -> None:
        for wrong in ({"amount": "much"}, {}, {"amount": 1, "more": 2}):
            with pytest.raises(ValidationError, match="modified_arguments"):
                client.approvals.respond(event.id or "", "approved", modified_arguments=wrong)
        with pytest.raises(ValueError, match="approved only"):
            client.approvals.respond(event.id or "", "denied", modified_arguments={"amount": 1})
        body = {"status": "denied", "modified_arguments": {"amount": 1}}
        with pytest.raises(ValidationError, match="approved only"):
            client.request("POST", f"/api/v1/approvals/{event.id}/respond", body=body)
        client.approvals.respond(event.id or "", "approved", modified_arguments={"amount": 1, "to": "Ann"})

    events = pay(client, agent, change)
    assert of(events, ToolStarted).input == {"amount": 1, "to": "Ann"}
    assert of(events, ToolFinished).result == "paid 1 to Ann"
    assert of(events, ApprovalResolved).content["modified_arguments"] == {"amount": 1, "to": "Ann"}


def test_a_denial_is_told_to_the_model(client: AgentFlow, agent: str) -> None:
    events = pay(client, agent, lambda event: client.approvals.respond(event.id, "denied", reason="too much"))
    error = of(events, ToolFinished).result["error"]
    assert error == {"code": "approval_denied", "message": "the call of pay was denied: too much"}
    assert not [event for event in events if isinstance(event, ToolStarted)]
    assert of(events, ApprovalResolved).type == "approval_denied"
    assert of(events, FinalResponse).text == "done"


def test_a_withdrawn_request(client: AgentFlow, agent: str) -> None:
    events = pay(client, agent, lambda event: client.approvals.cancel(event.id))
    assert of(events, ToolFinished).result["error"]["code"] == "approval_cancelled"
    assert of(events, ApprovalResolved).type == "approval_cancelled"


def test_a_request_expires(client: AgentFlow, agent: str) -> None:
    client.agents.tools.set_approval(agent, "pay", enabled=True, timeout=0.3)
    asked: list[str] = []
    before = client.approvals.summary().expired
    events = pay(client, agent, lambda event: asked.append(event.id))
    assert of(events, ToolFinished).result["error"]["code"] == "approval_expired"
    assert of(events, ApprovalResolved).type == "approval_expired"
    with pytest.raises(ConflictError, match="expired"):
        client.approvals.respond(asked[0], "approved")
    assert client.approvals.summary().expired == before + 1
    assert client.approvals.cleanup() == before + 1
    with pytest.raises(NotFoundError):
        client.approvals.retrieve(asked[0])


def test_of_two_answers_one_counts(client: AgentFlow, agent: str) -> None:
    outcomes: list[Any] = []

    def answer(event: ApprovalRequired) -> None:
        barrier = threading.Barrier(6)

        def one(number: int) -> Any:
            barrier.wait()
            try:
                return client.approvals.respond(event.id or "", "approved" if number % 2 else "denied").status
            except ConflictError as error:
                return error

        with ThreadPoolExecutor(6) as pool:
            outcomes.extend(pool.map(one, range(6)))

    events = pay(client, agent, answer)
    decided = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(decided) == 1
    assert of(events, ApprovalResolved).type == f"approval_{decided[0]}"


def test_two_calls_wait_side_by_side(client: AgentFlow, agent: str) -> None:
    waiting: list[str] = []

    def both(event: ApprovalRequired) -> None:
        waiting.append(event.id or "")
        if len(waiting) == 2:
            answers = [{"id": waiting[1], "decision": "approved"}, {"id": waiting[0], "decision": "denied"}]
            results = client.approvals.respond_to_many([*answers, {"id": "nothing", "decision": "approved"}])
            assert [one.success for one in results] == [True, True, False]
            assert results[2].error
            assert results[2].error["code"] == "not_found"

    stream = client.agents.stream(
        agent_id=agent,
        message='[[tool pay {"amount": 1}]] [[tool pay {"amount": 2}]] [[say done]]',
        options={"verbose": True},
    )
    events: list[Event] = []
    for event in stream:
        events.append(event)
        if isinstance(event, ApprovalRequired):
            both(event)
    results = [event.result for event in events if isinstance(event, ToolFinished)]
    assert len(results) == 2
    assert sum("error" in result for result in results) == 1
    assert of(events, FinalResponse).text == "done"
    tool = client.agents.tools.retrieve(agent, "pay")
    stats = client.approvals.stats(tool=tool.id)[0]
    assert (stats.total, stats.approved, stats.denied) == (2, 1, 1)
    assert stats.mean_seconds_to_decision is not None


def test_a_cancelled_run_waits_no_longer(client: AgentFlow, agent: str) -> None:
    handle = client.agents.stream(agent_id=agent, message='[[tool pay {"amount": 1}]]')
    required = next(event for event in handle if isinstance(event, ApprovalRequired))
    handle.cancel()
    assert handle.result().finish_reason == "cancelled"
    assert client.approvals.retrieve(required.id or "").status == "cancelled"
    with pytest.raises(ConflictError, match="cancelled"):
        client.approvals.respond(required.id or "", "approved")


def test_a_direct_run_waits_too(client: AgentFlow, agent: str) -> None:
    stream = client.agents.tools.stream(agent, "pay", {"amount": 7}, idempotency_key="gated")
    kinds: list[str] = []
    for event in stream:
        kinds.append(event.type)
        if isinstance(event, ApprovalRequired):
            with pytest.raises(ConflictError, match="idempotency_key"):
                client.agents.tools.run(agent, "pay", {"amount": 7}, idempotency_key="gated")
            client.approvals.respond(event.id or "", "approved", modified_arguments={"amount": 8})
    assert kinds == ["approval_required", "approval_approved", "start", "end"]
    assert client.runs.retrieve(stream.run_id or "").result.raw["result"] == "paid 8 to nobody"  # type: ignore[union-attr]  # it has ended
    denied = client.agents.tools.stream(agent, "pay", {"amount": 7})
    for event in denied:
        if isinstance(event, ApprovalRequired):
            client.approvals.respond(event.id or "", "denied")
        elif isinstance(event, FinalResponse):
            assert event.content["is_error"]
            assert event.content["result"]["error"]["code"] == "approval_denied"


def test_approvals_of_somebody_else_do_not_exist(tmp_path: Path) -> None:
    model = ScriptedModel([Reply("", [("current_time", {})]), "done"])
    with local_server(data=tmp_path, providers={"test": model}) as server, server.client() as client:
        own = client.agents.by_name("MainAgent").id
        client.agents.tools.set_approval(own, "current_time", enabled=True)
        handle = client.agents.stream(agent_id=own, message="x", options={"model": "test/m"})
        approval = next(event for event in handle if isinstance(event, ApprovalRequired)).id or ""
    others: tuple[dict[str, Any], ...] = ({"dev_user_id": "other"}, {"dev_tenant_name": "other"})
    for other in others:
        with local_server(data=tmp_path, providers={"test": model}, **other) as server, server.client() as client:
            assert not client.approvals.list(status="all").items
            base = f"/api/v1/approvals/{segment(approval)}"
            body = {"status": "approved"}
            calls: list[tuple[str, str, Any]] = [
                ("GET", base, None), ("POST", f"{base}/respond", body), ("POST", f"{base}/cancel", None),
            ]  # fmt: skip
            for method, path, sent in calls:
                with pytest.raises(NotFoundError) as caught:
                    client.request(method, path, body=sent)
                with pytest.raises(NotFoundError) as missing:
                    client.request(method, path.replace(approval, "nothing"), body=sent)
                assert caught.value.message == missing.value.message.replace("nothing", approval)


def test_a_run_goes_on_after_a_restart_while_it_waits(tmp_path: Path) -> None:
    model = ScriptedModel([Reply("", [("pay", {"amount": 1}), ("ask_user", ASKED)]), "done"])
    with local_server(data=tmp_path, providers={"test": model}) as server, server.client() as client:
        agent = client.agents.create(name="Payer", tools=["ask_user"])
        client.agents.tools.create(agent.id, name="pay", description="d", function_code=PAY, require_approval=True)
        handle = client.agents.stream(agent_id=agent.id, message="x", options={"model": "test/m", "verbose": True})
        seen: set[str] = set()
        for event in handle:
            seen.add(event.type)
            if {"approval_required", "question_required"} <= seen:
                break
        run_id = handle.run_id or ""
    with local_server(data=tmp_path, providers={"test": model}) as server, server.client() as client:
        assert client.runs.retrieve(run_id).status == "waiting"
        client.approvals.respond(client.approvals.list().items[0].id, "approved", modified_arguments={"amount": 9})
    with local_server(data=tmp_path, providers={"test": model}) as server, server.client() as client:
        assert client.runs.retrieve(run_id).status in ("waiting", "running", "queued")
        client.questions.respond(client.questions.list().items[0].id, ANSWERS)
        events = list(client.runs.stream(run_id, verbose=True))
        assert of(events, FinalResponse).text == "done"
        kinds = [event.type for event in events]
        for kind in ("approval_required", "approval_approved", "question_required", "question_answered"):
            assert kinds.count(kind) == 1, kind
        results = {event.name: event.result for event in events if isinstance(event, ToolFinished)}
        assert results == {"pay": "paid 9 to nobody", "ask_user": {"answers": ANSWERS}}
        numbers = [event.seq or 0 for event in events]
        assert numbers == sorted(set(numbers))


def asked(client: AgentFlow, agent_id: str, decide: Any, questions: dict[str, Any] = ASKED) -> list[Event]:
    stream = client.agents.stream(
        agent_id=agent_id,
        message=f"[[tool ask_user {json.dumps(questions)}]] [[say done]]",
        options={"verbose": True},
    )
    events: list[Event] = []
    for event in stream:
        events.append(event)
        if isinstance(event, QuestionRequired):
            decide(event)
    return events


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": "XL"}, "answers.size"),
        ({"size": None}, "answers.size"),
        ({"colours": "red"}, "answers.colours"),
        ({"colours": ["red", "red"]}, "answers.colours"),
        ({"count": "two"}, "answers.count"),
        ({"count": True}, "answers.count"),
        ({"gift": "yes"}, "answers.gift"),
        ({"note": ""}, "answers.note"),
        ({"other": 1}, "answers.other"),
    ],
)
def test_answers_are_checked(client: AgentFlow, agent: str, change: dict[str, Any], field: str) -> None:
    def answer(event: QuestionRequired) -> None:
        with pytest.raises(ValidationError) as caught:
            client.questions.respond(event.id or "", {**ANSWERS, **change})
        assert caught.value.details[0]["field"] == field
        client.questions.cancel(event.id or "")

    events = asked(client, agent, answer)
    assert of(events, QuestionAnswered).type == "question_cancelled"
    assert of(events, ToolFinished).result["error"]["code"] == "question_cancelled"


def test_questions_are_answered_once(client: AgentFlow, agent: str) -> None:
    def answer(event: QuestionRequired) -> None:
        question = client.questions.retrieve(event.id or "")
        assert [item.type for item in question.items] == ["choice", "multiple_choice", "number", "boolean", "text"]
        assert event.id in [one.id for one in client.questions.list().items]
        assert client.questions.respond(event.id or "", ANSWERS).status == "answered"
        with pytest.raises(ConflictError, match="answered before"):
            client.questions.respond(event.id or "", ANSWERS)

    events = asked(client, agent, answer)
    assert of(events, QuestionAnswered).content["answers"] == ANSWERS
    assert of(events, ToolFinished).result == {"answers": ANSWERS}
    with pytest.raises(NotFoundError):
        client.questions.retrieve("nothing")


def test_questions_expire_and_bad_ones_are_refused(client: AgentFlow, agent: str) -> None:
    def wait(_: QuestionRequired) -> None:
        return None

    events = asked(client, agent, wait, {**ASKED, "timeout_seconds": 0.3})
    assert of(events, QuestionAnswered).type == "question_expired"
    for bad in (
        {"questions": []},
        {"questions": [{"id": "a", "question": "?", "type": "choice"}]},
        {"questions": [{"id": "a", "question": "?"}, {"id": "a", "question": "?"}]},
    ):
        assert of(asked(client, agent, wait, bad), ToolFinished).result["error"]["code"] == "invalid_arguments"


def test_pages_of_approvals(client: AgentFlow, agent: str) -> None:
    for _ in range(3):
        pay(client, agent, lambda event: client.approvals.respond(event.id, "denied"))
    page = client.approvals.list(status="denied", page_size=2, tool_name="pay")
    assert (len(page.items), page.page, page.page_size) == (2, 1, 2)
    assert len(list(page)) == page.total
    assert client.approvals.list(status="denied", page=2, page_size=2, tool_name="pay").page == 2
    for query in ("page=0", "page_size=101", "status=odd"):
        with pytest.raises(APIError):
            client.request("GET", f"/api/v1/approvals?{query}")


def test_the_commands_decide(server: LocalServer, client: AgentFlow, agent: str) -> None:
    environment = {**os.environ, "AGENTFLOW_ENDPOINT": server.endpoint}

    def respond(event: ApprovalRequired) -> None:
        arguments = ["approvals", "respond", event.id or "", "approved", "--arguments", '{"amount": 8}']
        done = CliRunner().invoke(root, arguments, env=environment)
        assert done.output == "pay: approved\n"

    assert of(pay(client, agent, respond), ToolFinished).result == "paid 8 to nobody"
    terminal, stdin = os.openpty()
    try:
        os.write(terminal, b"y\n")
        done = subprocess.run(
            [str(Path(sys.executable).with_name("agentflow")), "agents", "run", agent, '[[tool pay {"amount": 5}]]'],
            stdin=stdin, capture_output=True, text=True, timeout=30, env=environment,
        )  # fmt: skip
    finally:
        os.close(terminal)
        os.close(stdin)
    assert done.returncode == 0, done.stderr
    assert "paid 5 to nobody" in done.stdout
    assert "Approve?" in done.stderr
