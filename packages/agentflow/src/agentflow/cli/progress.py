"""Shows how work in the background gets on, on standard error. Used by commands that wait for batches and jobs."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from pydantic import BaseModel

from agentflow._sync.streams import BatchWatch
from agentflow.events import BatchUpdate
from agentflow.transport.uploads import Progress

T = TypeVar("T", bound=BaseModel)
_STEPS = 1000


def follow(watch: BatchWatch[T], *, quiet: bool, hint: str) -> T:
    """Watch to the end: a bar in a terminal, elsewhere a line for every file that is through.

    Args:
        quiet: show nothing. hint: the command that waits again; told to whoever leaves with Ctrl-C.
    """
    with watch:
        try:
            if not quiet and sys.stderr.isatty():
                _draw(watch)
            elif not quiet:
                _tell(watch)
            return watch.result()
        except KeyboardInterrupt:
            click.echo(f"It goes on without you. Wait for it again with: {hint}", err=True)
            raise


def _draw(watch: BatchWatch[Any]) -> None:
    with click.progressbar(length=_STEPS, label="Working", item_show_func=_shown, file=sys.stderr) as bar:
        for update in watch:
            bar.update(int(update.progress * _STEPS) - bar.pos, update)
            bar.render_progress()


def _shown(update: BatchUpdate | None) -> str:
    if update is None:
        return ""
    busy = [file["name"] for file in update.files if file["status"] == "processing"]
    failed = f", {update.failed} failed" if update.failed else ""
    return f"{update.processed} of {update.total}{failed}" + "".join(f"  {name}" for name in busy[:1])


def _tell(watch: BatchWatch[Any]) -> None:
    told: set[str] = set()
    for update in watch:
        for file in update.files:
            if file["status"] in ("completed", "failed", "unchanged") and file["id"] not in told:
                told.add(file["id"])
                count = file["chunk_count"]
                more = file.get("error") or f"{count} passage{'s' if count != 1 else ''}"
                click.echo(f"{file['name']}: {file['status']}, {more}", err=True)


@contextmanager
def sending(*, quiet: bool) -> Generator[Progress | None]:
    """A bar for an upload, if there is a terminal to draw it in."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label="Sending", file=sys.stderr) as bar:

        def sent(size: int, total: int | None) -> None:
            bar.length = total or size
            bar.update(size - bar.pos)

        yield sent
