"""What an uploaded file is, told by its bytes and not by what its sender says. Called by the service, in a thread."""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import puremagic
from agentflow.errors import UnsupportedMediaTypeError, ValidationError

_HEAD = 8192
_GENERIC = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg"}
_TEXTS = frozenset(
    {
        "application/json", "application/x-ndjson", "application/jsonl", "application/xml", "application/yaml",
        "application/x-yaml", "application/toml", "application/javascript", "application/x-javascript",
        "application/sql", "application/x-sh", "application/x-python-code", "message/rfc822",
    }
)  # fmt: skip


class Image(NamedTuple):
    """An image; its size in pixels."""

    media_type: str
    width: int
    height: int


def image_of(path: Path, max_pixels: int) -> Image | None:
    """The image in a file; None if it is none. Only its header is read, nothing is unpacked.

    Raises:
        ValidationError: it is damaged, or has more pixels than may be.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        media_type = next((name for name in _IMAGES if name in _magic(head)), None)
        if media_type is None:
            return None
        try:
            width, height = _SIZES[media_type](head, file)
        except (struct.error, IndexError):
            width = height = 0
    if width <= 0 or height <= 0:
        raise _invalid("the image is damaged: its size cannot be read")
    if width * height > max_pixels:
        raise _invalid(f"the image has {width} × {height} pixels; at most {max_pixels:,} in all are taken")
    return Image(media_type, width, height)


def guess(path: Path) -> str:
    """What the first bytes look like, in words, for a message."""
    with path.open("rb") as file:
        return next(iter(_magic(file.read(_HEAD))), "not known")


def _magic(head: bytes) -> list[str]:
    try:
        return [match.mime_type for match in puremagic.magic_string(head) if match.mime_type]
    except (puremagic.PureError, ValueError):
        return []


def media_type_of(declared: str, found: str) -> str:
    """The type to keep: what a text is declared to be, else what the content is.

    Raises:
        UnsupportedMediaTypeError: the declaration contradicts the content.
    """
    said = declared.split(";", 1)[0].strip().lower()
    said = _ALIASES.get(said, said)
    if said in _GENERIC or said == found:
        return found
    if _is_text(said) and _is_text(found):
        return said
    raise UnsupportedMediaTypeError(f"the file was declared as {said}, but its content is {found}")


def _is_text(media_type: str) -> bool:
    return media_type.startswith("text/") or media_type in _TEXTS or media_type.endswith(("+json", "+xml"))


def _png(head: bytes, _: BinaryIO) -> tuple[int, int]:
    return struct.unpack(">II", head[16:24]) if head[12:16] == b"IHDR" else (0, 0)


def _gif(head: bytes, _: BinaryIO) -> tuple[int, int]:
    return struct.unpack("<HH", head[6:10])


def _webp(head: bytes, _: BinaryIO) -> tuple[int, int]:
    """RFC 9649, section 2."""
    form = head[12:16]
    if form == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if form == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg(_: bytes, file: BinaryIO) -> tuple[int, int]:
    """The frame header (ITU-T T.81, B.2.2), behind however many other segments."""
    file.seek(2)
    for _segment in range(1000):
        marker, code = file.read(1), file.read(1)
        while code == b"\xff":
            code = file.read(1)
        if marker != b"\xff" or not code:
            break
        (length,) = struct.unpack(">H", file.read(2))
        if 0xC0 <= code[0] <= 0xCF and code[0] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">xHH", file.read(5))
            return width, height
        file.seek(length - 2, 1)
    return 0, 0


_SIZES = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif, "image/webp": _webp}


def _invalid(message: str) -> ValidationError:
    return ValidationError(f"file: {message}", details=[{"field": "file", "message": message}])
