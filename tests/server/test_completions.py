"""Completions: five operations, each row for itself, structure enforced."""

import json
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import (
    BudgetExceededError,
    ModelBadRequestError,
    ModelUnavailableError,
    NotAvailableError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ValidationError,
)
from agentflow_server.testing import LocalServer, Reply, ScriptedModel, local_server
from pydantic import BaseModel, field_validator


class Fruit(BaseModel):
    name: str
    count: int


class Even(BaseModel):
    count: int

    @field_validator("count")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value


def test_classify_answers_with_categories_alone(client: AgentFlow) -> None:
    categories = ["refund", "crash", "praise"]
    items = [f"{categories[number % 3]} number {number}" for number in range(30)]
    found = client.completions.classify(items=items, categories=categories, instructions="Crash means an error.")
    assert [row.index for row in found.results] == list(range(30))
    assert [row.result.label for row in found.results if row.result] == [categories[n % 3] for n in range(30)]
    assert all(0 <= (row.result.confidence or 0) <= 1 for row in found.results if row.result)
    assert (found.succeeded, found.failed, found.model) == (30, 0, "agentflow/scripted")
    assert found.usage.requests == 30
    assert found.usage.input_tokens == sum(row.usage.input_tokens for row in found.results)
    first = found["results"][0]
    assert (first["index"], first["success"], first["result"]["label"]) == (0, True, "refund")
    with pytest.raises(KeyError):
        first["nothing"]


def test_a_label_that_is_no_category_is_repaired_or_refused() -> None:
    wrong, right = '{"label": "other", "confidence": 0.5}', '{"label": "refund", "confidence": 0.9}'
    model = ScriptedModel([wrong, right])
    with local_server(providers={"test": model}, completion_concurrency=1) as server, server.client() as client:
        ask = client.completions.classify
        row = ask(items=["x"], categories=["refund"], model="test/m").results[0]
        assert row.result is not None
        assert (row.result.label, row.result.confidence, row.usage.requests) == ("refund", 0.9, 2)
        assert "other" in str(model.requests[1].messages[-1])
        model.replies = [wrong]
        row = ask(items=["x"], categories=["refund"], model="test/m").results[0]
        assert row.error is not None
        assert (row.success, row.result, row.error.code) == (False, None, "output_mismatch")
        assert row.usage.requests == 3
        model.replies = ['{"labels": [{"label": "b", "confidence": 0.2}, {"label": "a", "confidence": 0.7},'
                         ' {"label": "b", "confidence": 0.1}]}', '{"labels": []}']  # fmt: skip
        model.requests.clear()
        some = ask(items=["x", "y"], categories=["a", "b"], multi_label=True, model="test/m").results
        assert [[label.label for label in row.result.labels] for row in some if row.result] == [["a", "b"], []]
        assert [row.result.label for row in some if row.result] == ["a", None]


def test_extract_gives_typed_results(client: AgentFlow) -> None:
    found = client.completions.extract(items=["7 apples", "2 pears"], output_type=Fruit)
    assert [type(row.result) for row in found.results] == [Fruit, Fruit]
    assert [row.result for row in found.results] == [Fruit(name="7 apples", count=7), Fruit(name="2 pears", count=2)]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert client.completions.extract(items=["9"], output_type=schema).results[0].result == {"n": 9}
    wrapped = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert client.completions.extract(items=["9"], output_type=wrapped).results[0].result == {"n": 9}
    free = client.completions.extract(items=['[[json {"a": 1}]]'], extraction_instructions="the letters")
    assert free.results[0].result == {"a": 1}
    even = client.completions.extract(items=["4", "5", "6"], output_type=Even).results
    assert [row.success for row in even] == [True, False, True]
    assert even[1].error is not None
    assert "odd" in even[1].error.message


