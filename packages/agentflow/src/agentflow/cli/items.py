"""Items for `completions` and `batches`: from arguments, standard input or a file. And the options operations share."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv"}


def items_option(command: F) -> F:
    """Give a command texts as arguments, and `--file`."""
    command = click.option(
        "--file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="CSV, JSON, JSONL or a text a line.",
    )(command)
    return click.argument("texts", nargs=-1)(command)


def model_options(command: F) -> F:
    """Give a command `--model`, `--temperature` and `--max-tokens`."""
    for option in (
        click.option("--max-tokens", type=click.IntRange(1), help="Most tokens of one answer."),
        click.option("--temperature", type=click.FloatRange(0, 2)),
        click.option("--model", help="provider/model"),
    ):
        command = option(command)
    return command


def read_items(texts: tuple[str, ...], file: Path | None) -> list[dict[str, Any]]:
    """The items: the arguments, else the file, else the lines of standard input."""
    if texts:
        return [{"content": text} for text in texts]
    if file is None:
        return [{"content": line.rstrip("\n")} for line in sys.stdin if line.strip()]
    kind = _ENDINGS.get(file.suffix.lower(), "lines")
    with file.open(encoding="utf-8-sig", newline="" if kind == "csv" else None) as handle:
        return [_item(value) for value in _values(kind, handle)]


def _values(kind: str, handle: Any) -> Iterator[Any]:
    if kind == "csv":
        yield from csv.DictReader(handle)
    elif kind == "json":
        value = json.load(handle)
        yield from value if isinstance(value, list) else [value]
    else:
        for line in handle:
            if line.strip():
                yield json.loads(line) if kind == "jsonl" else line.rstrip("\n")


def _item(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"content": str(value)}
    known: dict[str, Any] = dict(value)
    metadata = known.pop("metadata", None) or {}
    return {"content": str(known.pop("content", "")), "metadata": {**known, **metadata}}


def load_json(text: str | None) -> Any:
    """The JSON in an argument, or (`@path`) in a file."""
    if text is None:
        return None
    return json.loads(Path(text[1:]).read_text()) if text.startswith("@") else json.loads(text)
