"""Many streams at once: what a stream costs, and how late its text comes, from one stream to a thousand.

    python benchmarks/load.py                          the curve of our server
    python benchmarks/load.py --postgres               on PostgreSQL, whose processes are counted too
    python benchmarks/load.py --soak 1800              the same number of streams for half an hour: does memory stay?
    python benchmarks/load.py --kit DIR agno …         peers too, by the adapters of the platform bench
                                                       (with its Python, and AGENTFLOW_COMMAND in the environment)

The model is a process of its own that writes a token to every stream every 20 ms, with the time at which it wrote it
(the clock of the machine, so that it can be compared); the client reads raw bytes and looks for those times. "direct"
is the client at the model with nothing in between.
"""

import argparse
import asyncio
import base64
import importlib
import json
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import psutil
import uvloop

RATE = 50
MODEL_PORT = int(os.environ.get("LLM_PORT", "18000"))
TOKEN = re.compile(rb"@(\d+):(\d+); ")
ASKED = re.compile(rb"\[\[n=(\d+) d=(\d+)")


def micros() -> int:
    return time.monotonic_ns() // 1000


# The model


class Model(asyncio.Protocol):
    """Answers every request with a stream of `n` tokens, one each `d` milliseconds, as its newest message asks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        self._request += data
        head, separator, body = self._request.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if not separator or len(body) < int(length[1] if length else 0):
            return
        self._request = b""
        count, delay = ASKED.findall(body)[-1]
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._left, self._number, self._delay = int(count), 0, int(delay) / 1000
        self._due = asyncio.get_running_loop().time()
        self._tick()

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        if self._left == 0:
            end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
            self._transport.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(end), end))
            return
        frame = b'data: {"choices": [{"delta": {"content": "@%d:%d; "}}]}\n\n' % (self._number, micros())
        self._transport.write(b"%x\r\n%s\r\n" % (len(frame), frame))
        self._left, self._number, self._due = self._left - 1, self._number + 1, self._due + self._delay
        asyncio.get_running_loop().call_at(self._due, self._tick)


async def serve_model() -> None:
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", MODEL_PORT, backlog=2048)
    await server.serve_forever()


# The client


class Request(NamedTuple):
    port: int
    path: str
    headers: dict[str, str]
    body: bytes


class Stream(asyncio.Protocol):
    """One stream: when its tokens came."""

    def __init__(self, request: Request) -> None:
        lines = [f"POST {request.path} HTTP/1.1", f"Host: 127.0.0.1:{request.port}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        self._head = "\r\n".join([*lines, f"Content-Length: {len(request.body)}", "", ""]).encode() + request.body
        self._began = 0
        self._rest = b""
        self._seen = b""
        self.done = asyncio.get_running_loop().create_future()
        self.first: int | None = None
        self.ages: list[int] = []
        self.reads: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._began = micros()
        self._transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        now = micros()
        data = self._rest + data
        if not self._seen:
            self._seen = data[:300]
        end, before = 0, len(self.ages)
        for match in TOKEN.finditer(data):
            if int(match[1]) == len(self.ages):  # the last event has the whole text again
                self.ages.append(now - int(match[2]))
            end = match.end()
        if len(self.ages) > before:
            self.reads.append(now)
            self.first = self.first or now - self._began
        self._rest = data[max(end, len(data) - 64) :]
        if self._rest.endswith(b"0\r\n\r\n"):
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.abort()
        if not self.done.done():
            self.done.set_result(None)

    def failure(self, tokens: int) -> str | None:
        if not self._seen.startswith(b"HTTP/1.1 2"):
            return self._seen[:200].decode(errors="replace") or "no answer"
        return None if len(self.ages) == tokens else f"{len(self.ages)} of {tokens} tokens"


# Who is measured


@dataclass
class Target:
    """A server under load. `processes` are those whose CPU and memory are counted, `folder` is what it fills."""

    name: str
    ask: Callable[[str], Request]
    processes: Sequence[int] = ()
    folder: Path | None = None

    def tree(self) -> Iterator[psutil.Process]:
        for pid in self.processes:
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)

    def cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.tree())

    def memory(self) -> float:
        """MiB: proportional set size."""
        return sum(process.memory_full_info().pss for process in self.tree()) / 2**20

    def disk(self) -> float:
        """MiB that its files take."""
        files = self.folder.rglob("*") if self.folder else ()
        return sum(file.stat().st_blocks for file in files if file.is_file()) * 512 / 2**20


def direct() -> Target:
    def ask(text: str) -> Request:
        body = json.dumps({"stream": True, "messages": [{"role": "user", "content": text}]}).encode()
        return Request(MODEL_PORT, "/v1/chat/completions", {"content-type": "application/json"}, body)

    return Target("direct", ask)


@contextmanager
def on_postgres() -> Generator[Target]:
    """Our server on a PostgreSQL of its own, with its defaults for safety; the database counts too."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.postgres import running_postgres

    key = "k1:" + base64.b64encode(os.urandom(32)).decode()
    with (
        running_postgres(durable=True) as database,
        ours(AGENTFLOW_DATABASE_URL=database.migrated(), AGENTFLOW_SECRET_KEYS=key) as target,
    ):
        processes = [*target.processes, database.pid]
        yield Target("agentflow on PostgreSQL", target.ask, processes, database.folder)