def test_summarize_enrich_and_run(client: AgentFlow) -> None:
    said = client.completions.summarize(items=["[[say short]]"], summary_instructions="Be brief.")
    assert said.results[0].result is not None
    assert said.results[0].result.summary == "short"
    fields = [
        {"name": "tone", "valid_values": ["angry", "calm"]},
        {"name": "count", "type": "integer", "description": "how many"},
        {"name": "urgent", "type": "boolean", "required": True},
    ]
    enriched = client.completions.enrich(items=["a calm word about 3 things"], fields=fields)
    assert enriched.results[0].result == {"tone": "calm", "count": 3, "urgent": True}
    template = "[[say {greeting} {name}, {content} {{}} {data}]]"
    items = [
        {"content": "you", "metadata": {"greeting": "Hello", "name": "Ada", "data": {"a": 1}}},
        {"content": "you", "metadata": {"greeting": "Hello"}},
    ]
    rows = client.completions.run(items=items, user_prompt_template=template, system_prompt="Be kind.").results
    assert rows[0].result is not None
    assert rows[0].result.text == 'Hello Ada, you {} {"a": 1}'
    assert rows[1].error is not None
    assert (rows[1].error.code, "{name}" in rows[1].error.message) == ("invalid_item", True)
    typed = client.completions.run(items=["3 plums"], output_type=Fruit).results[0]
    assert typed.result is not None
    assert typed.result.output == Fruit(name="3 plums", count=3)


def test_the_model_sees_what_it_should() -> None:
    model = ScriptedModel(['{"tone": null}', "ok"])
    with local_server(providers={"test": model}) as server, server.client() as client:
        item = {"content": "text", "metadata": {"customer": "Ada"}}
        for context in (True, False):
            client.completions.enrich(items=[item], fields=[{"name": "tone"}], include_context=context, model="test/m",
                                      temperature=0.1, max_tokens=50)  # fmt: skip
        seen, hidden = (str(request.messages) for request in model.requests[:2])
        assert "Ada" in seen
        assert "Ada" not in hidden
        assert (model.requests[0].temperature, model.requests[0].max_tokens) == (0.1, 50)
        assert model.requests[0].attribution is not None
        assert model.requests[0].attribution.purpose == "completion"


def test_one_bad_row_never_spoils_the_others() -> None:
    class Moody(ScriptedModel):
        def stream(self, request: Any, model: str) -> Any:
            text = str(request.messages[-1])
            if "bug" in text:
                raise RuntimeError("a bug in a provider")
            self.replies = [
                Reply(fail=ModelBadRequestError("no")) if "refuse" in text
                else Reply(fail=ModelUnavailableError("down", retry_after=61)) if "down" in text
                else Reply("fine")
            ]  # fmt: skip
            return super().stream(request, model)

    items = ["ok 1", "refuse", "ok 2", "bug", "down", "", "ok 3"]
    with local_server(providers={"test": Moody()}) as server, server.client() as client:
        found = client.completions.summarize(items=items, model="test/m")
        codes = [row.error.code if row.error else None for row in found.results]
        assert codes == [None, "model_bad_request", None, "internal_error", "model_unavailable", "invalid_item", None]
        assert (found.succeeded, found.failed) == (3, 4)


