"""A provider on loopback that speaks OpenAI's format, accepts some keys, and remembers which it was called with."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class OpenAILike:
    """What the provider knows."""

    def __init__(self) -> None:
        self.keys: set[str] = {"sk-platform-000000000000", "sk-tenant-1111111111aaaa", "sk-tenant-2222222222bbbb"}
        self.used: list[str] = []
        self.tried: list[str] = []
        self.url = ""


@contextmanager
def openai_like() -> Generator[OpenAILike]:
    """Run one."""
    state = OpenAILike()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _key(self) -> str:
            return self.headers.get("Authorization", "").removeprefix("Bearer ")

        def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _refused(self) -> bool:
            if self._key() in state.keys:
                return False
            self._send(401, json.dumps({"error": {"message": f"Incorrect API key provided: {self._key()}"}}).encode())
            return True

        def do_GET(self) -> None:
            state.tried.append(self._key())
            if not self._refused():
                self._send(200, b'{"data": []}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self._refused():
                return
            state.used.append(self._key())
            chunks = [
                {"choices": [{"delta": {"content": "hello"}}]},
                {"choices": [{"delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10,
                                          "prompt_tokens_details": {"cached_tokens": 40}}},
            ]  # fmt: skip
            body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
            self._send(200, body + b"data: [DONE]\n\n", "text/event-stream")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
