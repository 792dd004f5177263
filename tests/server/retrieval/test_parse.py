"""Every kind of file is read with its headings and tables; what was made to do harm is refused with the reason."""

import contextlib
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from agentflow_server.retrieval.parse import Document, ParseError, ParseLimits, Parser

from tests.server.retrieval import files

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def parser() -> AsyncIterator[Parser]:
    parser = Parser(ParseLimits(seconds=8, memory_bytes=300 * 1024 * 1024, file_bytes=20 * 1024 * 1024))
    yield parser
    await parser.aclose()


async def read(parser: Parser, folder: Path, name: str, data: bytes | str) -> Document:
    return await parser.parse(files.write(folder, name, data), name)


def outline(document: Document) -> list[tuple[str, int, str]]:
    return [(block.kind, block.level, block.text) for block in document.blocks]


async def test_word_keeps_headings_lists_and_tables(parser: Parser, tmp_path: Path) -> None:
    assert outline(await read(parser, tmp_path, "guide.docx", files.word())) == [
        ("heading", 1, "Guide"),
        ("heading", 1, "Install"),
        ("text", 0, "Run the installer twice."),
        ("text", 0, "- first\n- second"),
        ("table", 0, "| part | price |\n| --- | --- |\n| pump | 40 |"),
        ("heading", 2, "Care"),
        ("text", 0, "Oil it weekly."),
    ]


async def test_slides_and_sheets(parser: Parser, tmp_path: Path) -> None:
    deck = await read(parser, tmp_path, "deck.pptx", files.slides())
    assert [(block.text, block.page) for block in deck.blocks] == [
        ("Results", 1), ("Sales grew.", 1), ("Mention the new office.", 1)
    ]  # fmt: skip
    prices = await read(parser, tmp_path, "prices.xlsx", files.sheet())
    assert outline(prices) == [
        ("heading", 1, "Prices"),
        ("table", 0, "| item | price |\n| --- | --- |\n| tea | 2.5 |\n| cake | 4 |"),
    ]
    table = await read(parser, tmp_path, "people.csv", 'name;note\nAnn;"a;b"\nBob;c|d\n')
    assert table.text() == "| name | note |\n| --- | --- |\n| Ann | a;b |\n| Bob | c\\|d |"


async def test_pdf_pages_headings_and_running_heads(parser: Parser, tmp_path: Path) -> None:
    animals = ["ants", "bees", "cats", "dogs", "eels"]
    pages = [
        [(9.0, f"Acme report page {number}"), (18.0, f"Chapter {number}"), (11.0, f"The {animal} are an exam-"),
         (11.0, f"ple of {animal}."), (11.0, f"More of {animal}.")]
        for number, animal in enumerate(animals, 1)
    ]  # fmt: skip
    found = await read(parser, tmp_path, "report.pdf", files.pdf(pages))
    assert found.pages == 5
    assert [block.text for block in found.blocks if block.kind == "heading"] == [f"Chapter {n}" for n in range(1, 6)]
    third = [block.text for block in found.blocks if block.page == 3]
    assert third == ["Chapter 3", "The cats are an example of cats.\nMore of cats."]
    assert "Acme report" not in found.text()


async def test_html_keeps_content_only(parser: Parser, tmp_path: Path) -> None:
    page = await read(parser, tmp_path, "pumps.html", files.HTML)
    text = page.text()
    assert page.title == "Pumps"
    assert ("heading", 2, "Care") in outline(page)
    assert [block.kind for block in page.blocks].count("table") == 1
    for unwanted in ("stolen", "steal", "color", "Home", "Imprint"):
        assert unwanted not in text
    loose = await read(parser, tmp_path, "loose.html", "<p>just <b>one</b> line</p><script>evil()</script>")
    assert "one" in loose.text()
    assert "evil" not in loose.text()


async def test_html_without_marks_of_its_parts_keeps_headings_and_tables(parser: Parser, tmp_path: Path) -> None:
    prose = f"<p>The okapi eats leaves. {'It stands in the wood and is seen by nobody. ' * 6}</p>"
    table = "<table><tr><th>animal</th><th>kg</th></tr><tr><td>okapi</td><td>250</td></tr></table>"
    nav = '<nav><a href="/">Home</a></nav><footer>Imprint</footer>'
    for number, body in enumerate((f"<h1>Okapi</h1>{prose}<h2>Figures</h2>{table}", f"<h2>Figures</h2>{table * 9}")):
        page = await read(parser, tmp_path, f"page{number}.html", f"<html><body>{nav}{body}</body></html>")
        assert ("heading", 2, "Figures") in outline(page)
        assert "| okapi | 250 |" in [line for block in page.blocks if block.kind == "table" for line in
                                     block.text.split("\n")]  # fmt: skip
        assert not {"Home", "Imprint"} & set(page.text().split())


@pytest.mark.parametrize("frame", ["{}", "<article>{}</article>", "<table><tr><td>Shop</td><td>{}</td></tr></table>"])
async def test_of_a_page_with_much_around_it_the_main_content_is_kept(
    parser: Parser, tmp_path: Path, frame: str
) -> None:
    around = "".join(f'<div class="menu"><a href="/{n}">Offer {n}</a></div>' for n in range(200))
    prose = "".join(f"<p>The okapi number {n} eats leaves, and is seen by nobody in its wood.</p>" for n in range(9))
    table = "<table><tr><th>animal</th><th>kg</th></tr><tr><td>okapi</td><td>250</td></tr></table>"
    content = frame.format(f"<h1>Okapi</h1>{prose}<h2>Figures</h2>{table}<pre>weigh(okapi)</pre>")
    page = await read(parser, tmp_path, "shop.html", f"<html><body>{around}{content}</body></html>")
    assert "The okapi number 8" in page.text()
    assert "Offer 150" not in page.text()
    assert {"Okapi", "Figures"} <= {block.text for block in page.blocks if block.kind == "heading"}
    assert [block.text.split("\n")[-1] for block in page.blocks if block.kind == "table"] == ["| okapi | 250 |"]
    assert "weigh(okapi)" in [block.text for block in page.blocks if block.kind == "code"]


