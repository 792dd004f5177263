"""Files of every kind that is read, made in code: good ones, and ones that were made to do harm."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pptx

Line = tuple[float, str]
Make = Callable[[], bytes]


def pdf(pages: list[list[Line]], *, extra: str = "") -> bytes:
    """A PDF with lines of text (size, text) on its pages."""
    objects: list[bytes] = [b"", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids: list[str] = []
    for lines in pages:
        shown = [f"BT /F1 {size} Tf 72 {760 - 22 * row} Td ({text}) Tj ET" for row, (size, text) in enumerate(lines)]
        stream = "\n".join(shown).encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        content = len(objects)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {content} 0 R"
            f" /Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        kids.append(f"{len(objects)} 0 R")
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)} {extra}] /Count {len(kids)} >>".encode()
    return assemble(objects)


def assemble(objects: list[bytes]) -> bytes:
    """A PDF file of numbered objects; the first is its catalogue."""
    out = bytearray(b"%PDF-1.4\n")
    offsets: list[int] = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)
    return bytes(out)


def pdf_that_refers_to_itself() -> bytes:
    """Its tree of pages contains itself."""
    return pdf([[(11, "text")]], extra="2 0 R")


def pdf_bomb() -> bytes:
    """A page whose stream grows from a few kilobytes to gigabytes, packed five times."""
    data = b"0 0 m " * 4_000_000
    for _ in range(3):
        data = zlib.compress(data, 9)
    head = b"<< /Length %d /Filter [/FlateDecode /FlateDecode /FlateDecode] >>" % len(data)
    form = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents [%s] >>" % (b"3 0 R " * 400)
    stream = head + b"\nstream\n" + data + b"\nendstream"
    pages = b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>"
    return assemble([b"<< /Type /Catalog /Pages 2 0 R >>", pages, stream, form])


def _saved(document: Any) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.add_heading("Guide", 0)
    document.add_heading("Install", 1)
    document.add_paragraph("Run the installer twice.")
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("second", style="List Bullet")
    table = document.add_table(2, 2)
    for place, text in {(0, 0): "part", (0, 1): "price", (1, 0): "pump", (1, 1): "40"}.items():
        table.cell(*place).text = text
    document.add_heading("Care", 2)
    document.add_paragraph("Oil it weekly.")
    return _saved(document)


def slides() -> bytes:
    deck: Any = pptx.Presentation()
    slide: Any = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Results"
    slide.placeholders[1].text = "Sales grew."
    slide.notes_slide.notes_text_frame.text = "Mention the new office."
    return _saved(deck)


def sheet() -> bytes:
    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    page.title = "Prices"
    for row in (["item", "price"], ["tea", 2.5], ["cake", 4]):
        page.append(row)
    return _saved(book)


HTML = """<html><head><title>Pumps</title><script>alert("stolen")</script><style>p{color:red}</style></head><body>
<nav><a href="/">Home</a> <a href="/about">About</a></nav><article><h1>Pumps</h1>
<p>The pump needs oil every week, otherwise it will stop working at some time in the future.</p>
<table><tr><th>part</th><th>price</th></tr><tr><td>valve</td><td>5</td></tr></table>
<h2>Care</h2><p onclick="steal()">Clean it with water and soap on every second Tuesday of the month.</p>
<script>steal()</script></article><footer>Imprint</footer></body></html>"""

MAIL = (
    b"From: ann@example.com\r\nTo: bob@example.com\r\nSubject: The valve\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>The <b>valve</b> is on its way.</p><script>x()</script>"
)


def zip_bomb() -> bytes:
    """A Word file whose text would have a gigabyte."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            for _ in range(1024):
                part.write(bytes(1024 * 1024))
    return out.getvalue()


def lying_zip_bomb() -> bytes:
    """The same with a directory that says it has ten bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(300 * 1024 * 1024))
    data = bytearray(out.getvalue())
    place = data.rfind(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 10)
    return bytes(data)


def xml_bomb() -> bytes:
    """A Word file whose text is made of entities of entities (the "billion laughs")."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    text = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY l0 "lol">{entities}]><d>&l9;</d>'
    source = zipfile.ZipFile(io.BytesIO(word()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in source.infolist():
            archive.writestr(entry, text if entry.filename == "word/document.xml" else source.read(entry))
    return out.getvalue()


def deep_html() -> bytes:
    """Ten thousands of elements, each inside the one before."""
    return b"<html><body>" + b"<div>" * 60_000 + b"deep" + b"</div>" * 60_000


def write(folder: Path, name: str, data: bytes | str) -> Path:
    """Put a file into a folder."""
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
