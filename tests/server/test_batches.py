"""Batches: items worked off in the background, files, output, cancelling, repeating, webhooks, fairness."""

import base64
import csv
import hashlib
import hmac
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow, AsyncAgentFlow
from agentflow.errors import (
    APIError,
    ConflictError,
    ModelAuthError,
    ModelBadRequestError,
    ModelRateLimitedError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RequestTimeoutError,
    ValidationError,
)
from agentflow.types.completions import CompletionRow
from agentflow_server.testing import LocalServer, Reply, ScriptedModel, local_server
from pydantic import BaseModel

from tests.server.receiver import receiver

LABELS = ["refund", "crash"]


class Fruit(BaseModel):
    name: str
    count: int


class ByItem(ScriptedModel):
    """Fails for items whose text says so; `mend` heals it."""

    mended = False

    def stream(self, request: Any, model: str) -> Any:
        text = str(request.messages[-1])
        reply = Reply("fine")
        if not self.mended and "bad" in text:
            reply = Reply(fail=ModelBadRequestError("no"))
        if not self.mended and "key" in text:
            reply = Reply(fail=ModelAuthError("the key is not accepted"))
        self.replies = [reply]
        return super().stream(request, model)


def value(row: CompletionRow[Any]) -> Any:
    assert row.success
    return row.result


def test_a_batch_is_worked_off(client: AgentFlow) -> None:
    items = [f"{LABELS[number % 2]} {number}" for number in range(333)]
    seen: list[float] = []
    batch = client.batches.submit_and_wait(
        operation="classify",
        items=items,
        categories=LABELS,
        timeout=60,
        on_progress=lambda now: seen.append(now.progress),
    )
    assert (batch.status, batch.total, batch.processed, batch.succeeded, batch.failed) == (
        "completed",
        333,
        333,
        333,
        0,
    )
    assert (batch.progress, batch.operation, batch.model, batch.done) == (1.0, "label", "agentflow/scripted", True)
    assert seen == sorted(seen)
    assert batch.usage.input_tokens > 0
    assert batch.cost == 0
    rows = list(client.batches.iter_output(batch.id, page_size=100))
    assert [row.index for row in rows] == list(range(333))
    assert [value(row)["label"] for row in rows] == [LABELS[number % 2] for number in range(333)]
    page = client.batches.output(batch.id, offset=300, limit=20)
    assert (page.id, page.status, page.offset, page.limit, page.total) == (batch.id, "completed", 300, 20, 333)
    assert [row.index for row in page.results] == list(range(300, 320))
    assert client.batches.list(status="completed", limit=1).items[0].id == batch.id
    assert client.usage.calls("7d", run_id=batch.id).total == 333
    assert client.usage.calls("7d", run_id=batch.id).items[0].purpose == "batch"


def test_output_as_text_and_as_a_file(client: AgentFlow, tmp_path: Path) -> None:
    items = ["7 apples", '[[json {"name": "a, \\"b\\"\\nc", "count": 1}]]', "9 pears"]
    batch = client.batches.submit_and_wait(operation="extract", items=items, output_type=Fruit, timeout=30)
    lines = client.batches.output(batch.id, format="jsonl").splitlines()
    assert [json.loads(line)["result"]["count"] for line in lines] == [7, 1, 9]
    table = list(csv.DictReader(io.StringIO(client.batches.output(batch.id, format="csv"))))
    assert [row["count"] for row in table] == ["7", "1", "9"]
    assert table[1]["name"] == 'a, "b"\nc'
    assert table[0]["success"] == "true"
    assert len(client.batches.output(batch.id, format="jsonl", offset=1, limit=1).splitlines()) == 1
    saved = client.batches.download_output(batch.id, tmp_path / "rows.csv")
    assert saved.read_bytes().decode() == client.batches.output(batch.id, format="csv")
    assert client.batches.download_output(batch.id, tmp_path / "rows.jsonl").read_text().splitlines() == lines