async def test_markdown_code_and_mail(parser: Parser, tmp_path: Path) -> None:
    source = "---\ntitle: Handbook\n---\n# One *more*\ntext\n\n- a\n- b\n\n```py\nx = 1\n```\n\n|a|b|\n|-|-|\n|1|2|\n"
    book = await read(parser, tmp_path, "book.md", source)
    assert book.title == "Handbook"
    assert outline(book) == [
        ("heading", 1, "One more"),
        ("text", 0, "text"),
        ("text", 0, "- a\n- b"),
        ("code", 0, "x = 1"),
        ("table", 0, "|a|b|\n|-|-|\n|1|2|"),
    ]
    code = await read(parser, tmp_path, "program.py", "def f():\n    return 1\n")
    assert outline(code) == [("code", 0, "def f():\n    return 1")]
    mail = await read(parser, tmp_path, "valve.eml", files.MAIL)
    assert mail.title == "The valve"
    assert "ann@example.com" in mail.text()
    assert "is on its way" in mail.text()
    assert "x()" not in mail.text()


async def test_mail_of_two_kinds_keeps_headings_and_tables(parser: Parser, tmp_path: Path) -> None:
    message = EmailMessage()
    message["Subject"] = "Order 77"
    message.set_content("The order in plain words.")
    message.add_alternative(
        "<html><body><h2>Your order</h2><p>Thanks for it, dear Bob, we have it here and send it soon.</p><table><tr>"
        "<th>item</th><th>qty</th></tr><tr><td>valve</td><td>5</td></tr></table></body></html>",
        subtype="html",
    )
    message.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="bill.pdf")
    order = await read(parser, tmp_path, "order.eml", bytes(message))
    kinds = [block.kind for block in order.blocks]
    assert ("heading", 2, "Your order") in outline(order)
    assert "table" in kinds
    assert "plain words" not in order.text()
    assert order.warnings == ["attachments are not read: bill.pdf"]
    bare = EmailMessage()
    bare.set_content("All of it is told in plain words here, and at some length, as it should be.")
    bare.add_alternative("<html><body><p>See the plain text.</p></body></html>", subtype="html")
    assert "at some length" in (await read(parser, tmp_path, "bare.eml", bytes(bare))).text()


async def test_half_a_surrogate_is_no_text(parser: Parser, tmp_path: Path) -> None:
    book = '{"cells": [{"cell_type": "markdown", "source": ["a \\ud800 b"]}], "metadata": {}}'
    assert (await read(parser, tmp_path, "book.ipynb", book)).text() == "a ? b"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
async def test_encodings_are_detected(parser: Parser, tmp_path: Path, encoding: str) -> None:
    text = "Größe und Überfluß: daß die Straße naß ist, ärgert die Mädchen sehr.\n\nZweite Zeile mit schönen Wörtern."
    found = await read(parser, tmp_path, "text.txt", text.encode(encoding))
    assert [block.text for block in found.blocks] == text.split("\n\n")


HOSTILE = {
    "a zip bomb": ("bomb.docx", files.zip_bomb, {"bomb"}),
    "a zip bomb whose directory lies": ("lies.docx", files.lying_zip_bomb, {"broken", "bomb"}),
    "an XML bomb": ("laughs.docx", files.xml_bomb, {"bomb"}),
    "a PDF bomb": ("bomb.pdf", files.pdf_bomb, {"timeout", "memory", "broken", "no_text"}),
    "a PDF that contains itself": ("loop.pdf", files.pdf_that_refers_to_itself, {"broken"}),
    "a scan": ("scan.pdf", lambda: files.pdf([[], []]), {"no_text"}),
    "half a PDF": ("half.pdf", lambda: files.pdf([[(11, "text")]])[:300], {"broken", "no_text"}),
    "half a Word file": ("half.docx", lambda: files.word()[:5000], {"broken"}),
    "a program": ("program.exe", lambda: b"MZ" + bytes(range(256)) * 40, {"unsupported"}),
    "an archive": ("files.zip", lambda: b"PK\x03\x04" + bytes(100), {"broken", "unsupported"}),
    "nothing": ("empty.txt", lambda: b"", {"empty"}),
    "blanks": ("blank.md", lambda: b"\n \n\t\n", {"empty"}),
    "too much": ("large.txt", lambda: b"a" * (21 * 1024 * 1024), {"too_large"}),
}


@pytest.mark.parametrize(("name", "make", "codes"), HOSTILE.values(), ids=HOSTILE)
async def test_what_cannot_be_read_says_why(
    parser: Parser, tmp_path: Path, name: str, make: "files.Make", codes: set[str]
) -> None:
    with pytest.raises(ParseError) as caught:
        await read(parser, tmp_path, name, make())
    assert caught.value.code in codes, caught.value
    assert (await read(parser, tmp_path, "next.txt", "still works")).text() == "still works"


async def test_garbage_and_depth_do_no_harm(parser: Parser, tmp_path: Path) -> None:
    mixed = await read(parser, tmp_path, "mixed.txt", b"good \xff\xfe\x80 bytes \xc3\x28 end")
    assert mixed.text().startswith("good")
    assert mixed.text().endswith("end")
    with contextlib.suppress(ParseError):
        assert "deep" in (await read(parser, tmp_path, "deep.html", files.deep_html())).text()
    assert (await read(parser, tmp_path, "next.txt", "still works")).text() == "still works"
