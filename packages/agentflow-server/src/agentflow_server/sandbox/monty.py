"""The default sandbox: Monty, an interpreter of its own for a part of Python, in a pool of worker processes.

The tools room calls it. Only JSON text leaves a worker; nothing of the host is handed in, so there is nothing to reach.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agentflow_server.sandbox.port import (
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

if TYPE_CHECKING:
    from pydantic_monty import AsyncMonty, AsyncMontySession, MontyError

_GRACE = 1.0
_TIME = re.compile(r"(feed|turn) time limit exceeded|sleep limit exceeded")
_MEMORY = "memory limit exceeded"
_IMPORTABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class MontySandbox:
    """Runs source in Monty workers, which start with the first run and are replaced when they die.

    Args:
        concurrency: runs at once; further ones wait.
    """

    def __init__(self, concurrency: int = 4) -> None:
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._opening = asyncio.Lock()
        self._pool: AsyncMonty | None = None

    async def run(
        self,
        source: str,
        entrypoint: str | None,
        arguments: Mapping[str, Any],
        *,
        limits: Limits,
        on_progress: Callable[[Any], None] | None = None,
    ) -> SandboxResult:
        """As `Sandbox.run`; inside, `progress(value)` reports a value."""
        signature = _signature(source, entrypoint)
        call = f"{'await ' if signature.is_async else ''}{signature.name}(**__arguments__)"
        work = _Work(limits, source, on_progress)
        started = time.perf_counter()
        text = await self._drive(work, [f"{source}\n\n__result__ = {call}", _DUMP], arguments)
        value = json_value(text, limits)
        return SandboxResult(value, work.printed(), (time.perf_counter() - started) * 1000)

    async def check(self, source: str, entrypoint: str | None = None, *, limits: Limits | None = None) -> Signature:
        """As `Sandbox.check`: imports are tried one by one, then the source is loaded."""
        limits = limits or Limits(seconds=2.0)
        signature = _signature(source, entrypoint)
        for name, line in signature.imports:
            if not _IMPORTABLE.fullmatch(name):
                raise SandboxRefused(f"cannot import {name!r} here", line)
            try:
                await self._drive(_Work(limits, "", None), [f"import {name}"], {})
            except SandboxToolError:
                raise SandboxRefused(f"the module {name!r} does not exist in the default sandbox", line) from None
        work = _Work(limits, source, None)
        try:
            await self._drive(work, [source], {})
        except SandboxToolError as error:
            raise SandboxRefused(f"loading the source fails: {error}", work.line) from None
        except (SandboxTimeout, SandboxMemoryExceeded, SandboxOutputExceeded) as error:
            raise SandboxRefused(f"loading the source fails: {error}") from None
        return signature

    async def aclose(self) -> None:
        """End the workers."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(None, None, None)

    async def _workers(self) -> "AsyncMonty":
        async with self._opening:
            if self._pool is None:
                from pydantic_monty import AsyncMonty  # costs nothing until the first run

                pool = AsyncMonty(min_processes=0, max_processes=self._concurrency, feed_duration_limit_grace=_GRACE)
                self._pool = await pool.__aenter__()
            return self._pool

    async def _drive(self, work: "_Work", feeds: list[str], arguments: Mapping[str, Any]) -> object:
        """Feed a fresh session.

        A cancelled or late feed is ended by killing its worker, then awaited: Monty's own cancellation leaves a thread
        behind that aborts the interpreter at its end.
        """
        async with self._slots:
            pool = await self._workers()
            feeding = asyncio.ensure_future(work.feed(pool, feeds, arguments))
            try:
                done, _ = await asyncio.wait({feeding}, timeout=work.limits.seconds + 2 * _GRACE)
                if not done:
                    raise SandboxTimeout(f"the tool ran longer than {work.limits.seconds} seconds")
            finally:
                if not feeding.done():
                    work.kill()
                    await asyncio.wait({feeding}, timeout=5)
                    if feeding.done() and not feeding.cancelled():
                        feeding.exception()
            return feeding.result()


_DUMP = "import json as __json\n__json.dumps(__result__)"