@pytest.mark.parametrize(
    ("operation", "body", "field"),
    [
        ("label", {"items": [], "categories": ["a"]}, "items"),
        ("label", {"items": [{"content": "x"}], "categories": []}, "categories"),
        ("label", {"items": [{"content": "x"}], "categories": ["a", "a"]}, "distinct"),
        ("label", {"items": [{"content": "x"}]}, "categories"),
        ("label", {"items": [{"content": 7}], "categories": ["a"]}, "items"),
        ("label", {"items": [{"text": "x"}], "categories": ["a"]}, "items"),
        ("extract", {"items": [{"content": "x"}]}, "response_format"),
        ("extract", {"items": [{"content": "x"}], "response_format": {"type": "nonsense"}}, "response_format"),
        ("enrich", {"items": [{"content": "x"}], "fields": [{"name": "a b"}]}, "fields"),
        ("enrich", {"items": [{"content": "x"}], "fields": [{"name": "a"}, {"name": "a"}]}, "distinct"),
        ("run", {"items": [{"content": "x"}], "model": "nobody/x"}, "model"),
        ("run", {"items": [{"content": "x"}], "temperature": 9}, "temperature"),
    ],
)
def test_what_does_not_hold_is_refused(client: AgentFlow, operation: str, body: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        client.request("POST", f"/api/v1/completions/{operation}", body=body)


def test_limits_policy_and_budget(client: AgentFlow) -> None:
    with pytest.raises(PayloadTooLargeError, match=r"batches"):
        client.completions.summarize(items=["x"] * 51)
    with pytest.raises(NotAvailableError, match="model"):
        client.completions.summarize(items=["x"], model="openai/gpt-5")
    model = ScriptedModel(["word " * 100])
    with local_server(providers={"openai": model}) as server, server.client() as own:
        cost = own.completions.summarize(items=["x"], model="openai/gpt-4o").cost or 0
        assert cost > 0
        own.usage.set_budget(cost * 3.5)
        items = ["x"] * 8
        rows = own.completions.summarize(items=items, model="openai/gpt-4o", max_tokens=120).results
        codes = {row.error.code for row in rows if row.error}
        assert codes == {"budget_exceeded"}
        assert 2 <= sum(row.success for row in rows) <= 4
        with pytest.raises(BudgetExceededError):
            own.completions.summarize(items=items, model="openai/gpt-4o")
        assert own.usage.get_budget().spent <= cost * 4.5
        own.models.set_policy(allowed_models=["agentflow/scripted"], defaults={"completions": "agentflow/scripted"})
        with pytest.raises(PermissionDeniedError):
            own.completions.summarize(items=["x"], model="openai/gpt-4o")
        assert own.completions.summarize(items=["x"]).model == "agentflow/scripted"


def test_items_are_asked_side_by_side_within_a_bound() -> None:
    running, most = 0, 0

    class Counting(ScriptedModel):
        def stream(self, request: Any, model: str) -> Any:
            return self._counted(super().stream(request, model))

        async def _counted(self, chunks: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                running -= 1

    model = Counting([Reply("a b c d e", delay=0.01)])
    with local_server(providers={"test": model}, completion_concurrency=5) as server, server.client() as client:
        client.completions.summarize(items=["x"] * 20, model="test/m")
        assert most == 5


def test_the_command(server: LocalServer, tmp_path: Path) -> None:
    from agentflow.cli.main import root
    from click.testing import CliRunner

    def run(*arguments: str, text: str | None = None) -> Any:
        return CliRunner().invoke(root, ["completions", *arguments, "--endpoint", server.endpoint], input=text)

    done = run("classify", "a refund", "a crash", "--category", "refund", "--category", "crash")
    assert done.exit_code == 0, done.output
    assert "refund (" in done.output
    assert "crash (" in done.output
    told = json.loads(run("summarize", "--json", text="[[say one]]\n\n[[say two]]\n").stdout)
    assert [row["result"]["summary"] for row in told["results"]] == ["one", "two"]
    table = tmp_path / "items.csv"
    table.write_text('content,name\n"[[say hi]]\nthere",Ada\n[[say yo]],Bob\n')
    told = json.loads(run("run", "--file", str(table), "--template", "{content} {name}", "--json").stdout)
    assert [row["result"]["text"] for row in told["results"]] == ["hi", "yo"]
    lines = tmp_path / "items.jsonl"
    lines.write_text('{"content": "5 apples"}\n"6 pears"\n')
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(Fruit.model_json_schema()))
    told = json.loads(run("extract", "--file", str(lines), "--schema", f"@{schema}", "--json").stdout)
    assert [row["result"]["count"] for row in told["results"]] == [5, 6]
    fields = '[{"name": "tone", "valid_values": ["angry", "calm"]}]'
    assert "calm" in run("enrich", "very calm", "--fields", fields).output
    assert run("run", "[[fail bad_request]]").exit_code == 1