@contextmanager
def ours(**settings: str) -> Generator[Target]:
    """Our server on a fresh folder, every event on disk (`synchronous=FULL`) before it is read."""
    environ = {
        **os.environ, "DEV_AUTH_BYPASS": "true", "OPENAI_API_KEY": "x", "AGENTFLOW_DEFAULT_MODEL": "openai/fake",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{MODEL_PORT}/v1", "AGENTFLOW_MODEL_CONCURRENCY": "1000",
        **settings,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        agentflow = os.environ.get("AGENTFLOW_COMMAND", str(Path(sys.executable).with_name("agentflow")))
        command = [agentflow, "serve", "--data", folder, "--port", "0"]
        server = subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True, env=environ)
        try:
            assert server.stdout is not None
            endpoint = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            with urllib.request.urlopen(f"{endpoint}/api/v1/agents", timeout=30) as answer:
                agent = json.load(answer)["agents"][0]["id"]
            without_tools = urllib.request.Request(  # as the peers' agents
                f"{endpoint}/api/v1/agent/{agent}", b'{"tools": []}', {"content-type": "application/json"},
                method="PATCH",
            )  # fmt: skip
            urllib.request.urlopen(without_tools, timeout=30).close()
            port = int(endpoint.rsplit(":", 1)[1])

            def ask(text: str) -> Request:
                ids = {"conversation_id": str(uuid.uuid4()), "message_id": str(uuid.uuid4())}
                body = json.dumps({"message": text, "stream": True, **ids}).encode()
                return Request(port, f"/api/v1/agent/{agent}/chat", {"content-type": "application/json"}, body)

            yield Target("agentflow", ask, [server.pid], Path(folder))
        finally:
            server.terminate()
            server.wait(60)


@contextmanager
def started(argv: Sequence[str], port: int, **options: Any) -> Generator[int]:
    """A process that listens; its pid."""
    process = subprocess.Popen(argv, **options)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(url: str) -> None:
    """Until it answers."""
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)


@asynccontextmanager
async def peer(name: str) -> AsyncGenerator[Target]:
    """A server of the platform bench, as its adapter starts it."""
    adapter = importlib.import_module(f"adapters.{name}").ADAPTER()
    adapter.prepare()
    argv, environ = adapter.command()
    with started(argv, adapter.port, env={**os.environ, **(environ or {})}, cwd=adapter.dir) as pid:
        wait_for(f"http://127.0.0.1:{adapter.port}{adapter.health}")
        client = importlib.import_module("http1").Client(adapter.port)
        await adapter.setup(client)
        conversations = iter([await adapter.conversation(client) for _ in range(4000)])

        def ask(text: str) -> Request:
            method, path, body, headers = adapter.stream(next(conversations), text)
            assert method == "POST"
            if isinstance(body, dict):
                body = json.dumps(body)
            return Request(adapter.port, path, {"content-type": "application/json", **(headers or {})}, body.encode())

        yield Target(name, ask, [pid, *adapter.aux_pids()])


# What is measured


@dataclass
class Seen:
    """What the streams of one level saw, in microseconds."""

    firsts: list[int] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    reads: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, stream: Stream, tokens: int) -> None:
        if (failure := stream.failure(tokens)) is not None:
            self.failures.append(failure)
        if stream.first is not None:
            self.firsts.append(stream.first)
        self.ages += stream.ages
        self.reads += len(stream.reads)
        self.gaps += [after - before for before, after in zip(stream.reads, stream.reads[1:], strict=False)]


async def one_stream(target: Target, tokens: int, seen: Seen) -> None:
    stream = Stream(target.ask(f"[[n={tokens} d={1000 // RATE} f=0 ts=1]]"))
    try:
        await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", target.ask("").port)
        await stream.done
    finally:
        seen.add(stream, tokens)


def at(values: Sequence[float], share: float) -> float:
    """A quantile, in milliseconds."""
    if len(values) < 2:
        return values[0] / 1000 if values else math.nan
    return statistics.quantiles(values, n=1000)[round(share * 1000) - 1] / 1000


