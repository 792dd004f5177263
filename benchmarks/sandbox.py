"""Milliseconds per run of the two sandboxes, warm: `python benchmarks/sandbox.py`."""

import asyncio
import statistics
import time

from agentflow_server.sandbox import Limits, MontySandbox, ProcessSandbox, Sandbox

SOURCE = "def tool(a, b):\n    return {'sum': a + b}\n"


async def measure(name: str, sandbox: Sandbox, runs: int) -> None:
    times: list[float] = []
    for index in range(runs + 1):
        started = time.perf_counter()
        await sandbox.run(SOURCE, None, {"a": index, "b": 1}, limits=Limits())
        times.append((time.perf_counter() - started) * 1000)
    warm = sorted(times[1:])
    print(
        f"{name}: first {times[0]:.1f} ms, median {statistics.median(warm):.2f} ms, p95 {warm[int(runs * 0.95)]:.2f} ms"
    )
    await sandbox.aclose()


async def main() -> None:
    await measure("monty", MontySandbox(), 500)
    await measure("process", ProcessSandbox(), 30)


asyncio.run(main())
