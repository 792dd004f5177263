"""Shows a run in a terminal as it happens. Ctrl-C cancels the run; a second one leaves."""

import json
from collections.abc import Callable

import click

from agentflow._sync.streams import Stream, run_failure
from agentflow.events import (
    ApprovalRequired,
    ApprovalResolved,
    Event,
    FinalResponse,
    QuestionAnswered,
    QuestionRequired,
    RunError,
    RunWarning,
    TextDelta,
    TextDiscarded,
    ToolFinished,
    ToolStarted,
)


def show_stream(
    stream: Stream, *, as_json: bool, answer: Callable[[Event], None] | None = None
) -> FinalResponse | None:
    """Write a run's events until its last; returns that.

    Args:
        answer: called with what the run asks a person: approvals and questions.

    Raises:
        APIError: the run failed.
    """
    view = _View(as_json)
    cancelled = False
    with stream:
        while True:
            try:
                for event in stream:
                    view.show(event)
                    if answer is not None and isinstance(event, ApprovalRequired | QuestionRequired):
                        answer(event)
                return view.end()
            except KeyboardInterrupt:
                if cancelled:
                    raise click.Abort from None
                cancelled = True
                click.echo("\nCancelling the run … (Ctrl-C again leaves at once)", err=True)
                stream.cancel()


class _View:
    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._column = False
        self._last: Event | None = None

    def show(self, event: Event) -> None:
        self._last = event
        if self._as_json:
            click.echo(json.dumps(event.raw, ensure_ascii=False))
        elif isinstance(event, TextDelta):
            click.echo(event.text, nl=False)
            self._column = not event.text.endswith("\n")
        elif (text := _told(event)) is not None:
            self._note(text)

    def _note(self, text: str) -> None:
        """A line that is not part of the answer, on standard error."""
        if self._column:
            click.echo()
            self._column = False
        click.secho(text, dim=True, err=True)

    def end(self) -> FinalResponse | None:
        if self._column:
            click.echo()
        if isinstance(self._last, RunError):
            raise run_failure(self._last)
        if isinstance(self._last, FinalResponse):
            if self._last.finish_reason == "cancelled" and not self._as_json:
                click.echo("The run was cancelled.", err=True)
            return self._last
        return None


def _told(event: Event) -> str | None:
    """What is said of an event that is not part of the answer."""
    if isinstance(event, ToolStarted):
        return f"→ {event.name} {json.dumps(event.input, ensure_ascii=False)}"
    if isinstance(event, ToolFinished):
        return f"{'✗' if event.is_error else '✓'} {event.name}"
    if isinstance(event, TextDiscarded):
        return "The answer begins anew."
    if isinstance(event, RunWarning):
        return event.message
    if isinstance(event, ApprovalRequired):
        arguments = json.dumps(event.arguments, ensure_ascii=False)
        return f"? {event.tool_name} {arguments} waits for approval {event.id}"
    if isinstance(event, QuestionRequired):
        return f"? the agent asks you: question {event.id}"
    return event.type.replace("_", " ") if isinstance(event, ApprovalResolved | QuestionAnswered) else None
