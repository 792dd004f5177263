"""Several processes on one PostgreSQL, or an embedded one, behind a relay that hands connections to whoever takes them.

The relay stands for a load balancer: it passes bytes, leaves out servers that refuse, and can cut what it carries.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

from tests.crash.backend import free_port

ROOT = Path(__file__).resolve().parents[2]
_KEYS = "test:a2V5IGZvciB0ZXN0cyB0aGF0IGhpZGVzIG5vdGhpbmc="


class Process:
    """`agentflow serve` or `agentflow worker` of a cluster. `environ`: what it is given when it starts next."""

    def __init__(
        self, role: str, url: str | None, data: Path, *, lease: float, log: Path, extra: dict[str, str]
    ) -> None:
        self.role = role
        self.port = free_port() if role == "serve" else 0
        self._log = log
        self.environ = {
            **os.environ, "DEV_AUTH_BYPASS": "true", "AGENTFLOW_SECRET_KEYS": _KEYS,
            "AGENTFLOW_LEASE_SECONDS": str(lease), "AGENTFLOW_DATA": str(data), "AGENTFLOW_LOG_LEVEL": "warning",
            "AGENTFLOW_PORT": str(self.port), "AGENTFLOW_DATABASE_CONNECTIONS": "8",
            **({} if url is None else {"AGENTFLOW_DATABASE_URL": url}), **extra,
        }  # fmt: skip
        self.process: subprocess.Popen[str] | None = None
        self._ready: subprocess.Popen[str] | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        program = ["-c", f"from agentflow_server.cli import {self.role}; {self.role}()"]
        if "MARKS" in self.environ:
            program = ["-m", "tests.crash.marked", self.role]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environ
            )

    def wait_until_ready(self) -> None:
        if self._ready is self.process:
            return
        assert self.process is not None
        assert self.process.stdout is not None
        assert "AgentFlow is" in self.process.stdout.readline(), self._log.read_text()[-2000:]
        self._ready = self.process

    def send(self, sig: int) -> None:
        assert self.process is not None
        self.process.send_signal(sig)

    def stop(self, sig: int = signal.SIGKILL) -> None:
        process = self.process
        assert process is not None
        process.send_signal(sig)
        if sig != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        self.process = None


class Relay:
    """Passes connections of one port on to one of several, chosen at random among those that answer."""

    def __init__(self, ports: list[int]) -> None:
        self.port = free_port()
        self._ports = ports
        self._chance = random.Random(0)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serve(self, started: threading.Event) -> None:
        async def main() -> None:
            async with await asyncio.start_server(self._accept, "127.0.0.1", self.port):
                started.set()
                await self._end.wait()

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(main())
        for writer in self._writers:
            writer.transport.abort()
        self._loop.run_until_complete(self._all_ended())
        self._loop.close()

    async def _all_ended(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports = self._chance.sample(self._ports, len(self._ports))
        for port in ports:
            try:
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            self._writers |= {writer, inner_writer}
            await asyncio.gather(self._pass(reader, inner_writer), self._pass(inner_reader, writer))
            self._writers -= {writer, inner_writer}
            return
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    def cut(self, part: float) -> None:
        """Break this part of the connections, without a goodbye."""

        def now() -> None:
            for writer in list(self._writers):
                if self._chance.random() < part:
                    writer.transport.abort()

        self._loop.call_soon_threadsafe(now)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)


class Cluster:
    """The processes of a cluster and their relay."""

    def __init__(
        self, url: str | None, data: Path, servers: int, workers: int, *, lease: float, extra: dict[str, str]
    ) -> None:
        self.log = data / "log"
        roles = ["serve"] * servers + ["worker"] * workers
        self.processes = [Process(role, url, data, lease=lease, log=self.log, extra=extra) for role in roles]
        self.servers = [process for process in self.processes if process.role == "serve"]
        self.workers = [process for process in self.processes if process.role == "worker"]
        self.relay = Relay([process.port for process in self.servers])

    def start(self) -> None:
        for process in self.processes:
            process.start()
        for process in self.processes:
            process.wait_until_ready()

    def close(self) -> None:
        self.relay.close()
        for process in self.processes:
            if process.alive:
                process.stop()


@contextlib.contextmanager
def running_cluster(
    url: str | None,
    data: Path,
    *,
    servers: int = 2,
    workers: int = 0,
    lease: float = 3.0,
    extra: dict[str, str] | None = None,
) -> Generator[Cluster]:
    """A cluster for the length of a block; without the URL of a database, a server on the folder alone."""
    cluster = Cluster(url, data, servers, workers, lease=lease, extra=extra or {})
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