class _Work:
    """One session: what it printed and reported, and which worker to kill."""

    def __init__(self, limits: Limits, source: str, on_progress: Callable[[Any], None] | None) -> None:
        self.limits = limits
        self.line: int | None = None
        self._source_lines = source.count("\n") + 1
        self._loop = asyncio.get_running_loop()
        self._on_progress = on_progress
        self._output: list[str] = []
        self._bytes = 0
        self._events = 0
        self._too_much = ""
        self._pid: int | None = None
        self._killed = False

    def printed(self) -> str:
        return "".join(self._output)

    def kill(self) -> None:
        self._killed = True
        if self._pid is not None:
            try:
                os.kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    async def feed(self, pool: "AsyncMonty", feeds: list[str], arguments: Mapping[str, Any]) -> object:
        from pydantic_monty import MontyError

        try:
            async with pool.checkout(script_name="tool.py", limits=self._monty_limits()) as session:
                self._pid = session.worker_pid
                return await self._feed(session, feeds, arguments)
        except MontyError as error:
            raise self._translate(error) from None
        finally:
            self._pid = None

    async def _feed(self, session: "AsyncMontySession", feeds: list[str], arguments: Mapping[str, Any]) -> object:
        value: object = None
        for index, code in enumerate(feeds):
            if self._killed:
                raise SandboxCrashed("the run was ended")
            value = await session.feed_run(
                code,
                inputs={"__arguments__": dict(arguments)} if index == 0 else None,
                external_lookup={"progress": self._progress},
                print_callback=self._print,
            )
            if self._too_much:
                raise SandboxOutputExceeded(self._too_much)
        return value

    def _monty_limits(self) -> Any:
        limits = self.limits
        return {
            "max_feed_duration_secs": limits.seconds,
            "max_memory": limits.memory_bytes,
            "max_recursion_depth": limits.recursion,
            "max_suspensions": limits.progress_events + 1000,
            "max_total_sleep_secs": limits.seconds,
        }

    def _print(self, _stream: str, text: str) -> None:
        if self._too_long(text):
            self._end(f"the tool printed more than {self.limits.output_bytes} bytes")
        else:
            self._output.append(text)

    def _progress(self, value: Any = None) -> None:
        self._events += 1
        if self._events > self.limits.progress_events:
            self._end(f"the tool reported progress more than {self.limits.progress_events} times")
        elif not isinstance(value, str | int | float | bool | None):
            raise TypeError("progress takes a text, a number, a boolean or None")
        elif isinstance(value, str) and self._too_long(value):
            self._end(f"the tool printed and reported more than {self.limits.output_bytes} bytes")
        elif self._on_progress is not None:
            self._loop.call_soon_threadsafe(self._on_progress, value)  # Monty calls from a thread of its own

    def _too_long(self, text: str) -> bool:
        self._bytes += len(text.encode(errors="replace"))
        return self._bytes > self.limits.output_bytes

    def _end(self, reason: str) -> None:
        self._too_much = self._too_much or reason
        self.kill()

    def _translate(self, error: "MontyError") -> SandboxError:
        from pydantic_monty import MontyCrashedError, MontyRuntimeError, MontySyntaxError

        if self._too_much:
            return SandboxOutputExceeded(self._too_much)
        if isinstance(error, MontyCrashedError):
            if error.timed_out:
                return SandboxTimeout(f"the tool ran longer than {self.limits.seconds} seconds")
            return SandboxCrashed("the interpreter's process died")
        if not isinstance(error, MontyRuntimeError | MontySyntaxError):
            return SandboxCrashed(f"the interpreter gave no answer: {type(error).__name__}")
        name, _, message = error.display("type-msg").partition(": ")
        if name == "TimeoutError" and _TIME.match(message):
            return SandboxTimeout(f"the tool ran longer than {self.limits.seconds} seconds")
        if name == "MemoryError" and message.startswith(_MEMORY):
            return SandboxMemoryExceeded(f"the tool needs more than {self.limits.memory_bytes} bytes of memory")
        frames = [frame for frame in error.traceback() if frame.line <= self._source_lines][-10:]
        self.line = frames[-1].line if frames else None
        if isinstance(error, MontySyntaxError) or (frames and frames[-1].function_name is None):
            return SandboxRefused(message.removeprefix("The monty syntax parser ") or name, self.line)
        trace = "\n".join(f"tool.py:{frame.line} in {frame.function_name}" for frame in frames)
        return SandboxToolError(name, message[:4000], trace)


def _signature(source: str, entrypoint: str | None) -> Signature:
    try:
        return read_signature(source, entrypoint)
    except SourceError as error:
        raise SandboxRefused(error.reason, error.line) from None
