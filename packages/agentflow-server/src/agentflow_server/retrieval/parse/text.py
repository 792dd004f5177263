"""Plain text, source code, tables of comma- or tab-separated values; and how bytes become text at all."""

import codecs
import csv
import io
import json
import re
from pathlib import Path

from agentflow_server.retrieval.parse.document import Collector, Document, ParseError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 256 * 1024


def decode(data: bytes) -> str:
    """The text of bytes: by their byte order mark, as UTF-8 with a few errors, else as what they most likely are."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data.decode(encoding, errors="replace")
    text = data.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    letters = len(text) - len(text.encode("ascii", errors="ignore")) - broken if broken else 0
    if letters >= broken:  # in other encodings hardly a pair of bytes looks like a letter of UTF-8
        return text
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE]).best()
    return data.decode(best.encoding if best else "cp1252", errors="replace")


def read_text(path: Path, out: Collector) -> Document:
    """Paragraphs of plain text."""
    for paragraph in re.split(r"\n[ \t]*\n", _unified(decode(path.read_bytes()))):
        out.add("text", paragraph)
    return Document("text/plain", out.blocks)


def read_code(path: Path, out: Collector) -> Document:
    """Source code as it is; of a notebook, its cells."""
    text = _unified(decode(path.read_bytes()))
    cells = _notebook(text) if text.lstrip().startswith("{") and '"cells"' in text else None
    if cells is None:
        out.add("code", text)
    for kind, source in cells or ():
        out.add("text" if kind == "markdown" else "code", source)
    return Document("text/x-source", out.blocks)


def _notebook(text: str) -> list[tuple[str, str]] | None:
    try:
        cells = json.loads(text)["cells"]
        return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except (ValueError, LookupError, TypeError):
        return None


def read_table(path: Path, out: Collector) -> Document:
    """Comma-, semicolon- or tab-separated values; the first row is the header."""
    text = _unified(decode(path.read_bytes()))
    csv.field_size_limit(1024 * 1024)
    try:
        out.add_table(list(csv.reader(io.StringIO(text), delimiter=_delimiter(text))))
    except csv.Error as error:
        raise ParseError("broken", f"this is not a table of separated values: {error}") from None
    return Document("text/csv", out.blocks)


def _delimiter(text: str) -> str:
    lines = [line for line in text[:_SAMPLE].split("\n")[:20] if line]
    counts = {mark: [line.count(mark) for line in lines] for mark in ",;\t|"}
    return max(counts, key=lambda mark: (min(counts[mark], default=0), sum(counts[mark])))


def _unified(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
