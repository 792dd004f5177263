"""Cuts a document into passages that can stand alone: along headings, paragraphs, rows and sentences.

Every passage keeps the title and the path of headings it stands under. Called by rooms that index documents.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from agentflow_server.retrieval.parse import Block, Document

Strategy = Literal["auto", "recursive", "fixed"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
_SENTENCE = re.compile(r".*?(?:[.!?…]['\")\]]*\s+|[。！？]\s*|\n+|$)", re.DOTALL)
_WORD = re.compile(r"\S*\s*")
_TOP_LEVEL = re.compile(r"\n\n+(?=\S)")


class Passage(NamedTuple):
    """A piece of a document.

    Attributes:
        headings: the path of headings above it, outermost first. page: where it begins, if the document has pages.
    """

    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None


class _Unit(NamedTuple):
    """The least that is moved: a sentence, a row, a line. `lead` goes in front where a passage begins with it."""

    text: str
    lead: str = ""


def chunk(document: Document, *, size: int, overlap: float, strategy: Strategy = "auto") -> list[Passage]:
    """The passages of a document, in order.

    Args:
        size: characters of a passage, at most. overlap: share of it that is repeated in the next one, below 0.5.
        strategy: `auto` keeps sections, tables and code together; `recursive` looks at paragraphs and sentences only;
            `fixed` cuts at words alone.
    """
    packer = _Packer(size, int(size * overlap))
    path: list[tuple[int, str]] = []
    for block in document.blocks:
        if block.kind == "heading":
            path = [step for step in path if step[0] < block.level] + [(block.level, block.text)]
            if strategy == "auto":
                packer.section(tuple(text for _, text in path), block)
                continue
        packer.place(tuple(text for _, text in path) if strategy == "auto" else (), block.page)
        for group in _groups(block, size, strategy):
            packer.add(list(group))
    return packer.finish()


class _Packer:
    """Fills passages with units. A group that fits into one is not torn apart if the passage before is half full."""

    def __init__(self, size: int, overlap: int) -> None:
        self._size = size
        self._overlap = overlap
        self._units: list[_Unit] = []
        self._fresh = 0
        self._length = 0
        self._path: tuple[str, ...] = ()
        self._page: int | None = None
        self._begun: tuple[tuple[str, ...], int | None] = ((), None)
        self._done: list[Passage] = []

    def place(self, path: tuple[str, ...], page: int | None) -> None:
        self._path, self._page = path, page
        if not self._fresh:
            self._begun = (path, page)

    def section(self, path: tuple[str, ...], heading: Block) -> None:
        """A heading: a new passage, unless the one before would stay very short."""
        if self._length > self._size // 3 or self._path[:1] != path[:1]:
            self._flush(overlap=False)
        self.place(path, heading.page)
        if self._fresh:
            self._append(_Unit(f"{heading.text}\n\n"))

    def add(self, group: list[_Unit]) -> None:
        whole = sum(len(unit.text) for unit in group)
        if self._fresh and self._length + whole > self._size and whole <= self._size and self._length > self._size // 2:
            self._flush(overlap=True)
        for unit in group:
            if self._fresh and self._length + len(unit.text) > self._size:
                self._flush(overlap=not unit.lead)
            if not self._fresh:
                self._begun = (self._path, self._page)
                if unit.lead:
                    self._units, self._length = [], 0
                    self._append(_Unit(unit.lead))
            self._append(unit)

    def finish(self) -> list[Passage]:
        self._flush(overlap=False)
        return self._done

    def _append(self, unit: _Unit) -> None:
        while not self._fresh and self._units and self._length + len(unit.text) > self._size:
            self._length -= len(self._units.pop(0).text)
        self._units.append(unit)
        self._length += len(unit.text)
        self._fresh += 1

    def _flush(self, *, overlap: bool) -> None:
        if self._fresh:
            text = "".join(unit.text for unit in self._units).strip()
            if text:
                self._done.append(Passage(text, *self._begun))
        kept: list[_Unit] = []
        length = 0
        for unit in reversed(self._units if overlap else ()):
            if length + len(unit.text) > self._overlap:
                break
            kept.insert(0, unit)
            length += len(unit.text)
        self._units, self._length, self._fresh = kept, length, 0


def _groups(block: Block, size: int, strategy: Strategy) -> Iterator[Iterable[_Unit]]:
    """A block as groups that are best kept together."""
    if strategy == "fixed":
        yield _words(block.text + "\n\n", size)
    elif block.kind == "table":
        yield _rows(block.text, size)
    elif block.kind == "code":
        parts = _TOP_LEVEL.split(block.text)
        yield from (_lines(part + "\n\n", size) for part in parts)
    else:
        yield from (_sentences(part + "\n\n", size) for part in re.split(r"\n[ \t]*\n", block.text))


def _sentences(text: str, size: int) -> Iterator[_Unit]:
    for match in _SENTENCE.finditer(text):
        if len(match[0]) > size:
            yield from _words(match[0], size)
        elif match[0]:
            yield _Unit(match[0])


def _lines(text: str, size: int) -> Iterator[_Unit]:
    for line in text.splitlines(keepends=True):
        if len(line) > size:
            yield from _words(line, size)
        else:
            yield _Unit(line)


def _words(text: str, size: int) -> Iterator[_Unit]:
    for match in _WORD.finditer(text):
        for start in range(0, len(match[0]), size):
            yield _Unit(match[0][start : start + size])


def _rows(text: str, size: int) -> Iterator[_Unit]:
    lines = text.split("\n")
    head = "\n".join(lines[:2]) + "\n"
    yield from _lines(head, size)
    for row in lines[2:]:
        if len(row) > size:
            yield from _words(row + "\n", size)
        else:
            yield _Unit(row + "\n", head if len(head) < size // 2 else "")
    yield _Unit("\n")
