"""A server that misbehaves on purpose: raw bytes on a loopback socket, a script for each connection."""

import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Script = Callable[["Peer", Received], None]


class Peer:
    """The other side of one request."""

    def __init__(self, connection: socket.socket, released: threading.Event) -> None:
        self._connection = connection
        self.released = released

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def reset(self) -> None:
        """Break the connection without a goodbye."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._connection.close()

    def hang(self) -> None:
        """Say nothing until the test is over."""
        self.released.wait(30)


@dataclass
class Wire:
    """What the server was asked."""

    endpoint: str
    requests: list[Received] = field(default_factory=list[Received])


@contextmanager
def wire(scripts: Sequence[Script]) -> Generator[Wire]:
    """Answer the n-th request with the n-th script; the last one answers all that follow."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    record = Wire(f"http://{host}:{port}")
    released = threading.Event()
    lock = threading.Lock()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            try:
                request = _read(connection)
                if request is None:
                    return
                with lock:
                    number = len(record.requests)
                    record.requests.append(request)
                scripts[min(number, len(scripts) - 1)](Peer(connection, released), request)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(connection,), daemon=True)
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield record
    finally:
        released.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for thread in threads:
            thread.join(5)


def _read(connection: socket.socket) -> Received | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Received(method, path, headers, body)


def answer(
    body: bytes, *, status: str = "200 OK", kind: str = "application/json", headers: str = "", length: int | None = None
) -> Script:
    """An answer, and the connection is closed."""
    size = len(body) if length is None else length

    def script(peer: Peer, _: Received) -> None:
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\nConnection: close\r\n{headers}\r\n"
        )
        peer.send(head.encode() + body)

    return script


def stream(*pieces: bytes, headers: str = "X-Run-ID: run-1\r\n", end: str = "finish") -> Script:
    """A chunked event stream; `end` is finish, cut (mid-stream), reset or hang."""

    def script(peer: Peer, _: Received) -> None:
        peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            + headers.encode()
            + b"\r\n"
        )
        for piece in pieces:
            peer.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end == "finish":
            peer.send(b"0\r\n\r\n")
        elif end == "reset":
            peer.reset()
        elif end == "hang":
            peer.hang()

    return script


def event(seq: int, type_: str, content: object, call: str = "root") -> bytes:
    """An event's frame."""
    import json

    body = {
        "type": type_,
        "call_id": call,
        "parent_call_id": None if call == "root" else "root",
        "root_call_id": "root",
        "content": content,
        "seq": seq,
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "metadata": None,
    }
    return f"id: {seq}\ndata: {json.dumps(body)}\n\n".encode()


RESULT = {
    "text": "ab",
    "conversation_id": "c",
    "message_id": "m",
    "run_id": "run-1",
    "call_id": "root",
    "finish_reason": "stop",
}
