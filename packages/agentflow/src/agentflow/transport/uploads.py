"""Files as a request body: a form (`multipart/form-data`, RFC 7578), read and sent in pieces, never held whole."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agentflow.errors import ConfigurationError


class ReadableFile(Protocol):
    """A file that is open for reading bytes; one that can seek can be sent again."""

    def read(self, size: int = ..., /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


FileSource = bytes | bytearray | memoryview | str | os.PathLike[str] | ReadableFile
NamedFile = FileSource | tuple[str, FileSource]
Progress = Callable[[int, int | None], None]
PIECE = 256 * 1024


class FilePart(NamedTuple):
    """A file of a form.

    Args:
        field: the form's field. source: bytes, a path, or a file that is open for reading bytes.
        name, media_type: by default from the path or the file; the type is guessed from the name.
    """

    field: str
    source: FileSource
    name: str | None = None
    media_type: str | None = None


class Multipart:
    """A form with files.

    Args:
        files: in this order, behind the fields. fields: texts; None is left out.
        progress: called with the bytes sent so far, and with how many there are (None if that is not known). It starts
            over if the request is sent again.

    Attributes:
        length: bytes of the whole body; None if a source cannot tell. replayable: the body can be sent again.

    Raises:
        OSError: a path cannot be read. ConfigurationError: a source is no file, or is open for text.
    """

    def __init__(
        self,
        files: Sequence[FilePart],
        fields: Mapping[str, str | None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        boundary = secrets.token_hex(16)
        self.media_type = f"multipart/form-data; boundary={boundary}"
        self.progress = progress
        self._heads: list[tuple[bytes, _Source]] = []
        texts = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
            for name, value in (fields or {}).items()
            if value is not None
        )
        before = texts.encode()
        for part in files:
            source = _Source(part.source)
            name = part.name or source.name or "file"
            head = (
                f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(part.field)}";'
                f' filename="{_quoted(name)}"\r\nContent-Type: {part.media_type or _guessed(name)}\r\n\r\n'
            )
            self._heads.append((before + head.encode(), source))
            before = b"\r\n"
        self._tail = before + f"--{boundary}--\r\n".encode()
        sizes = [source.size for _, source in self._heads]
        self.replayable = all(source.replayable for _, source in self._heads)
        self.length = (
            None
            if None in sizes
            else sum(size or 0 for size in sizes) + sum(len(head) for head, _ in self._heads) + len(self._tail)
        )

    def pieces(self) -> Iterator[bytes]:
        """The body from its beginning."""
        for head, source in self._heads:
            yield head
            yield from source.pieces()
        yield self._tail


class _Source:
    """Where a file's bytes come from; its size is that of the moment it was named."""

    def __init__(self, given: FileSource) -> None:
        self.name: str | None = None
        self.size: int | None = None
        self.replayable = True
        self._given = given
        if isinstance(given, bytes | bytearray | memoryview):
            self.size = memoryview(given).nbytes
        elif isinstance(given, str | os.PathLike):
            path = Path(given)
            self.name, self.size = path.name, path.stat().st_size
            if not path.is_file():
                raise ConfigurationError(f"{path} is not a file")
        elif callable(getattr(given, "read", None)):
            self._measure(given)
        else:
            raise ConfigurationError(f"bytes, a path or an open file is needed, not {type(given).__name__}")

    def _measure(self, file: Any) -> None:
        name = getattr(file, "name", None)
        self.name = Path(name).name if isinstance(name, str) else None
        if isinstance(file.read(0), str):
            raise ConfigurationError("the file is open for text: open it with mode 'rb'")
        try:
            self._start = file.tell()
            self.size = file.seek(0, os.SEEK_END) - self._start
            file.seek(self._start)
        except (OSError, AttributeError):
            self.replayable = False

    def pieces(self) -> Iterator[bytes]:
        given: Any = self._given
        if isinstance(given, bytes | bytearray | memoryview):
            view = memoryview(given).cast("B")
            for start in range(0, len(view), PIECE):
                yield bytes(view[start : start + PIECE])
        elif isinstance(given, str | os.PathLike):
            with Path(given).open("rb") as file:
                yield from self._read(file)
        else:
            if self.replayable:
                given.seek(self._start)
            yield from self._read(given)

    def _read(self, file: ReadableFile) -> Iterator[bytes]:
        left = self.size
        while left is None or left > 0:
            piece = file.read(PIECE if left is None else min(PIECE, left))
            if not piece:
                break
            left = None if left is None else left - len(piece)
            yield piece
        if left:
            raise ConfigurationError(f"{self.name or 'the file'} became shorter while it was being sent")


def _quoted(text: str) -> str:
    """A name in a part's header, as browsers write it (WHATWG HTML, section 4.10.21.8)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _guessed(name: str) -> str:
    import mimetypes

    guess: Any = mimetypes.guess_type(name)[0]
    return guess or "application/octet-stream"
