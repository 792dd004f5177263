"""What kind of file this is: by its first bytes, then by its name. The child asks before it chooses a reader."""

import zipfile
from pathlib import Path, PurePath

from agentflow_server.retrieval.parse.document import MIB, ParseError, ParseLimits

_MARKDOWN = {".md", ".markdown", ".mdx", ".mkd"}
_HTML = {".html", ".htm", ".xhtml"}
_TABLES = {".csv", ".tsv", ".tab"}
_CODE = {
    ".py", ".pyi", ".js", ".jsx", ".mjs", ".ts", ".tsx", ".java", ".kt", ".scala", ".go", ".rs", ".c", ".h", ".cc",
    ".cpp", ".hpp", ".cs", ".rb", ".php", ".swift", ".m", ".sh", ".bash", ".zsh", ".ps1", ".sql", ".r", ".jl", ".lua",
    ".pl", ".ex", ".exs", ".erl", ".hs", ".clj", ".dart", ".vue", ".svelte", ".css", ".scss", ".json", ".jsonl",
    ".ndjson", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".env", ".xml", ".xsd", ".proto", ".graphql", ".tf",
    ".ipynb", ".tex", ".gradle", ".cmake", ".mk",
}  # fmt: skip
_OFFICE = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
MEDIA_TYPES = {
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "html": "text/html",
    "markdown": "text/markdown",
    "table": "text/csv",
    "mail": "message/rfc822",
    "code": "text/x-source",
    "text": "text/plain",
}
ACCEPTED = "PDF, DOCX, PPTX, XLSX, CSV, HTML, Markdown, plain text, source code and e-mail (.eml)"
_DOCTYPES = tuple("<!DOCTYPE".encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be"))


def kind_of(path: Path, name: str, limits: ParseLimits) -> str:
    """The kind of a file, a key of `MEDIA_TYPES`.

    Raises:
        ParseError: nothing here reads it, it is empty, or it is an archive that would burst.
    """
    with path.open("rb") as file:
        head = file.read(8192)
    suffix = PurePath(name).suffix.lower()
    if not head.strip(b"\0 \t\r\n"):
        raise ParseError("empty", "the file is empty")
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _archive(path, limits)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise ParseError(
            "unsupported", f"{_dot(suffix)} is an old or encrypted Office format: save it as .docx, .pptx or .xlsx"
        )
    if _is_binary(head):
        if suffix in {".txt", ".eml", *_MARKDOWN, *_HTML, *_TABLES, *_CODE}:
            raise ParseError("unsupported", f"the file is named {suffix}, but what is in it is not text")
        raise ParseError("unsupported", f"{_dot(suffix)} files are not read here; accepted are {ACCEPTED}")
    return text_kind(suffix, head)


def text_kind(suffix: str, head: bytes) -> str:
    """The kind of a file that is text."""
    for suffixes, kind in (
        (_MARKDOWN, "markdown"),
        (_HTML, "html"),
        (_TABLES, "table"),
        (_CODE, "code"),
        ({".eml"}, "mail"),
    ):
        if suffix in suffixes:
            return kind
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    return "text"


def _dot(suffix: str) -> str:
    return suffix or "such"


def _is_binary(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return False
    control = sum(head.count(byte) for byte in (*range(9), *range(14, 27), *range(28, 32)))
    return control * 20 > len(head) and not _looks_like_utf16(head)


def _looks_like_utf16(head: bytes) -> bool:
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    return half > 8 and max(even, odd) > 0.7 * half and min(even, odd) < 0.05 * half


def _archive(path: Path, limits: ParseLimits) -> str:
    """The Office kind of an archive; its size is judged by its directory, before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _refuse_bomb(entries, limits)
            kind = next(
                (kind for start, kind in _OFFICE.items() for one in entries if one.filename.startswith(start)), None
            )
            if kind is None:
                raise ParseError("unsupported", f"archives are not unpacked here; accepted are {ACCEPTED}")
            _refuse_entities(archive, entries)
            return kind
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise ParseError("broken", f"the file is damaged: {error}") from None


def _refuse_bomb(entries: list[zipfile.ZipInfo], limits: ParseLimits) -> None:
    total = sum(entry.file_size for entry in entries)
    if len(entries) > 20_000 or total > limits.unpacked_bytes:
        raise ParseError(
            "bomb",
            f"unpacked, the file would have {len(entries):,} parts and {total / MIB:,.0f} MiB;"
            f" at most {limits.unpacked_bytes // MIB} MiB are read",
        )
    for entry in entries:
        if entry.file_size > 20 * MIB and entry.file_size > 200 * max(entry.compress_size, 1):
            raise ParseError(
                "bomb",
                f"{entry.filename} would grow {entry.file_size // max(entry.compress_size, 1)}-fold when unpacked",
            )


def _refuse_entities(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
    """Office documents have no document type; one that has wants its entities expanded (OWASP, "XML Security")."""
    for entry in entries:
        if entry.filename.endswith((".xml", ".rels")):
            with archive.open(entry) as part:
                start = part.read(64 * 1024)
            if any(mark in start for mark in _DOCTYPES):
                raise ParseError("bomb", f"{entry.filename} defines XML entities, which Office documents do not")
