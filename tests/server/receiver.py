"""Somebody who wants to be told: an HTTP server on loopback that keeps what it gets, and answers what a test wants."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """What has come. `statuses` are given one after the other, the last one again and again."""

    def __init__(self) -> None:
        self.statuses = [200]
        self.messages: list[tuple[dict[str, str], bytes]] = []
        self.arrived = threading.Condition()
        self.url = ""

    def wait(self, count: int, timeout: float = 20) -> list[tuple[dict[str, str], bytes]]:
        """The messages, when there are so many."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.messages) >= count, timeout), "no message came"
            return list(self.messages)


@contextmanager
def receiver() -> Generator[Receiver]:
    """Run one."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with state.arrived:
                status = state.statuses[min(len(state.messages), len(state.statuses) - 1)]
                state.messages.append(({name.lower(): value for name, value in self.headers.items()}, body))
                state.arrived.notify_all()
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/hook?token=t"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