def test_many_items_are_sent_as_they_come(client: AgentFlow) -> None:
    given = 0

    def items() -> Any:
        nonlocal given
        for number in range(600):
            given += 1
            yield {"content": f"[[say {number}]] ü", "metadata": {"n": number}}

    batch = client.batches.submit(operation="summarize", items=items())
    assert given == 600
    batch = client.batches.wait(batch.id, timeout=60)
    assert (batch.status, batch.total, batch.succeeded) == ("completed", 600, 600)
    assert [value(row)["summary"] for row in client.batches.iter_output(batch.id)] == [str(n) for n in range(600)]


FILES = {
    "items.csv": b'\xef\xbb\xbfcontent,name\r\n"[[say a]]\r\n""x""",Ada\r\n[[say b]],Bob\r\n',
    "items.jsonl": b'{"content": "[[say a]]", "name": "Ada"}\n\n{"content": "[[say b]]", "metadata": {"name": "Bob"}}',
    "items.json": b' [ {"content": "[[say a]]", "name": "Ada"} ,\n{"content": "[[say b]]", "name": "Bob"}] ',
    "object.json": b'{"items": [{"content": "[[say a]]", "name": "Ada"}, {"content": "[[say b]]", "name": "Bob"}]}',
    "unnamed": b'[{"content": "[[say a]]", "name": "Ada"}, {"content": "[[say b]]", "name": "Bob"}]',
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_items(client: AgentFlow, name: str) -> None:
    batch = client.batches.upload_file(
        FILES[name], name=name, operation="run", user_prompt_template="{content} for {name}", max_tokens=5
    )
    batch = client.batches.wait(batch.id, timeout=30)
    assert (batch.status, batch.error) == ("completed", None)
    assert [value(row)["text"] for row in client.batches.iter_output(batch.id)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("x.csv", b"content,content\na,b\n", "header"),
        ("x.csv", b"content\na,b\n", "record 2"),
        ("x.csv", b'content\n"never closed\n' * 3, "CSV"),
        ("x.jsonl", b'{"content": "a"}\n{"content": \n', "line 2"),
        ("x.jsonl", b"[1]\n", "item 1"),
        ("x.json", b'[{"content": "a"}, {"content": "b"', "array"),
        ("x.json", b'[{"content": "a"} {"content": "b"}]', "comma"),
        ("x.json", b"7", "neither"),
        ("x.json", b"[]", "no items"),
        ("x.csv", b"", "no items"),
        ("x.csv", b"content\n", "no items"),
        ("x.jsonl", b'{"content": "a"}\n{"content": 7}\n', "item 2"),
        ("x.jsonl", b'{"content": "\xff"}\n', "UTF-8"),
    ],
)
def test_a_damaged_file_costs_nothing_and_says_where(client: AgentFlow, name: str, data: bytes, told: str) -> None:
    batch = client.batches.upload_file(data, name=name, operation="summarize")
    batch = client.batches.wait(batch.id, timeout=20)
    assert batch.status == "failed"
    assert batch.error is not None
    assert (batch.error.code, told in batch.error.message) == ("invalid_file", True), batch.error.message
    assert batch.processed == 0
    assert client.usage.calls("7d", run_id=batch.id).total == 0
    with pytest.raises(ConflictError, match="nothing"):
        client.batches.retry(batch.id)


def test_what_cannot_be_done_is_refused(client: AgentFlow) -> None:
    submit = client.batches.submit
    refused: list[tuple[dict[str, Any], str]] = [
        ({"operation": "nonsense", "items": ["x"]}, "operation|tag"),
        ({"operation": "label", "items": ["x"]}, "categories"),
        ({"operation": "label", "items": [], "categories": ["a"]}, "items"),
        ({"operation": "summarize", "items": ["x"], "model": "nobody/x"}, "model"),
        ({"operation": "summarize", "items": ["x"], "colour": "red"}, "colour"),
        ({"operation": "extract", "items": ["x"], "output_type": {"type": "nonsense"}}, "response_format"),
        ({"operation": "summarize", "items": ["x"], "webhook_url": "http://127.0.0.1/x"}, "private"),
        ({"operation": "summarize", "items": ["x"], "webhook_url": "ftp://example.com"}, "webhook_url"),
        (
            {"operation": "summarize", "items": ["x"], "webhook_url": "https://example.com", "webhook_secret": "x"},
            "whsec",
        ),
        ({"operation": "summarize", "items": ["x"], "webhook_secret": "whsec_x"}, "webhook_url"),
    ]
    for wrong, field in refused:
        with pytest.raises(ValidationError, match=field):
            submit(**wrong)
    refused = [
        ({"operation": "label"}, "categories"),
        ({"operation": "nonsense"}, "operation"),
        ({"operation": "summarize", "format": "xml"}, "format"),
        ({"operation": "summarize", "temperature": "hot"}, "temperature"),
        ({"operation": "enrich", "fields": "no json"}, "fields"),
    ]
    for wrong, field in refused:
        with pytest.raises(ValidationError, match=field):
            client.batches.upload_file(b"x", **wrong)
    missing = "00000000-0000-0000-0000-000000000000"
    for look in (
        client.batches.retrieve,
        client.batches.cancel,
        client.batches.retry,
        client.batches.delete,
        client.batches.output,
        client.batches.wait,
    ):
        with pytest.raises(NotFoundError):
            look(missing)


