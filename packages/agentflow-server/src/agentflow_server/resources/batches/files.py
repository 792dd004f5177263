"""Reads items out of files as they come, piece by piece: CSV with a header, a JSON array or object, JSON lines.

Nothing is held but the item that is being read, so a file may be larger than memory.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, Protocol, cast

from pydantic_core import to_json

_MAX_ITEM = 8_000_000
_MAX_CONTENT = 2_000_000
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv"}
FORMATS = ("csv", "json", "jsonl")


class FileProblemError(ValueError):
    """The file is not what its format says; the message says where."""


class _Reader(Protocol):
    """Takes text, gives the values that are whole."""

    def feed(self, text: str) -> Iterator[Any]: ...

    def finish(self) -> Iterator[Any]: ...


def format_of(name: str | None, start: bytes) -> str:
    """A file's format: by the ending of its name, else by how it begins."""
    known = _ENDINGS.get(PurePath(name or "").suffix.lower())
    if known:
        return known
    first = start.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    return {b"[": "json", b"{": "jsonl"}.get(first, "csv")


class ItemFile:
    """The items of a file, each as one line of JSON.

    Args:
        format_: `csv`, `json` or `jsonl`. max_items: more are refused.
    """

    def __init__(self, format_: str, max_items: int) -> None:
        readers: dict[str, Callable[[], _Reader]] = {"csv": _Csv, "json": _Json, "jsonl": _JsonLines}
        self._reader = readers[format_]()
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._max_items = max_items
        self._count = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; the items that are whole.

        Raises:
            FileProblemError: this is no item.
        """
        try:
            return [self._line(value) for value in self._reader.feed(self._decoder.decode(data))]
        except UnicodeDecodeError:
            raise FileProblemError(f"behind item {self._count}: the file is not UTF-8") from None

    def finish(self) -> list[bytes]:
        """The items at the end of the file.

        Raises:
            FileProblemError: it ends too early, or has no items.
        """
        try:
            rest = self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise FileProblemError("the file ends in the middle of a character") from None
        lines = [self._line(value) for value in (*self._reader.feed(rest), *self._reader.finish())]
        if self._count == 0:
            raise FileProblemError("the file has no items")
        return lines

    def _line(self, value: Any) -> bytes:
        self._count += 1
        if self._count > self._max_items:
            raise FileProblemError(f"the file has more than {self._max_items} items")
        return to_json(_item(value, self._count))


def _item(value: Any, number: int) -> dict[str, Any]:
    """An item: `content` and `metadata`; other fields are metadata too."""
    if isinstance(value, str):
        value = {"content": value}
    if not isinstance(value, dict):
        raise FileProblemError(f"item {number} is neither a text nor an object")
    known = dict(cast("dict[str, Any]", value))
    content, metadata = known.pop("content", ""), known.pop("metadata", None) or {}
    if not isinstance(content, str) or not isinstance(metadata, dict):
        raise FileProblemError(f"item {number}: content must be a text, and metadata an object")
    if len(content) > _MAX_CONTENT:
        raise FileProblemError(f"item {number}: its content is longer than {_MAX_CONTENT} characters")
    return {"content": content, "metadata": {**known, **metadata}}


class _JsonLines:
    """One value a line."""

    def __init__(self) -> None:
        self._rest = ""
        self._number = 0

    def feed(self, text: str) -> Iterator[Any]:
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        _check_length(self._rest)
        for line in lines:
            yield from self._value(line)

    def finish(self) -> Iterator[Any]:
        yield from self._value(self._rest)

    def _value(self, line: str) -> Iterator[Any]:
        self._number += 1
        if not line.strip():
            return
        try:
            yield json.loads(line)
        except ValueError as error:
            raise FileProblemError(f"line {self._number} is not JSON: {error}") from None


class _Csv:
    """A header, then one item a record; a record may go over several lines within quotes (RFC 4180)."""

    def __init__(self) -> None:
        self._rest = ""
        self._record = ""
        self._header: list[str] | None = None
        self._number = 0

    def feed(self, text: str) -> Iterator[Any]:
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        _check_length(self._rest)
        for line in lines:
            self._record += f"{line}\n"
            _check_length(self._record)
            if self._record.count('"') % 2 == 0:
                record, self._record = self._record, ""
                yield from self._value(record)

    def finish(self) -> Iterator[Any]:
        yield from self._value(self._record + self._rest)

    def _value(self, record: str) -> Iterator[Any]:
        self._number += 1
        if not record.strip():
            return
        try:
            cells = next(csv.reader([*record.splitlines(keepends=True)], strict=True))
        except csv.Error as error:
            raise FileProblemError(f"record {self._number} is not CSV: {error}") from None
        if self._header is None:
            self._header = [cell.strip() for cell in cells]
            if len(set(self._header)) != len(self._header) or not all(self._header):
                raise FileProblemError("the header must name every column once")
            return
        if len(cells) != len(self._header):
            raise FileProblemError(
                f"record {self._number} has {len(cells)} values, where the header has {len(self._header)}"
            )
        yield dict(zip(self._header, cells, strict=True))


class _Json:
    """An array of items, or one object: an item, or `{"items": [...]}`."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._kind: str | None = None
        self._done = False
        self._wants_value = True

    def feed(self, text: str) -> Iterator[Any]:
        self._text += text
        if self._kind is None:
            self._text = self._text.lstrip()
            if not self._text:
                return
            self._kind = self._text[0]
            if self._kind not in "[{":
                raise FileProblemError("the file is neither a JSON array nor a JSON object")
            self._text = self._text[1:] if self._kind == "[" else self._text
        if self._kind == "[":
            yield from self._elements()
        _check_length(self._text)

    def _elements(self) -> Iterator[Any]:
        """The elements that are whole, in turn with the commas between them."""
        place, text = 0, self._text
        while not self._done:
            while place < len(text) and text[place] in " \t\r\n":
                place += 1
            if place >= len(text):
                break
            if text[place] == "]":
                self._done, place = True, place + 1
            elif not self._wants_value:
                if text[place] != ",":
                    raise FileProblemError(f"a comma or the array's end was expected, not {text[place]!r}")
                self._wants_value, place = True, place + 1
            else:
                if text[place] not in '{"':
                    raise FileProblemError(f"an item is a text or an object, and does not begin with {text[place]!r}")
                try:
                    value, place = self._decoder.raw_decode(text, place)
                except ValueError:
                    break  # not whole yet, or never: `finish` tells
                self._wants_value = False
                yield value
        self._text = text[place:]

    def finish(self) -> Iterator[Any]:
        if self._kind == "[":
            if not self._done or self._text.strip():
                raise FileProblemError("the array is damaged, or the file ends before it does")
            return
        if self._kind is None:
            return
        try:
            value = json.loads(self._text)
        except ValueError as error:
            raise FileProblemError(f"the file is not JSON: {error}") from None
        items: Any = value.get("items")
        yield from cast("list[Any]", items) if isinstance(items, list) else [value]


def _check_length(text: str) -> None:
    if len(text) > _MAX_ITEM:
        raise FileProblemError(f"an item is longer than {_MAX_ITEM} characters, or its quotes or brackets never close")
