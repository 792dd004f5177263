"""An S3-compatible store for tests: the server of the package `moto`, in a process of its own on a loopback port."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

import httpx2
from defusedxml import ElementTree

from tests.crash.backend import free_port

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
_NAMES = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class S3Server:
    """A server with one bucket, `files`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **CREDENTIALS},
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx2.put(f"{self.endpoint}/files").raise_for_status()
                return
            except httpx2.TransportError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def names(self) -> list[str]:
        """What lies in the bucket."""
        listing = ElementTree.fromstring(httpx2.get(f"{self.endpoint}/files?list-type=2").content)
        return [key.text or "" for key in listing.iter(f"{_NAMES}Key")]


@contextlib.contextmanager
def running_s3() -> Generator[S3Server]:
    """A server for the length of a block."""
    server = S3Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()
