"""Talks to an MCP server that is a command, over its standard input and output, within bounds. Called by `mcp`.

The official transport reads lines of any length and logs every bad one; this one ends a server that writes too much or
what is no protocol, and kills its whole process group.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

MAX_LINE = 4 * 1024 * 1024
_MAX_BAD_LINES = 50
_GRACE = 2.0
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


class Meter:
    """Counts what a server sends; `start` begins anew with each call."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen = 0
        self.exceeded = False

    def start(self) -> None:
        self._seen = 0

    def add(self, size: int) -> bool:
        """Whether there may be more."""
        self._seen += size
        self.exceeded = self.exceeded or self._seen > self._limit
        return not self.exceeded


@asynccontextmanager
async def stdio(
    command: str, args: Sequence[str], env: Mapping[str, str], meter: Meter
) -> AsyncGenerator[TransportStreams]:
    """Run the command and speak with it; at the end it is killed with all it has started.

    Raises:
        OSError: it cannot be run.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        command, *args, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, env={**inherited, **env}, start_new_session=True, limit=MAX_LINE,
    )  # fmt: skip
    incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_receive, process, incoming, meter)
            tasks.start_soon(_send, process, outgoing, incoming)
            try:
                yield read, write
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
        for stream in (incoming, read, write, outgoing):
            stream.close()


async def _receive(
    process: asyncio.subprocess.Process,
    incoming: MemoryObjectSendStream[SessionMessage | Exception],
    meter: Meter,
) -> None:
    assert process.stdout is not None
    bad = 0
    async with incoming:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                meter.exceeded = True
                return
            if not line or not meter.add(len(line)) or bad > _MAX_BAD_LINES:
                return
            try:
                message = SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError:
                bad += 1
                continue
            try:
                await incoming.send(message)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                return


async def _send(
    process: asyncio.subprocess.Process,
    outgoing: MemoryObjectReceiveStream[SessionMessage],
    incoming: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    assert process.stdin is not None
    async for message in outgoing:
        try:
            process.stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await process.stdin.drain()
        except (ConnectionError, RuntimeError):
            incoming.close()
            return


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let the server go: its input is closed, then its process group is killed."""
    if process.stdin is not None:
        process.stdin.close()
    for sig, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sig)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await process.wait()
                break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
