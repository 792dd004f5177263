"""The other sandbox, which an admin must allow: full Python in a process of its own that has given up what it could.

The tools room calls it. It trusts nothing the process writes, and kills the whole process group when a run is over.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agentflow_server.sandbox.port import (
    MIB,
    Limits,
    SandboxCrashed,
    SandboxError,
    SandboxMemoryExceeded,
    SandboxOutputExceeded,
    SandboxRefused,
    SandboxResult,
    SandboxTimeout,
    SandboxToolError,
    json_value,
)
from agentflow_server.sandbox.signature import Signature, SourceError, read_signature

REQUIRED = frozenset({"rlimits", "no_new_privileges", "landlock", "seccomp"})
_CHILD = Path(__file__).with_name("child.py")


class ProcessSandbox:
    """Runs source in one fresh Python process per run.

    Args:
        concurrency: processes at once; further runs wait.
        required: measures without which it refuses to run anything (see `capabilities`).
    """

    def __init__(self, concurrency: int = 2, required: frozenset[str] = REQUIRED) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._required = required
        self._closed = False

    async def capabilities(self) -> frozenset[str]:
        """Start a process and say which measures hold on this machine.

        Returns:
            Names of `rlimits`, `user_namespace`, `network_namespace`, `ipc_namespace`, `mount_namespace`,
            `private_tmpfs`, `no_new_privileges`, `landlock`, `no_capabilities`, `seccomp`.
        """
        work = _Work(Limits(seconds=10.0), None)
        await self._drive(work, {"source": "", "function": None, "arguments": {}}, required=frozenset())
        return frozenset(work.active)

    async def run(
        self,
        source: str,
        entrypoint: str | None,
        arguments: Mapping[str, Any],
        *,
        limits: Limits,
        on_progress: Callable[[Any], None] | None = None,
    ) -> SandboxResult:
        """As `Sandbox.run`; inside, `progress(value)` reports a JSON value."""
        signature = _signature(source, entrypoint)
        work = _Work(limits, on_progress)
        started = time.perf_counter()
        job = {"source": source, "function": signature.name, "arguments": dict(arguments)}
        frame = await self._drive(work, job, required=self._required)
        value = json_value(frame.get("value"), limits)
        return SandboxResult(value, work.printed(), (time.perf_counter() - started) * 1000)

    async def check(self, source: str, entrypoint: str | None = None, *, limits: Limits | None = None) -> Signature:
        """As `Sandbox.check`: the source is loaded once, confined like a run."""
        signature = _signature(source, entrypoint)
        work = _Work(limits or Limits(seconds=5.0), None)
        try:
            await self._drive(work, {"source": source, "function": None, "arguments": {}}, required=self._required)
        except SandboxRefused:
            raise
        except SandboxError as error:
            raise SandboxRefused(f"loading the source fails: {error}", work.line) from None
        return signature

    async def aclose(self) -> None:
        """Refuse further runs; each run ends its own process."""
        self._closed = True

    async def _drive(self, work: "_Work", job: dict[str, Any], *, required: frozenset[str]) -> dict[str, Any]:
        if self._closed:
            raise SandboxRefused("the sandbox is closed")
        async with self._slots:
            folder = tempfile.mkdtemp(prefix="agentflow-tool-")
            try:
                return await work.run(job | {"folder": folder, "required": sorted(required)}, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


class _Work:
    """One process: its frames, its output and its end."""

    def __init__(self, limits: Limits, on_progress: Callable[[Any], None] | None) -> None:
        self.active: list[str] = []
        self.line: int | None = None
        self._limits = limits
        self._on_progress = on_progress
        self._output = bytearray()
        self._events = 0

    def printed(self) -> str:
        return self._output.decode(errors="replace")

    async def run(self, job: dict[str, Any], folder: str) -> dict[str, Any]:
        limits = self._limits
        job |= {"memory_bytes": limits.memory_bytes, "seconds": limits.seconds, "recursion": limits.recursion + 50}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_CHILD),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=folder, env={"TMPDIR": folder, "HOME": folder}, start_new_session=True,
            limit=2 * limits.output_bytes + MIB,
        )  # fmt: skip
        try:
            async with asyncio.timeout(limits.seconds):
                return await self._converse(process, json.dumps(job).encode())
        except TimeoutError:
            raise SandboxTimeout(f"the tool ran longer than {limits.seconds} seconds") from None
        finally:
            await _end(process)

    async def _converse(self, process: asyncio.subprocess.Process, job: bytes) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            process.stdin.write(job)
            process.stdin.write_eof()
            await process.stdin.drain()
        except ConnectionError:
            raise SandboxCrashed("the process died before it read its job") from None
        printing = asyncio.ensure_future(self._collect(process.stderr))
        answering = asyncio.ensure_future(self._answer(process))
        try:
            await asyncio.wait({printing, answering}, return_when=asyncio.FIRST_EXCEPTION)
            if printing.done():
                printing.result()
            return answering.result()
        finally:
            for task in (printing, answering):
                task.cancel()
            await asyncio.gather(printing, answering, return_exceptions=True)

    async def _collect(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(65536):
            self._output += data
            if len(self._output) > self._limits.output_bytes:
                raise SandboxOutputExceeded(f"the tool printed more than {self._limits.output_bytes} bytes")

    async def _answer(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                raise SandboxOutputExceeded(f"the tool gave back more than {self._limits.output_bytes} bytes") from None
            if not line:
                raise await self._died(process)
            frame = _frame(line)
            if "active" in frame and not self.active:
                self.active = [str(name) for name in frame["active"]]
            elif "progress" in frame:
                self._progress(frame["progress"], len(line))
            else:
                return self._final(frame)

    def _progress(self, value: Any, size: int) -> None:
        self._events += 1
        if self._events > self._limits.progress_events or size > self._limits.output_bytes:
            raise SandboxOutputExceeded(f"the tool reported progress more than {self._limits.progress_events} times")
        if self._on_progress is not None:
            self._on_progress(value)

    def _final(self, frame: dict[str, Any]) -> dict[str, Any]:
        if "refused" in frame:
            raise SandboxRefused(str(frame["refused"]))
        if "memory" in frame:
            raise SandboxMemoryExceeded(f"the tool needs more than {self._limits.memory_bytes} bytes of memory")
        if "error" in frame:
            line = frame.get("line")
            self.line = line if isinstance(line, int) else None
            texts = [str(frame.get(name, ""))[:8000] for name in ("error", "message", "trace")]
            raise SandboxToolError(*texts)
        return frame

    async def _died(self, process: asyncio.subprocess.Process) -> SandboxError:
        code = await process.wait()
        if code == -signal.SIGXCPU:
            return SandboxTimeout(f"the tool used more processor time than {self._limits.seconds} seconds")
        if b"MemoryError" in self._output[-2000:]:
            return SandboxMemoryExceeded(f"the tool needs more than {self._limits.memory_bytes} bytes of memory")
        return SandboxCrashed(f"the process ended without an answer (status {code})")


def _frame(line: bytes) -> dict[str, Any]:
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        raise SandboxCrashed("the process wrote something that is no answer") from None
    if not isinstance(frame, dict):
        raise SandboxCrashed("the process wrote something that is no answer")
    return frame


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _signature(source: str, entrypoint: str | None) -> Signature:
    try:
        return read_signature(source, entrypoint)
    except SourceError as error:
        raise SandboxRefused(error.reason, error.line) from None
