"""Forms with files (`multipart/form-data`, RFC 7578), read part by part as they arrive: no file is held or spooled.

Used by routes that take uploads. Each part is read before the next one begins, so a bound on a file holds at once.
"""

import unicodedata
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import PurePosixPath

from agentflow.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaTypeError
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

_MAX_PARTS = 1000
_NAME_LENGTH = 200


@dataclass(slots=True)
class FormPart:
    """A part of a form.

    Attributes:
        name: its field. filename: as the sender wrote it, never a path to use; None for a text.
        media_type: as the sender says; empty if it does not.
    """

    name: str
    filename: str | None
    media_type: str
    _form: "Form"

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Its bytes as they arrive; to be read once."""
        while (piece := await self._form._data()) is not None:
            yield piece

    async def text(self, max_bytes: int = 10_000) -> str:
        """It as text.

        Raises:
            PayloadTooLargeError: it is longer. BadRequestError: it is not UTF-8.
        """
        found = bytearray()
        async for piece in self.pieces():
            found += piece
            if len(found) > max_bytes:
                raise PayloadTooLargeError(f"{self.name}: is longer than {max_bytes} bytes")
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise BadRequestError(f"{self.name}: is not UTF-8") from None


class Form:
    """The form in a request.

    Raises:
        UnsupportedMediaTypeError: the body is no form with files.
    """

    def __init__(self, request: Request) -> None:
        kind, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise UnsupportedMediaTypeError(
                f"a form with a file (multipart/form-data) is needed, not {kind.decode() or 'a body without a type'}"
            )
        self._body = request.stream()
        self._ready: deque[FormPart | bytes | None] = deque()
        self._headers: dict[str, str] = {}
        self._name = self._value = b""
        self._finished = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": self._on_name,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header,
                    "on_headers_finished": self._on_part,
                    "on_part_data": lambda data, start, end: self._ready.append(data[start:end]),
                    "on_part_end": lambda: self._ready.append(None),
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise BadRequestError(f"the form cannot be read: {error}") from None

    async def parts(self) -> AsyncGenerator[FormPart, None]:
        """The parts in their order; what is left unread of one is passed over.

        Raises:
            BadRequestError: the form is damaged or breaks off.
        """
        count = 0
        while await self._fill():
            found = self._ready.popleft()
            if isinstance(found, FormPart):
                count += 1
                if count > _MAX_PARTS:
                    raise BadRequestError(f"the form has more than {_MAX_PARTS} parts")
                yield found

    async def _data(self) -> bytes | None:
        """The next bytes of the part that is being read; None at its end."""
        await self._fill()
        found = self._ready.popleft()
        assert not isinstance(found, FormPart)
        return found

    async def _fill(self) -> bool:
        """Read on until something is ready; False at the end of the form."""
        while not self._ready and not self._finished:
            try:
                piece = await anext(self._body, b"")
                if not piece:  # the parser has not seen the closing boundary
                    raise BadRequestError("the form breaks off before its end")
                self._parser.write(piece)
            except FormParserError as error:
                raise BadRequestError(f"the form cannot be read: {error}") from None
            except ClientDisconnect:
                raise BadRequestError("the sender left before the form was complete") from None
        return bool(self._ready)

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _on_part(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        name, filename = (options.get(key) for key in (b"name", b"filename"))
        if name is None:
            raise BadRequestError("a part of the form has no name")
        self._ready.append(
            FormPart(
                name.decode("utf-8", "replace"),
                None if filename is None else _unquoted(filename.decode("utf-8", "replace")),
                self._headers.get("content-type", ""),
                self,
            )
        )

    def _on_end(self) -> None:
        self._finished = True


def _unquoted(name: str) -> str:
    """A file's name as it was before it was put into quotes (WHATWG HTML, section 4.10.21.8)."""
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def clean_name(name: str | None) -> str:
    """A file's name as it is kept and shown: no folders, nothing invisible, not longer than 200 characters."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(
        char
        for char in unicodedata.normalize("NFC", last)
        if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl")
    ).strip()
    if not shown.strip(". "):
        return "file"
    suffix = PurePosixPath(shown).suffix[:20]
    return shown if len(shown) <= _NAME_LENGTH else shown[: _NAME_LENGTH - len(suffix)] + suffix
