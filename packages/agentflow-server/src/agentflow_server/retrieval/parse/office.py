"""DOCX, PPTX and XLSX: their content in reading order, headings and tables kept."""

import io
import re
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Any

from agentflow_server.retrieval.parse.detect import MEDIA_TYPES
from agentflow_server.retrieval.parse.document import Collector, Document

_ROWS_AT_ONCE = 2_000


def read_docx(path: Path, out: Collector) -> Document:
    """A Word document: paragraphs, headings, lists and tables."""
    import docx
    from docx.table import Table

    document: Any = docx.Document(str(path))
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            out.add_table(list(_docx_rows(item)))
        elif level := _heading(item.style.name if item.style is not None else ""):
            out.add("heading", item.text, level=level)
        else:
            bullet = "- " if item.style is not None and item.style.name.startswith("List") else ""
            out.add("text", bullet + item.text if item.text.strip() else "")
    return Document(MEDIA_TYPES["docx"], _joined_lists(out), **_properties(document.core_properties))


def _heading(style: str) -> int:
    if style == "Title":
        return 1
    found = re.fullmatch(r"Heading (\d)", style)
    return int(found[1]) if found else 0


def _docx_rows(table: Any) -> Iterator[list[str]]:
    for row in table.rows:
        cells: list[str] = []
        before = None
        for cell in row.cells:
            if cell._tc is not before:
                cells.append(cell.text)
            before = cell._tc
        yield cells


def _joined_lists(out: Collector) -> Any:
    """The items of a list as one block."""
    blocks: list[Any] = []
    for block in out.blocks:
        if blocks and block.text.startswith("- ") and blocks[-1].kind == "text" and blocks[-1].text.startswith("- "):
            blocks[-1] = blocks[-1]._replace(text=f"{blocks[-1].text}\n{block.text}")
        else:
            blocks.append(block)
    return blocks


def read_pptx(path: Path, out: Collector) -> Document:
    """Slides: title, text, tables and the speaker's notes."""
    import pptx

    deck: Any = pptx.Presentation(str(path))
    count = 0
    for count, slide in enumerate(deck.slides, 1):
        title = slide.shapes.title
        out.add(
            "heading", (title.text_frame.text if title is not None else "") or f"Slide {count}", level=1, page=count
        )
        for shape in _shapes(slide.shapes):
            if title is not None and shape.shape_id == title.shape_id:
                continue
            if shape.has_table:
                out.add_table([[cell.text for cell in row.cells] for row in shape.table.rows], page=count)
            elif shape.has_text_frame:
                out.add("text", shape.text_frame.text, page=count)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            out.add("text", slide.notes_slide.notes_text_frame.text, page=count)
    return Document(MEDIA_TYPES["pptx"], out.blocks, pages=count, **_properties(deck.core_properties))


def _shapes(shapes: Any) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        else:
            yield shape


def read_xlsx(path: Path, out: Collector) -> Document:
    """Sheets: the values of their cells, the first row of each as its header."""
    import openpyxl

    file = io.BytesIO(path.read_bytes())  # a path would have to end in .xlsx
    book: Any = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
    count = 0
    for count, sheet in enumerate(book.worksheets, 1):
        rows: list[list[str]] = []
        header: list[str] = []
        for values in sheet.iter_rows(values_only=True):
            cells = [_cell(value) for value in values]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                header = header or cells
                rows.append(cells)
            if len(rows) == _ROWS_AT_ONCE:
                _add_sheet(sheet.title, header, rows, out, count)
                rows = []
        if rows:
            _add_sheet(sheet.title, header, rows, out, count)
    properties = _properties(book.properties)
    book.close()
    return Document(MEDIA_TYPES["xlsx"], out.blocks, pages=count, **properties)


def _add_sheet(title: str, header: list[str], rows: list[list[str]], out: Collector, page: int) -> None:
    out.add("heading", title, level=1, page=page)
    out.add_table(rows if rows[0] is header else [header, *rows], page=page)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _properties(properties: Any) -> dict[str, Any]:
    author = getattr(properties, "author", None) or getattr(properties, "creator", None)
    modified = getattr(properties, "modified", None)
    metadata = {"author": author, "date": modified.isoformat() if modified else None}
    title = (properties.title or "").strip() or None
    return {"title": title, "metadata": {name: value for name, value in metadata.items() if value}}
