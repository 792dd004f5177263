"""The program inside the separate process: reads one job, confines itself, runs the tool, writes frames of JSON lines.

`process.py` starts it as `python -I -S -B child.py`; standard library only. Nothing it writes is trusted by its parent.
"""

import asyncio
import contextlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

_encode = json.JSONEncoder().encode  # bound before the tool can replace what `json` offers


def main() -> None:
    """Do the one job on standard input. Nothing follows it: no handler the tool left behind, no trace of this file."""
    try:
        _work()
    finally:
        os._exit(0)


def _work() -> None:
    job = json.load(sys.stdin.buffer)
    answers = os.dup(1)
    os.dup2(2, 1)
    active = _confine(job)
    _send(answers, {"active": active})
    missing = sorted(set(job["required"]) - set(active))
    if missing:
        _send(answers, {"refused": "this machine cannot give: " + ", ".join(missing)})
    else:
        outcome = _outcome(job, answers)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        _send(answers, outcome)


def _confine(job: dict[str, Any]) -> list[str]:
    place = Path(__file__).with_name("confinement.py")
    spec = importlib.util.spec_from_file_location("confinement", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.setrecursionlimit(job["recursion"])
    return module.confine(job["folder"], memory_bytes=job["memory_bytes"], seconds=job["seconds"])


def _send(answers: int, frame: dict[str, Any]) -> None:
    data = _encode(frame).encode() + b"\n"
    while data:
        data = data[os.write(answers, data) :]


def _outcome(job: dict[str, Any], answers: int) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "tool", "progress": lambda value=None: _send(answers, {"progress": value})}
    try:
        exec(compile(job["source"], "tool.py", "exec"), scope)  # noqa: S102 - the purpose of this process
        if job["function"] is None:
            return {"loaded": True}
        value = scope[job["function"]](**job["arguments"])
        if inspect.isawaitable(value):
            value = asyncio.run(_awaited(value))
        return {"value": _encode(value)}
    except MemoryError:
        return {"memory": True}
    except BaseException as error:  # noqa: BLE001 - whatever the tool raises, SystemExit too, is its answer
        return _failure(error)


async def _awaited(value: Any) -> Any:
    return await value


def _failure(error: BaseException) -> dict[str, Any]:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tool.py"][-10:]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    try:
        message = str(error)[:4000]
    except BaseException:  # noqa: BLE001 - the message comes from the tool's own code
        message = "(its message cannot be read)"
    trace = "\n".join(f"tool.py:{frame.lineno} in {frame.name}" for frame in frames)
    return {"error": type(error).__name__, "message": message, "trace": trace, "line": line}


main()
