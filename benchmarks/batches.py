"""Batches with the scripted model: items a second, memory of the server, and the same while it is killed now and then.

    python benchmarks/batches.py [items] [items while being killed] [a Python that has LangGraph]

The scripted model answers at once, so the figures are what the platform adds: reading the file, asking, checking the
answer against its schema, recording the call, writing the row. Every row is on disk before it counts. With a third
argument `batches_langgraph.py` runs beside it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agentflow import AgentFlow
from agentflow.errors import TransportError
from agentflow.types.batches import Batch

COMMAND = Path(sys.executable).with_name("agentflow")
CATEGORIES = ["refund", "crash", "praise"]


class Server:
    """`agentflow serve` on one folder; started again on the same port."""

    def __init__(self, data: Path, port: str = "0") -> None:
        self.data = data
        self.port = port
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = [str(COMMAND), "serve", "--data", str(self.data), "--port", self.port, "--log-level", "error"]
        environ = {**os.environ, "DEV_AUTH_BYPASS": "true"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        assert self.process.stdout is not None
        self.endpoint = next(word for word in self.process.stdout.readline().split() if word.startswith("http"))
        self.port = self.endpoint.rsplit(":", 1)[1]

    def stop(self, sig: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(sig)
        self.process.wait(30)

    def cpu(self) -> float:
        """Seconds of CPU it has used (Linux)."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MiB in memory (Linux)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def items(count: int) -> Iterator[dict[str, object]]:
    for number in range(count):
        yield {
            "content": f"{CATEGORIES[number % 3]}: this is ticket {number} " + "word " * 20,
            "metadata": {"n": number},
        }


def whole(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        with AgentFlow(endpoint=server.endpoint) as client:
            idle, cpu = server.memory(), server.cpu()
            began = time.perf_counter()
            batch = client.batches.submit(operation="label", items=items(count), categories=CATEGORIES)
            sent = time.perf_counter() - began
            memory: list[tuple[float, float]] = []
            batch = client.batches.wait(
                batch.id, on_progress=lambda now: memory.append((now.progress, server.memory()))
            )
            took = time.perf_counter() - began
            assert (batch.status, batch.succeeded) == ("completed", count)
            working = [size for progress, size in memory if progress > 0]
            early = [size for progress, size in memory if 0.05 < progress < 0.3]
            late = [size for progress, size in memory if progress > 0.8]
            cpu = server.cpu() - cpu
            print(
                f"{count} items: {took:.1f} s, {count / took:.0f} items/s (upload {sent:.1f} s);"
                f" CPU of the server {cpu:.1f} s, {cpu / count * 1000:.2f} ms an item"
            )
            print(
                f"memory: idle {idle:.0f} MiB, at most {max(working):.0f} MiB;"
                f" 5-30 %: {max(early or working):.0f} MiB, from 80 %: {max(late or working):.0f} MiB"
            )
            began = time.perf_counter()
            client.batches.download_output(batch.id, Path(folder) / "rows.jsonl")
            size = (Path(folder) / "rows.jsonl").stat().st_size
            print(f"output: {size / 1e6:.1f} MB in {time.perf_counter() - began:.1f} s, then {server.memory():.0f} MiB")
        server.stop(signal.SIGTERM)


def killed(count: int, every: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        kills = 0
        with AgentFlow(endpoint=server.endpoint) as client:
            batch = client.batches.submit(operation="label", items=items(count), categories=CATEGORIES)
            began = time.perf_counter()
            while True:
                until = time.perf_counter() + every
                while time.perf_counter() < until and not batch.done:
                    time.sleep(0.05)
                    batch = _look(client, batch)
                if batch.done:
                    break
                server.stop()
                kills += 1
                server.start()
                after = client.batches.retrieve(batch.id)
                assert after.processed >= batch.processed, "rows were lost"
            took = time.perf_counter() - began
            rows = [row.index for row in client.batches.iter_output(batch.id)]
            assert rows == list(range(count))
            asked = client.usage.calls("7d", run_id=batch.id, limit=1).total
            print(
                f"{count} items, killed {kills} times, every {every:g} s: {took:.1f} s, {count / took:.0f} items/s;"
                f" {len(rows)} rows, none lost or doubled; {asked - count} calls made again"
            )
        server.stop(signal.SIGTERM)


def beside(count: int, python: str) -> None:
    """The same items through LangGraph."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "items.jsonl"
        source.write_text("".join(json.dumps(item) + "\n" for item in items(count)))
        subprocess.run([python, Path(__file__).with_name("batches_langgraph.py"), source, folder], check=True)


def _look(client: AgentFlow, batch: Batch) -> Batch:
    try:
        return client.batches.retrieve(batch.id)
    except TransportError:
        return batch


if __name__ == "__main__":
    amount = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    whole(amount)
    if len(sys.argv) > 3:
        beside(amount, sys.argv[3])
    killed(int(sys.argv[2]) if len(sys.argv) > 2 else 20_000, 3.0)
