"""A backend in a process of its own, on a port it keeps, that can be killed and started again."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

COMMAND = Path(sys.executable).with_name("agentflow")


def free_port() -> int:
    """A port that nobody listens on, and that no outgoing connection takes meanwhile: Linux gives them 32768 and up."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Backend:
    """`agentflow serve` on one folder and one port."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self, before: Callable[[], None] | None = None) -> None:
        command = [str(COMMAND), "serve", "--data", str(self.data), "--port", str(self.port), "--log-level", "error"]
        environ = {**os.environ, "DEV_AUTH_BYPASS": "true"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ, preexec_fn=before)
        assert self.process.stdout is not None
        assert "http://" in self.process.stdout.readline()

    def stop(self, sig: int = signal.SIGKILL) -> None:
        process = self.process
        assert process is not None
        process.send_signal(sig)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        self.process = None

    def __enter__(self) -> "Backend":
        if self.process is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()
