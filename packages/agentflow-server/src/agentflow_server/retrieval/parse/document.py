"""What a parsed file is: blocks in reading order. Made by the readers, cut by the chunker, shown to models as text.

Standard library only: the process that reads files loads it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["heading", "text", "table", "code"]
MIB = 1024 * 1024


class ParseError(Exception):
    """A file cannot be read; the message is for the person who sent it.

    Attributes:
        code: `unsupported`, `empty`, `no_text` (a scan), `encrypted`, `too_large`, `bomb`, `broken`, `timeout`,
            `memory` or `crashed`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Block(NamedTuple):
    """A piece of a document.

    Attributes:
        text: of a table: Markdown, its first two lines are the header. level: of a heading, 1 is the highest.
        page: page, slide or sheet, from 1.
    """

    kind: Kind
    text: str
    level: int = 0
    page: int | None = None


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What reading one file may take.

    Attributes:
        seconds: processor time, and twice that on the clock. memory_bytes: beyond what the idle process has.
        file_bytes: size of the file. unpacked_bytes: size of what is in it, where it is an archive (DOCX and the like).
        text_chars: length of its text.
    """

    seconds: float = 60.0
    memory_bytes: int = 1024 * MIB
    file_bytes: int = 100 * MIB
    unpacked_bytes: int = 400 * MIB
    text_chars: int = 20_000_000


@dataclass(slots=True)
class Document:
    """A parsed file.

    Attributes:
        media_type: what it turned out to be. title: what it calls itself, if it does.
        pages: how many pages, slides or sheets. metadata: author, sender, …: plain JSON values.
        warnings: what was left out, in words.
    """

    media_type: str
    blocks: list[Block]
    title: str | None = None
    pages: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    warnings: list[str] = field(default_factory=list[str])

    def text(self) -> str:
        """The whole as Markdown."""
        return "\n\n".join(_rendered(block) for block in self.blocks)


class Collector:
    """Gathers the blocks of a document and refuses one that has too much text. `chars`: how much there is."""

    def __init__(self, limits: ParseLimits) -> None:
        self.blocks: list[Block] = []
        self._limits = limits
        self.chars = 0

    def another(self) -> "Collector":
        """An empty one with the same bounds, for text that may not be taken."""
        return Collector(self._limits)

    def extend(self, blocks: Iterable[Block]) -> None:
        """Take blocks of another one."""
        for block in blocks:
            self.add(block.kind, block.text, level=block.level, page=block.page)

    def add(self, kind: Kind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Add a block; blank ones are left out.

        Raises:
            ParseError: the document has more text than may be.
        """
        text = text.strip("\n") if kind in ("code", "table") else text.strip()
        text = text.replace("\x00", "")
        if not text.strip():
            return
        self.chars += len(text)
        if self.chars > (limit := self._limits.text_chars):
            raise ParseError("too_large", f"the document has more than {limit:,} characters of text")
        self.blocks.append(Block(kind, text, level, page))

    def add_table(self, rows: list[list[str]], *, page: int | None = None) -> None:
        """Add a table; its first row is the header."""
        rows = [row for row in rows if any(cell.strip() for cell in row)]
        if not rows:
            return
        width = max(map(len, rows))
        lines = [_row(row, width) for row in rows]
        lines.insert(1, "|" + " --- |" * width)
        self.add("table", "\n".join(lines), page=page)


def _row(cells: list[str], width: int) -> str:
    clean = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    return "| " + " | ".join(clean + [""] * (width - len(cells))) + " |"


def _rendered(block: Block) -> str:
    if block.kind == "heading":
        return f"{'#' * min(max(block.level, 1), 6)} {block.text}"
    return f"```\n{block.text}\n```" if block.kind == "code" else block.text