async def level(target: Target, streams: int, seconds: float) -> None:
    """Open so many streams, spread over the first second, and let each run for so long."""
    seen, tokens = Seen(), round(RATE * seconds)
    idle, peak, cpu, began = target.memory(), 0.0, target.cpu(), time.monotonic()

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, target.memory())
            await asyncio.sleep(0.5)

    async def late(number: int) -> None:
        await asyncio.sleep(number / streams)
        await one_stream(target, tokens, seen)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(late(number) for number in range(streams)))
    watching.cancel()
    wall, cpu = time.monotonic() - began, target.cpu() - cpu
    count = max(1, len(seen.ages))
    cells = [
        target.name, streams, f"{count / wall:,.0f}", f"{at(seen.firsts, 0.5):.1f}", f"{at(seen.firsts, 0.99):.1f}",
        f"{at(seen.ages, 0.5):.1f}", f"{at(seen.ages, 0.99):.1f}", f"{at(seen.gaps, 0.5):.1f}",
        f"{at(seen.gaps, 0.99):.1f}", f"{cpu / count * 1e6:.0f}", f"{cpu / wall:.2f}",
        f"{count / max(1, seen.reads):.1f}",
        f"{max(0, peak - idle) * 1024 / streams:.0f}", f"{wall - 1 - seconds:+.1f}", len(seen.failures),
    ]  # fmt: skip
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    for failure in set(seen.failures):
        print(f"  {failure}", file=sys.stderr)


HEADER = """\
| | streams | tokens/s | first token p50 ms | p99 | age of a token p50 ms | p99 | gap p50 ms | p99 \
| CPU/token µs | cores | tokens a read | KiB a stream | late s | failed |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


async def curve(target: Target, levels: Sequence[int], seconds: float) -> None:
    await level(Target(target.name, target.ask, target.processes), 1, 1)
    for streams in levels:
        await level(target, streams, seconds)


async def soak(target: Target, streams: int, seconds: float) -> None:
    """Runs of ten seconds, so many at a time, for so long; memory and files each minute."""
    print(
        "| minute | runs | failed | MiB (PSS) | MiB on disk | open files | age of a token p50 ms | p99 | CPU/token µs |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    end, runs = time.monotonic() + seconds, 0
    seen, cpu = Seen(), target.cpu()

    async def keep_going(number: int) -> None:
        nonlocal runs
        await asyncio.sleep(10 * number / streams)
        while time.monotonic() < end:
            await one_stream(target, 10 * RATE, seen)
            runs += 1

    going = asyncio.gather(*(keep_going(number) for number in range(streams)))
    minute = 0
    while not going.done():
        await asyncio.wait((going,), timeout=60)
        minute += 1
        used, files = target.cpu() - cpu, sum(process.num_fds() for process in target.tree())
        lateness = f"{at(seen.ages, 0.5):.1f} | {at(seen.ages, 0.99):.1f} | {used / len(seen.ages) * 1e6:.0f}"
        size = f"{target.memory():.1f} | {target.disk():.0f}"
        print(f"| {minute} | {runs} | {len(seen.failures)} | {size} | {files} | {lateness} |", flush=True)
        seen.ages.clear()
        seen.gaps.clear()
        seen.firsts.clear()
        cpu = target.cpu()
    await going


async def measure(args: argparse.Namespace) -> None:
    levels = [int(number) for number in args.streams.split(",")]
    with started([sys.executable, __file__, "--model"], MODEL_PORT):
        server = on_postgres if args.postgres else ours
        if args.soak:
            with server() as target:
                await soak(target, levels[-1], args.soak)
            return
        print(HEADER, flush=True)
        await curve(direct(), levels, args.seconds)
        with server() as target:
            await curve(target, levels, args.seconds)
        for name in args.peers:
            async with peer(name) as target:
                await curve(target, levels, args.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--streams", default="1,10,32,100,300,1000", help="how many at once, one level after another")
    parser.add_argument("--seconds", type=float, default=10, help="how long each stream runs")
    parser.add_argument(
        "--soak", type=float, default=0, metavar="SECONDS", help="keep the last level going for so long"
    )
    parser.add_argument("--postgres", action="store_true", help="our server on PostgreSQL")
    parser.add_argument("--kit", type=Path, help="the folder of the platform bench")
    parser.add_argument("--model", action="store_true", help="be the model")
    parser.add_argument("peers", nargs="*", help="names of the platform bench's adapters")
    args = parser.parse_args()
    if args.kit:
        sys.path.insert(0, str(args.kit))
    uvloop.run(serve_model() if args.model else measure(args))


if __name__ == "__main__":
    main()