def test_limits_of_files(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"batch_max_items": 5, "batch_max_file_bytes": 1000}
    with local_server(data=tmp_path, **limits) as server, server.client() as client:
        with pytest.raises(PayloadTooLargeError, match="1000"):
            client.batches.upload_file(b"x" * 1001, operation="summarize")
        with pytest.raises(PayloadTooLargeError, match="5"):
            client.batches.submit(operation="summarize", items=["x"] * 6)
        batch = client.batches.upload_file(b'"x"\n' * 6, name="x.jsonl", operation="summarize")
        assert "more than 5 items" in str(client.batches.wait(batch.id, timeout=20).error)
        batch = client.batches.upload_file(b'"x"\n' * 5, name="x.jsonl", operation="summarize")
        assert client.batches.wait(batch.id, timeout=20).succeeded == 5
        deadline = time.monotonic() + 10
        while [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]:
            assert time.monotonic() < deadline, "a file that was read is not kept"
            time.sleep(0.01)


def test_rows_that_failed_are_repeated() -> None:
    model = ByItem()
    items = [f"{'bad' if number % 10 == 0 else 'good'} {number}" for number in range(300)]
    with local_server(providers={"test": model}) as server, server.client() as client:
        batch = client.batches.submit_and_wait(operation="summarize", items=items, model="test/m", timeout=60)
        assert (batch.status, batch.succeeded, batch.failed) == ("completed", 270, 30)
        assert client.batches.output(batch.id).results[10].error.code == "model_bad_request"
        made = len(model.requests)
        model.mended = True
        client.batches.retry(batch.id)
        batch = client.batches.wait(batch.id, timeout=60)
        assert (batch.status, batch.succeeded, batch.failed, batch.processed) == ("completed", 300, 0, 300)
        assert len(model.requests) == made + 30
        assert all(row.success for row in client.batches.iter_output(batch.id))
        with pytest.raises(ConflictError, match="nothing"):
            client.batches.retry(batch.id)


def test_a_batch_fails_when_nothing_more_can_be_asked_and_goes_on_later() -> None:
    model = ByItem()
    items = [*["good"] * 100, "key", *["good"] * 499]
    settings: dict[str, Any] = {"batch_tenant_concurrency": 16}
    with local_server(providers={"test": model}, **settings) as server, server.client() as client:
        batch = client.batches.submit_and_wait(operation="summarize", items=items, model="test/m", timeout=60)
        assert (batch.status, batch.failed) == ("failed", 0)
        assert batch.error is not None
        assert batch.error.code == "model_auth_error"
        assert batch.succeeded < 300
        model.mended = True
        client.batches.retry(batch.id)
        batch = client.batches.wait(batch.id, timeout=60)
        assert (batch.status, batch.succeeded, batch.error) == ("completed", 600, None)
        assert [row.index for row in client.batches.iter_output(batch.id)] == list(range(600))


