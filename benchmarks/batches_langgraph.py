"""The work of `batches.py` as LangGraph does it: `abatch` of a graph of one node, 64 at a time. Run by `batches.py`.

    PYTHON batches_langgraph.py FILE.jsonl FOLDER

`PYTHON` is an environment with `langgraph` and `langgraph-checkpoint-sqlite`. The node checks no schema, counts no use
and answers at once, like the scripted model. First without a checkpointer (nothing is on disk until the caller writes
it), then with its SQLite checkpointer and `durability="sync"`, so that a row is on disk before it counts.
"""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

AT_ONCE = 64


class Row(TypedDict, total=False):
    content: str
    label: str


async def label(row: Row) -> Row:
    return {"label": row["content"].split(":", 1)[0]}


def graph() -> "StateGraph[Row]":
    made = StateGraph(Row)
    made.add_node("label", label)
    made.add_edge(START, "label")
    made.add_edge("label", END)
    return made


async def main(source: Path, folder: Path) -> None:
    rows: list[Row] = [{"content": json.loads(line)["content"]} for line in source.open()]
    compiled = graph().compile()
    began, cpu = time.perf_counter(), time.process_time()
    answers = await compiled.abatch(rows, {"max_concurrency": AT_ONCE})
    with (folder / "rows.jsonl").open("w") as out:
        out.writelines(json.dumps({"index": n, "result": answer["label"]}) + "\n" for n, answer in enumerate(answers))
    report("no checkpoints", len(rows), time.perf_counter() - began, time.process_time() - cpu)
    async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        compiled = graph().compile(checkpointer=saver)
        began, cpu = time.perf_counter(), time.process_time()
        each = [{"configurable": {"thread_id": str(n)}, "max_concurrency": AT_ONCE} for n in range(len(rows))]
        answers = await compiled.abatch(rows, each, durability="sync")
        assert all(answer["label"] for answer in answers)
        report("SQLite checkpoints", len(rows), time.perf_counter() - began, time.process_time() - cpu)


def report(what: str, count: int, took: float, cpu: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"langgraph, {what}: {count} items: {took:.1f} s, {count / took:.0f} items/s;"
        f" CPU {cpu / count * 1000:.2f} ms an item; peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
