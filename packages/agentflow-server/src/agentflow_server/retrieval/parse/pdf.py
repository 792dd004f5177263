"""PDF: text by page, headings by the size of their letters, running heads and feet left out."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from agentflow_server.retrieval.parse.document import Collector, Document, ParseError

_HYPHEN = re.compile(r"(\w)-\n(?=[a-zß-öø-ÿ])")
_DIGITS = re.compile(r"\d+")


class _Line(NamedTuple):
    text: str
    size: float


def read_pdf(path: Path, out: Collector) -> Document:
    """The text of a PDF.

    Raises:
        ParseError: it is encrypted, damaged, or has no text (a scan).
    """
    import pypdf
    from pypdf.errors import PyPdfError

    try:
        reader: Any = pypdf.PdfReader(path, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise ParseError("encrypted", "the PDF is protected by a password")
        pages = [_lines(page) for page in reader.pages]
        about = reader.metadata
    except RecursionError:
        raise ParseError("broken", "the PDF refers to itself without end") from None
    except (PyPdfError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise ParseError("broken", f"the PDF is damaged: {error}") from None
    sizes = _heading_sizes(pages)
    running = _running(pages, sizes)
    for number, lines in enumerate(pages, 1):
        _add_page([line for line in lines if _same(line.text) not in running], number, sizes, out)
    blank = [number for number, lines in enumerate(pages, 1) if not lines]
    if not out.blocks:
        raise ParseError("no_text", f"none of the PDF's pages ({len(pages)}) has text: it seems to be a scan")
    warnings = [f"{len(blank)} of {len(pages)} pages have no text and seem to be scans"] if blank else []
    return Document("application/pdf", out.blocks, pages=len(pages), warnings=warnings, **_about(about))


def _about(found: Any) -> dict[str, Any]:
    said = {name: str(value).strip() for name in ("author", "subject") if (value := getattr(found, name, None))}
    title = str(getattr(found, "title", None) or "").strip()
    return {"title": title or None, "metadata": {name: value for name, value in said.items() if value}}


def _lines(page: Any) -> list[_Line]:
    """The lines of a page with the size of their largest letters."""
    lines: list[_Line] = []
    text, size = "", 0.0

    def visit(piece: str, _cm: Any, tm: Any, _font: Any, font_size: float) -> None:
        nonlocal text, size
        for position, part in enumerate(piece.split("\n")):
            if position:
                lines.append(_Line(text.strip(), size))
                text, size = "", 0.0
            if part.strip():
                size = max(size, abs(font_size * (tm[3] or tm[0] or 1)))
            text += part

    page.extract_text(visitor_text=visit)
    lines.append(_Line(text.strip(), size))
    return lines if any(line.text for line in lines) else []


def _same(text: str) -> str:
    return _DIGITS.sub("#", text).strip().lower()


def _running(pages: list[list[_Line]], sizes: dict[float, int]) -> set[str]:
    """Lines at the edge of most pages, in no heading's size: running heads, feet and page numbers."""
    if len(pages) < 4:
        return set()
    edges: Counter[str] = Counter()
    for lines in pages:
        filled = [line.text for line in lines if line.text and round(line.size, 1) not in sizes]
        edges.update({_same(text) for text in [*filled[:2], *filled[-2:]]})
    return {text for text, count in edges.items() if count > 0.6 * len(pages)}


def _heading_sizes(pages: list[list[_Line]]) -> dict[float, int]:
    """Letter sizes above that of the body, as levels."""
    letters: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            letters[round(line.size, 1)] += len(line.text)
    if not letters:
        return {}
    body = letters.most_common(1)[0][0]
    larger = sorted((size for size in letters if size > body * 1.12), reverse=True)
    return {size: min(level, 4) for level, size in enumerate(larger, 1)}


def _add_page(lines: list[_Line], number: int, sizes: dict[float, int], out: Collector) -> None:
    paragraph: list[str] = []

    def flush() -> None:
        out.add("text", _HYPHEN.sub(r"\1", "\n".join(paragraph)), page=number)
        paragraph.clear()

    for line in lines:
        level = sizes.get(round(line.size, 1))
        if level and 2 <= len(line.text) <= 150:
            flush()
            out.add("heading", line.text, level=level, page=number)
        elif line.text:
            paragraph.append(line.text)
        else:
            flush()
    flush()
