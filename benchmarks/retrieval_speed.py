"""Speed of the search index beside engines of others: writing, searching all and 1 %, recall, memory, disk.

    python benchmarks/retrieval_speed.py [--sizes 10000 100000 1000000] [--peers PYTHON] [--engines NAME …]

Prints a Markdown table a size. Every engine runs alone, in a process of its own, on the same passages
(`retrieval/corpus.py`). Without `--peers`, a Python that has the engines of `retrieval/peers.py`
(`pip install -r benchmarks/retrieval/peers.txt`), ours are measured alone. An engine that takes longer than
`--patience` seconds is given up.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "retrieval"
sys.path.insert(0, str(HERE))

from corpus import make  # noqa: E402 - found beside this file
from ours import ENGINES as OURS  # noqa: E402
from peers import ENGINES as PEERS  # noqa: E402

COLUMNS = (
    "chunks written/s", "vectors, whole", "vectors, 1 %", "recall@10, whole / 1 %", "words, whole", "words, 1 %",
    "hybrid, whole", "hybrid, 1 %", "memory MB, end / most", "disk MB",
)  # fmt: skip
HEAD = f"| | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}"


def measured(python: str, engine: str, corpus: Path, patience: float) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory(prefix="retrieval-store-") as store:
        command = [python, str(HERE / "worker.py"), engine, str(corpus), store]
        quiet = {**os.environ, "ANONYMIZED_TELEMETRY": "False", "PYTHONWARNINGS": "ignore"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience, env=quiet, check=False)
        except subprocess.TimeoutExpired:
            return f"| {engine} | given up after {patience:.0f} s |"
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"| {engine} | failed: {reason[:200]} |"
    return row(engine, json.loads(done.stdout.splitlines()[-1]))


def row(engine: str, found: dict[str, Any]) -> str:
    def times(name: str) -> str:
        return f"{found[name]['p50']:.1f} / {found[name]['p99']:.1f}" if name in found else "–"

    recall = "–"
    if "vectors whole" in found:
        recall = f"{found['vectors whole']['recall']:.3f} / {found['vectors small']['recall']:.3f}"
    searches = [times(f"{mode} {where}") for mode in ("vectors", "words", "hybrid") for where in ("whole", "small")]
    cells = [
        engine, f"{found['written']:,.0f}", *searches[:2], recall, *searches[2:],
        f"{found['memory']:,.0f} / {found['most']:,.0f}", f"{found['disk']:,.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    arguments.add_argument("--peers", help="a Python that has the engines of others")
    arguments.add_argument("--engines", nargs="+", choices=[*OURS, *PEERS], help="only these")
    arguments.add_argument("--patience", type=float, default=900)
    given = arguments.parse_args()
    chosen = given.engines or [*OURS, *(PEERS if given.peers else ())]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}")
    for size in given.sizes:
        with tempfile.TemporaryDirectory(prefix="retrieval-corpus-") as folder:
            started = time.perf_counter()
            make(Path(folder), size)
            print(
                f"\n{size:,} chunks (made in {time.perf_counter() - started:.0f} s), p50 / p99 in ms\n\n{HEAD}",
                flush=True,
            )
            for engine in chosen:
                python = sys.executable if engine in OURS else given.peers
                print(measured(python, engine, Path(folder), given.patience), flush=True)


if __name__ == "__main__":
    main()