def test_a_budget_stops_a_batch() -> None:
    model = ScriptedModel(["word " * 100])
    with local_server(providers={"openai": model}) as server, server.client() as client:
        ask: dict[str, Any] = {"operation": "summarize", "model": "openai/gpt-4o", "max_tokens": 120}
        one = client.batches.submit_and_wait(items=["x"], timeout=30, **ask).cost or 0
        cap = client.usage.set_budget(one * 20.5).cap or 0
        batch = client.batches.submit_and_wait(items=["x"] * 100, timeout=60, **ask)
        assert (batch.status, batch.error and batch.error.code) == ("failed", "budget_exceeded")
        assert 15 <= batch.succeeded <= 20
        assert client.usage.get_budget().spent <= cap + one
        assert client.usage.get_budget().reserved == 0
        client.usage.set_budget(None)
        client.batches.retry(batch.id)
        assert client.batches.wait(batch.id, timeout=60).succeeded == 100


def test_busy_providers_are_asked_again() -> None:
    model = ScriptedModel(
        [ModelRateLimitedError("slow down", retry_after=61), ModelRateLimitedError("x", retry_after=0.01), "ok"]
    )
    with local_server(providers={"test": model}, batch_item_retries=0) as server, server.client() as client:
        batch = client.batches.submit_and_wait(operation="summarize", items=["x"], model="test/m", timeout=30)
        assert (batch.status, batch.failed) == ("completed", 1)
        client.batches.retry(batch.id)
        assert client.batches.wait(batch.id, timeout=30).succeeded == 1


def test_cancelling_keeps_what_is_there() -> None:
    model = ScriptedModel([Reply("a b c", delay=0.02)])
    with local_server(providers={"test": model}) as server, server.client() as client:
        batch = client.batches.submit(operation="summarize", items=["x"] * 5000, model="test/m")
        while client.batches.retrieve(batch.id).processed < 50:
            pass
        with pytest.raises(ConflictError, match="processing"):
            client.batches.retry(batch.id)
        with pytest.raises(ConflictError, match="cancel"):
            client.batches.delete(batch.id)
        with pytest.raises(RequestTimeoutError, match="goes on"):
            client.batches.wait(batch.id, timeout=0.01)
        ended = client.batches.cancel(batch.id)
        assert ended.status == "cancelled"
        assert client.batches.cancel(batch.id).processed == ended.processed
        rows = list(client.batches.iter_output(batch.id))
        assert 50 <= len(rows) == ended.processed < 5000
        again = client.batches.submit_and_wait(operation="summarize", items=["y"], model="test/m", timeout=20)
        assert again.status == "completed"
        client.batches.delete(batch.id)
        with pytest.raises(NotFoundError):
            client.batches.retrieve(batch.id)


def test_a_repeated_submission_makes_one_batch(client: AgentFlow) -> None:
    ask: dict[str, Any] = {"operation": "summarize", "items": ["x"], "idempotency_key": "batch-1"}
    first = client.batches.submit(**ask)
    assert client.batches.submit(**ask).id == first.id
    other: dict[str, Any] = {**ask, "operation": "label", "categories": ["a"]}
    with pytest.raises(ConflictError):
        client.batches.submit(**other)
    file = client.batches.upload_file(b'"x"\n', name="x.jsonl", operation="summarize", idempotency_key="file-1")
    again = client.batches.upload_file(b'"x"\n', name="x.jsonl", operation="summarize", idempotency_key="file-1")
    assert file.id == again.id


def test_the_end_is_told_and_signed() -> None:
    with (
        receiver() as hook,
        local_server(allow_private_addresses=True) as server,
        server.client() as client,
    ):
        batch = client.batches.submit(operation="summarize", items=["a", "b"], webhook_url=hook.url)
        assert batch.webhook is not None
        secret = batch.webhook.secret
        assert secret is not None
        headers, body = hook.wait(1)[0]
        message = json.loads(body)
        assert message["type"] == "batch.completed"
        assert message["data"]["id"] == batch.id
        assert message["data"]["succeeded"] == 2
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{wanted}"
        while (found := client.batches.retrieve(batch.id).webhook) is None or found.status == "pending":
            pass
        assert (found.status, found.attempts, found.secret) == ("delivered", 1, None)
        own = "whsec_" + base64.b64encode(b"s" * 32).decode()
        hook.statuses = [200, 410]
        gone = client.batches.submit(operation="summarize", items=["a"], webhook_url=hook.url, webhook_secret=own)
        hook.wait(2)
        while (found := client.batches.retrieve(gone.id).webhook) is None or found.status == "pending":
            pass
        assert (found.status, found.last_error) == ("failed", "it answered with status 410")
        stored = b"".join(path.read_bytes() for path in server.data.rglob("*") if path.is_file())
        assert secret.encode() not in stored
        assert own.encode() not in stored


