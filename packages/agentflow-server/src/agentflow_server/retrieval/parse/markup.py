"""Markdown and HTML. Scripts, styles, navigation and comments do not survive."""

import re
from bisect import bisect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentflow_server.retrieval.parse.document import Block, Collector, Document
from agentflow_server.retrieval.parse.text import decode

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)\n", re.DOTALL)
_UNSEEN = ("script", "style", "template", "noscript")
_AROUND = ("nav", "aside", "footer")
_NEARLY_ALL = 0.8  # share of a page's text from which all of it is its main content
_ENOUGH = 40  # letters by which a paragraph is known again
_TITLE = re.compile(r"(?m)^title:\s*[\"']?(.+?)[\"']?\s*$")


def read_markdown(path: Path, out: Collector) -> Document:
    """A Markdown file (CommonMark with tables)."""
    text = decode(path.read_bytes()).replace("\r\n", "\n")
    title = None
    if matter := _FRONT_MATTER.match(text):
        found = _TITLE.search(matter[1])
        title = found[1] if found else None
        text = text[matter.end() :]
    add_markdown(text, out)
    return Document("text/markdown", out.blocks, title=title)


def add_markdown(text: str, out: Collector) -> None:
    """Add the blocks of a Markdown text."""
    from markdown_it import MarkdownIt

    lines = text.split("\n")
    done = 0
    heading = 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "heading_open":
            heading = int(token.tag[1])
        elif token.type == "inline" and heading:
            out.add("heading", _plain(token.content), level=heading)
            heading = 0
        if token.map is None or token.level or token.map[0] < done or token.type == "heading_open":
            continue
        done = token.map[1]
        source = "\n".join(lines[token.map[0] : done])
        if token.type in ("fence", "code_block"):
            out.add("code", token.content)
        elif token.type == "table_open":
            out.add("table", source)
        elif token.type == "html_block":
            out.add("text", html_text(source))
        else:
            out.add("text", source)


def _plain(text: str) -> str:
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[*`]+|(?<!\w)_+|_+(?!\w)", "", text)


def _visible(source: str, *without: str) -> Any:
    """The tree of a piece of HTML without what nobody sees, and some elements; None if there is none."""
    from lxml import etree, html  # pyright: ignore[reportAttributeAccessIssue] - made of C, without stubs

    try:
        tree = html.fromstring(f"<div>{source}</div>")
    except (etree.ParserError, ValueError):
        return None
    etree.strip_elements(tree, *_UNSEEN, *without, "head", etree.Comment, etree.PI, with_tail=False)
    return tree


def html_text(source: str) -> str:
    """The visible text of a piece of HTML."""
    tree = _visible(source)
    return "" if tree is None else "\n".join(line.strip() for line in tree.text_content().split("\n") if line.strip())


def add_html(source: str, out: Collector, *without: str) -> None:
    """Add all that is visible of a piece of HTML, whether it looks like the main content or not.

    Args:
        without: names of elements that are left out.
    """
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue] - made of C, without stubs

    if (tree := _visible(source, *without)) is None:
        return
    words: list[str] = []

    def flush() -> None:
        lines = "".join(words).replace("\xa0", " ").split(_BREAK)
        out.add("text", "\n".join(" ".join(line.split()) for line in lines))
        words.clear()

    walk = etree.iterwalk(tree, events=("start", "end"))
    for event, node in walk:
        if node.tag in _BLOCKS:
            flush()
        if event == "end":
            words.append(node.tail or "")
        elif (add := _WHOLE.get(node.tag)) is not None and add(node, out):
            walk.skip_subtree()
        else:
            words.append((_BREAK if node.tag == "br" else _STARTS.get(node.tag, "")) + (node.text or ""))
    flush()


def _add_heading(node: Any, out: Collector) -> bool:
    out.add("heading", " ".join(node.text_content().split()), level=int(node.tag[1]))
    return True


def _add_code(node: Any, out: Collector) -> bool:
    out.add("code", node.text_content())
    return True


def _add_table(node: Any, out: Collector) -> bool:
    """A table of data; one that only lays things out is walked through instead."""
    rows = [[cell.text_content() for cell in row if cell.tag in ("td", "th")] for row in node.iter("tr")]
    if node.find(".//table") is not None or len(rows) < 2 or max(map(len, rows)) < 2:
        return False
    out.add_table(rows)
    return True


_BREAK = "\0"
_STARTS = {"li": "- ", "td": " ", "th": " "}
_WHOLE: dict[str, Callable[[Any, Collector], bool]] = {
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), _add_heading), "pre": _add_code, "table": _add_table,
}  # fmt: skip
_BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "div", "dl", "dt", "fieldset",
        "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li",
        "main", "nav", "ol", "p", "pre", "section", "table", "tbody", "tfoot", "thead", "tr", "ul",
    }
)  # fmt: skip


def read_html(path: Path, out: Collector) -> Document:
    """A web page: its main content."""
    return parse_html(decode(path.read_bytes()), out)


def parse_html(source: str, out: Collector) -> Document:
    """The main content of a page, its title, and what it says of itself."""
    import trafilatura
    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue] - made of C, without stubs

    tree = trafilatura.load_html(source)
    if tree is None:
        add_html(source, out)
        return Document("text/html", out.blocks)
    about = trafilatura.extract_metadata(tree, extensive=False)
    etree.strip_elements(tree, *_UNSEEN, with_tail=False)
    content = trafilatura.extract(
        tree, output_format="txt", include_tables=True, include_links=False, include_images=False,
        include_comments=False, favor_recall=True, with_metadata=False, deduplicate=False,
    )  # fmt: skip
    page = out.another()
    add_html(source, page, *_AROUND)
    out.extend(_main(page.blocks, _letters(content or "")))
    if not out.blocks:
        add_html(source, out)
    said = {"author": about.author, "date": about.date, "description": about.description, "site": about.sitename}
    metadata = {name: value for name, value in said.items() if value}
    return Document("text/html", out.blocks, title=about.title or None, metadata=metadata)


def _main(blocks: Sequence[Block], content: str) -> list[Block]:
    """Those of a page's blocks that are its main content, the letters of which were found.

    What finds it keeps sentences and loses headings, tables and code: these stay where a text beside them does.
    """
    if len(content) >= _NEARLY_ALL * sum(len(_letters(block.text)) for block in blocks):
        return list(blocks)
    texts = [place for place, block in enumerate(blocks) if block.kind == "text"]
    kept = {place for place in texts if _is_in(content, _letters(blocks[place].text))}
    if not kept:
        return list(blocks)

    def stays(place: int) -> bool:
        if blocks[place].kind == "text":
            return place in kept
        after = bisect(texts, place)
        return not kept.isdisjoint(texts[max(after - 1, 0) : after + 1])

    return [block for place, block in enumerate(blocks) if stays(place)]


def _is_in(content: str, letters: str) -> bool:
    """Whether a paragraph is in a text, if for a mark in the middle of it."""
    return letters[:_ENOUGH] in content or letters[-_ENOUGH:] in content


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))
