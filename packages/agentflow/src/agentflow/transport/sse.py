"""Splits a byte stream into server-sent events (WHATWG HTML, section 9.2). Bytes in, payloads out; linear."""

from agentflow.errors import DecodeError

MAX_EVENT = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class Splitter:
    """Feeds on network reads, gives the events that are complete: (id, data) with the last id that was seen."""

    def __init__(self) -> None:
        self._rest = b""
        self._started = False
        self._after_cr = False
        self._id: bytes | None = None
        self._data: list[bytes] = []
        self._size = 0
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> list[tuple[bytes | None, bytes]]:
        """Take in a piece; returns the events that ended in it.

        Raises:
            DecodeError: an event is larger than 64 MiB.
        """
        if not self._started:
            piece = self._rest + piece
            if len(piece) < 3 and _BOM.startswith(piece):
                self._rest = piece
                return []
            self._rest = b""
            self._started = True
            piece = piece.removeprefix(_BOM)
        if self._after_cr:
            self._after_cr = False
            piece = piece[1:] if piece.startswith(b"\n") else piece
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in piece:
            self._keep(piece)
            return []
        lines = piece.split(b"\n")
        if self._pieces:
            lines[0] = b"".join([*self._pieces, lines[0]])
            self._pieces, self._size = [], sum(map(len, self._data))
        last = lines.pop()
        events = self._lines(lines)
        if last:
            self._keep(last)
        return events

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._grow(len(piece))

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_EVENT:
            raise DecodeError(f"the server sent an event of more than {MAX_EVENT} bytes")

    def _lines(self, lines: list[bytes]) -> list[tuple[bytes | None, bytes]]:
        events: list[tuple[bytes | None, bytes]] = []
        data = self._data
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                data.append(value)
                self._grow(len(value))
            elif not line:
                if data:
                    events.append((self._id, data[0] if len(data) == 1 else b"\n".join(data)))
                    data.clear()
                self._size = 0
            elif line.startswith(b"id:"):
                value = line[4:] if line[3:4] == b" " else line[3:]
                if b"\0" not in value:
                    self._id = value
            elif line == b"data":
                data.append(b"")
            elif line == b"id":
                self._id = b""
        return events