@pytest.mark.slow
def test_a_message_that_is_not_taken_is_sent_again() -> None:
    with (
        receiver() as hook,
        local_server(allow_private_addresses=True) as server,
        server.client() as client,
    ):
        hook.statuses = [503, 200]
        batch = client.batches.submit(operation="summarize", items=["a"], webhook_url=hook.url)
        first, second = hook.wait(2)
        assert first[0]["webhook-id"] == second[0]["webhook-id"]
        while (found := client.batches.retrieve(batch.id).webhook) is None or found.status == "pending":
            pass
        assert (found.status, found.attempts) == ("delivered", 2)


def test_another_user_sees_nothing(tmp_path: Path) -> None:
    with local_server(data=tmp_path) as server, server.client() as client:
        batch = client.batches.submit_and_wait(operation="summarize", items=["x"], timeout=20)
    others: list[dict[str, Any]] = [{"dev_user_id": "other"}, {"dev_tenant_name": "other"}]
    for who in others:
        with local_server(data=tmp_path, **who) as server, server.client() as client:
            assert client.batches.list().total == 0
            for look in (
                client.batches.retrieve,
                client.batches.cancel,
                client.batches.retry,
                client.batches.delete,
                client.batches.output,
                lambda batch_id: client.batches.output(batch_id, format="csv"),
            ):
                with pytest.raises(NotFoundError):
                    look(batch.id)


def test_policy_holds_for_batches(client: AgentFlow) -> None:
    client.models.set_policy(allowed_models=["openai/gpt-5"])
    try:
        with pytest.raises(PermissionDeniedError):
            client.batches.submit(operation="summarize", items=["x"], model="agentflow/scripted")
    finally:
        client.models.set_policy(allow_all=True)


@pytest.mark.anyio
async def test_async(server: LocalServer) -> None:
    client: AsyncAgentFlow = server.async_client()
    async with client:
        batch = await client.batches.submit_and_wait(operation="summarize", items=["[[say x]]"] * 20, timeout=30)
        assert [row.result async for row in client.batches.iter_output(batch.id)] == [{"summary": "x"}] * 20
        batch = await client.batches.upload_file(b'"[[say y]]"\n', name="y.jsonl", operation="summarize")
        assert (await client.batches.wait(batch.id, timeout=20)).status == "completed"


def test_the_command(server: LocalServer, tmp_path: Path) -> None:
    from agentflow.cli.main import root
    from click.testing import CliRunner

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(root, ["batches", *arguments, "--endpoint", server.endpoint])

    table = tmp_path / "items.csv"
    table.write_text("content\na refund\na crash\n")
    chosen = ["--operation", "label", "--category", "refund", "--category", "crash"]
    done = run("submit", str(table), *chosen, "--wait", "--json")
    assert done.exit_code == 0, done.output
    batch = json.loads(done.stdout)
    assert (batch["status"], batch["succeeded"]) == ("completed", 2)
    assert batch["id"] in run("list").output
    assert "100.0%" in run("show", batch["id"]).output
    assert "completed" in run("wait", batch["id"]).output
    rows = [json.loads(line) for line in run("output", batch["id"]).stdout.splitlines()]
    assert [row["result"]["label"] for row in rows] == ["refund", "crash"]
    assert run("output", batch["id"], "--format", "csv", "--to", str(tmp_path / "o.csv")).exit_code == 0
    assert (tmp_path / "o.csv").read_text().startswith("index,success,label")
    assert json.loads(run("output", batch["id"], "--json", "--limit", "1").stdout)["results"][0]["index"] == 0
    assert run("cancel", batch["id"]).exit_code == 0
    assert run("retry", batch["id"]).exception.code == "conflict"
    assert "Removed" in run("delete", batch["id"]).output
    assert isinstance(run("show", batch["id"]).exception, APIError)
