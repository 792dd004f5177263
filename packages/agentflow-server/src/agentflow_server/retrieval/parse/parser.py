"""Reads files in processes of its own that have bounds. Used by rooms that take files."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentflow_server.retrieval.parse.document import Block, Document, ParseError, ParseLimits

_CHILD = "agentflow_server.retrieval.parse.child"
_IDLE_SECONDS = 60.0
_GRACE_SECONDS = 15.0


class Parser:
    """The parser of a process.

    Args:
        limits: bounds of one file. concurrency: files at once; further ones wait.
    """

    def __init__(self, limits: ParseLimits | None = None, *, concurrency: int = 2) -> None:
        self.limits = limits or ParseLimits()
        self._slots = asyncio.Semaphore(concurrency)
        self._idle: list[_Reader] = []

    async def parse(self, path: Path, name: str) -> Document:
        """Read a file.

        Args:
            path: where it is. name: what its sender calls it; its ending helps to tell what it is.

        Raises:
            ParseError: it cannot be read; says why.
        """
        size = (await asyncio.to_thread(path.stat)).st_size
        if size > self.limits.file_bytes:
            raise ParseError("too_large", f"the file has {size:,} bytes; at most {self.limits.file_bytes:,} are read")
        async with self._slots, self._reader() as reader:
            return await reader.read(path, name, self.limits)

    @asynccontextmanager
    async def _reader(self) -> "AsyncGenerator[_Reader]":
        reader = self._idle.pop() if self._idle else _Reader()
        if reader.rest is not None:
            reader.rest.cancel()
        try:
            yield reader
        except ParseError:
            await self._keep(reader)
            raise
        except BaseException:
            await reader.aclose()
            raise
        await self._keep(reader)

    async def _keep(self, reader: "_Reader") -> None:
        if not reader.alive:
            await reader.aclose()
            return
        self._idle.append(reader)
        reader.rest = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._retire, reader)

    def _retire(self, reader: "_Reader") -> None:
        if reader in self._idle:
            self._idle.remove(reader)
            reader.end()

    async def aclose(self) -> None:
        """End the processes."""
        while self._idle:
            await self._idle.pop().aclose()


class _Reader:
    """One reading process. It is started on first use and serves one file at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self.rest: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def read(self, path: Path, name: str, limits: ParseLimits) -> Document:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-X", "utf8", "-m", _CHILD,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                env={"LANG": "C.UTF-8"}, start_new_session=True,
            )  # fmt: skip
        handle, out = tempfile.mkstemp(prefix="agentflow-parse-")
        os.close(handle)
        try:
            task = {"path": str(path), "name": name, "out": out, "limits": asdict(limits)}
            status = await self._ask(self._process, task, limits)
            if status != 0:
                raise _died(status, limits)
            return await asyncio.to_thread(_document, Path(out))
        finally:
            os.unlink(out)  # noqa: PTH108 - a file in a temporary folder

    async def _ask(self, process: asyncio.subprocess.Process, task: dict[str, Any], limits: ParseLimits) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(2 * limits.seconds + _GRACE_SECONDS):
                process.stdin.write(json.dumps(task).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except (TimeoutError, ConnectionError):
            line = b""
        if not line:
            await self.aclose()
            raise ParseError("crashed", "the process that read the file died")
        return int(json.loads(line)["status"])

    def end(self) -> None:
        if self.rest is not None:
            self.rest.cancel()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        self.end()
        if self._process is not None:
            await self._process.wait()


def _died(status: int, limits: ParseLimits) -> ParseError:
    if status > 0:
        return ParseError("broken", "the file is damaged: it cannot be read as what it seems to be")
    if -status in (signal.SIGALRM, signal.SIGXCPU, signal.SIGKILL):
        return ParseError("timeout", f"reading the file took longer than {limits.seconds:g} seconds")
    return ParseError("crashed", "the process that read the file died: the file may be damaged")


def _document(path: Path) -> Document:
    found: dict[str, Any] = json.loads(path.read_bytes())
    if "error" in found:
        raise ParseError(found["error"], found["message"])
    blocks = [Block(*block) for block in found.pop("blocks")]
    return Document(blocks=blocks, **found)
