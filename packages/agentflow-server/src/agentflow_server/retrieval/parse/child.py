"""The process that reads files: forks for each one, so that every file finds warm libraries and a fresh memory.

Started by `parser` as `python -m …`. A line of JSON asks for a file, a line answers how its process ended; what was
read lies in the file that was asked for. The forked process first bounds its own
memory, processor time, clock and output.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from agentflow_server.retrieval.parse.detect import MEDIA_TYPES, kind_of, text_kind
from agentflow_server.retrieval.parse.document import Collector, Document, ParseError, ParseLimits

_READERS = {
    "pdf": ("pdf", "read_pdf", ("pypdf",)),
    "docx": ("office", "read_docx", ("docx",)),
    "pptx": ("office", "read_pptx", ("pptx",)),
    "xlsx": ("office", "read_xlsx", ("openpyxl",)),
    "html": ("markup", "read_html", ("trafilatura", "markdown_it")),
    "markdown": ("markup", "read_markdown", ("markdown_it", "lxml.html")),
    "mail": ("mail", "read_mail", ("trafilatura", "markdown_it")),
    "table": ("text", "read_table", ()),
    "code": ("text", "read_code", ("charset_normalizer",)),
    "text": ("text", "read_text", ("charset_normalizer",)),
}
_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT = 38, 1


def read(path: Path, name: str, limits: ParseLimits) -> Document:
    """Read a file in this process.

    Raises:
        ParseError: it cannot be read.
    """
    if path.stat().st_size > limits.file_bytes:
        raise ParseError("too_large", f"the file is larger than {limits.file_bytes:,} bytes")
    kind = kind_of(path, name, limits)
    out = Collector(limits)
    document = _reader(kind)(path, out)
    if not document.blocks:
        raise ParseError("empty", "there is no text in the file")
    document.media_type = MEDIA_TYPES[kind]
    return document


def _reader(kind: str) -> Callable[[Path, Collector], Document]:
    module, function, libraries = _READERS[kind]
    for library in libraries:
        import_module(library)
    return getattr(import_module(f"agentflow_server.retrieval.parse.{module}"), function)


def _answer(path: Path, name: str, limits: ParseLimits) -> dict[str, Any]:
    try:
        return asdict(read(path, name, limits))
    except ParseError as error:
        return {"error": error.code, "message": error.message}
    except MemoryError:
        return {"error": "memory", "message": f"reading it takes more than {limits.memory_bytes:,} bytes of memory"}
    except RecursionError:
        return {"error": "broken", "message": "the file refers to itself without end"}


def _bound(limits: ParseLimits) -> None:
    mapped = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    cpu = int(limits.seconds) + 1
    for kind, value in (
        (resource.RLIMIT_AS, mapped + limits.memory_bytes),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, 8 * limits.text_chars),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (value, value))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 2 * limits.seconds)


def _work(task: dict[str, Any]) -> None:
    limits = ParseLimits(**task["limits"])
    _bound(limits)
    answer = _answer(Path(task["path"]), task["name"], limits)
    with Path(task["out"]).open("w", encoding="utf-8", errors="replace") as file:
        json.dump(answer, file, ensure_ascii=False)  # half a surrogate is no text: it becomes a question mark


def serve() -> None:
    """Answer tasks until the other end closes."""
    _quiet()
    for line in sys.stdin.buffer:
        task = json.loads(line)
        _warm(PurePath(task["name"]).suffix.lower())
        pid = os.fork()
        if pid == 0:
            status = 1  # also where a reader's library raises what has no common name
            try:
                _work(task)
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps({"status": os.waitstatus_to_exitcode(ended)}) + "\n")
        sys.stdout.flush()


def _warm(suffix: str) -> None:
    """Load the libraries a file seems to need before the fork, so that the next one finds them loaded."""
    kind = suffix[1:] if suffix[1:] in _READERS else text_kind(suffix, b"")
    _reader(kind)


def _quiet() -> None:
    """Libraries' warnings go nowhere; the process dies with the server."""
    import ctypes
    import logging

    logging.disable(logging.CRITICAL)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


if __name__ == "__main__":
    serve()
