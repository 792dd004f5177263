"""`agentflow questions`."""

import json
from typing import Any

import click

from agentflow.cli.output import connected, write_json, write_table
from agentflow.client import AgentFlow
from agentflow.types.questions import Question


@click.group()
def questions() -> None:
    """Answer what runs ask their user."""


def _told(question: Question, as_json: bool) -> None:
    if as_json:
        write_json(question)
    else:
        click.echo(f"{question.id}: {question.status}")


@questions.command("list")
@click.option(
    "--status",
    type=click.Choice(["pending", "answered", "expired", "cancelled", "all"]),
    default="pending",
    show_default=True,
)
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, **given: Any) -> None:
    """List questions, the newest first."""
    page = client.questions.list(**given)
    if as_json:
        write_json(page.data)
        return
    rows = [(one.id, one.status, item.id, item.type, item.question) for one in page.items for item in one.items]
    write_table(["id", "status", "item", "type", "question"], rows)


@questions.command()
@click.argument("question_id")
@connected
def show(client: AgentFlow, as_json: bool, question_id: str) -> None:
    """Show what is asked."""
    question = client.questions.retrieve(question_id)
    if as_json:
        write_json(question)
        return
    for item in question.items:
        click.echo(f"{item.id} ({item.type}): {item.question}")
        for option in item.options:
            click.echo(f"  - {option}")


@questions.command()
@click.argument("question_id")
@click.argument("answers", nargs=-1)
@connected
def answer(client: AgentFlow, as_json: bool, question_id: str, answers: tuple[str, ...]) -> None:
    """Answer. ANSWERS are ITEM=VALUE; without any, you are asked."""
    question = client.questions.retrieve(question_id)
    types = {item.id: item.type for item in question.items}
    given: dict[str, Any] = {}
    for text in answers:
        identity, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not ITEM=VALUE", param_hint="ANSWERS")
        given[identity] = value_of(types.get(identity, "text"), value)
    _told(client.questions.respond(question_id, given if answers else ask(question)), as_json)


@questions.command()
@click.argument("question_id")
@connected
def cancel(client: AgentFlow, as_json: bool, question_id: str) -> None:
    """Refuse to answer."""
    _told(client.questions.cancel(question_id), as_json)


def ask(question: Question) -> dict[str, Any]:
    """Ask at the terminal; the answers by the id of their item."""
    given: dict[str, Any] = {}
    for item in question.items:
        options = f" [{' | '.join(item.options)}]" if item.options else ""
        text = click.prompt(f"{item.question}{options}", default=None if item.required else "", show_default=False)
        if text or item.required:
            given[item.id] = value_of(item.type, text)
    return given


def value_of(kind: str, text: str) -> Any:
    """What somebody has typed, as the kind of value an item asks for; the server judges the rest."""
    if kind == "boolean" and text.lower() in ("y", "yes", "true", "n", "no", "false"):
        return text.lower() in ("y", "yes", "true")
    if kind == "multiple_choice":
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind == "number":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
