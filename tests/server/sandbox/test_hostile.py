"""Hostile tools against both sandboxes: each is contained, answered with its error, and the next run works."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from agentflow_server.sandbox import (
    Limits,
    MontySandbox,
    ProcessSandbox,
    SandboxCrashed,
    SandboxError,
    SandboxMemoryExceeded,
    SandboxOutputExceeded,
    SandboxRefused,
    SandboxTimeout,
    SandboxToolError,
)

pytestmark = pytest.mark.anyio

LIMITS = Limits(seconds=1.5, memory_bytes=48 * 1024 * 1024, output_bytes=50_000, progress_events=50)
TOOL, TIME, MEMORY = SandboxToolError, SandboxTimeout, SandboxMemoryExceeded
OUTPUT, CRASH, REFUSED = SandboxOutputExceeded, SandboxCrashed, SandboxRefused
Kinds = tuple[type[SandboxError], ...]


def body(*lines: str) -> str:
    return "def tool():\n" + "\n".join("    " + line for line in lines) + "\n"


# name: (source, how Monty may answer, how the process may answer)
HOSTILE: dict[str, tuple[str, Kinds, Kinds]] = {
    "infinite loop": (body("while True: pass"), (TIME,), (TIME,)),
    "loop that catches all": (
        body("while True:", "    try:", "        while True: pass", "    except BaseException: pass"), (TIME,), (TIME,),
    ),
    "fork bomb": (body("import os", "while True: os.fork()"), (TOOL, REFUSED), (TOOL,)),
    "memory bomb": (body("x = []", "while True: x.append(bytes(1000000))"), (MEMORY,), (MEMORY,)),
    "string multiplication": (body("return 'a' * 10**12"), (MEMORY,), (MEMORY,)),
    "power": (body("return 10 ** 10 ** 10"), (MEMORY,), (MEMORY, TIME)),
    "huge output": (body("while True: print('x' * 1000)"), (OUTPUT,), (OUTPUT,)),
    "huge return": (body("return 'x' * 100000"), (OUTPUT,), (OUTPUT,)),
    "shared references": (body("a = [1] * 1000", "b = [a] * 1000", "return [b] * 1000"), (MEMORY,), (MEMORY, TIME)),
    "progress flood": (body("while True: progress(1)"), (OUTPUT,), (OUTPUT,)),
    "deep recursion": (body("return tool()"), (TOOL,), (TOOL,)),
    "nested result": (body("x = []", "for i in range(100000): x = [x]", "return x"), (TOOL,), (TOOL,)),
    "circular result": (body("x = []", "x.append(x)", "return x"), (TOOL,), (TOOL,)),
    "function as result": (body("return tool"), (TOOL,), (TOOL,)),
    "not a number": (body("return float('nan')"), (TOOL,), (TOOL,)),
    "file read": (body("return open('/etc/passwd').read()"), (TOOL,), (TOOL,)),
    "own process files": (body("return open('/proc/self/environ').read()"), (TOOL,), (TOOL,)),
    "file write": (body("open('/tmp/agentflow-escape', 'w').write('x')"), (TOOL,), (TOOL,)),
    "socket": (body("import socket", "socket.socket()"), (TOOL, REFUSED), (TOOL,)),
    "subprocess": (body("import subprocess", "subprocess.run(['true'])"), (TOOL, REFUSED), (TOOL,)),
    "shell": (body("import os", "os.execv('/bin/true', ['true'])"), (TOOL,), (TOOL,)),
    "kill the parent": (body("import os", "os.kill(os.getppid(), 9)"), (TOOL,), (TOOL,)),
    "native code": (body("import ctypes", "ctypes.string_at(0)"), (TOOL, REFUSED), (TOOL, CRASH)),
    "sys.exit": (body("import sys", "sys.exit(0)"), (TOOL,), (TOOL,)),
    "os._exit": (body("import os", "os._exit(0)"), (TOOL,), (CRASH,)),
    "closing descriptors": (body("import os", "os.closerange(0, 100)", "return 1"), (TOOL,), (CRASH,)),
    "writing to the answers": (
        body("import os", "for fd in range(3, 10):", "    try: os.write(fd, b'[]\\n')", "    except OSError: pass"),
        (TOOL,), (CRASH,),
    ),
    "raised limits": (
        body("import resource", "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))"), (TOOL, REFUSED), (TOOL,),
    ),
    "hostile message": (
        "class E(Exception):\n    def __str__(self): raise SystemExit\ndef tool(): raise E()\n", (REFUSED,), (TOOL,),
    ),
    "catastrophic regex": (
        body("import re", "return re.match('(a|aa)+$', 'a' * 60 + 'b').end()"), (TOOL, TIME), (TIME,),
    ),
    "import by hand": (body("assert __import__('os').system('true') == 0"), (TOOL,), (TOOL,)),
    "syntax error": ("def tool(:\n", (REFUSED,), (REFUSED,)),
    "parser bomb": ("x = " + "-" * 50_000 + "1\n" + body("return x"), (REFUSED,), (REFUSED,)),
    "null byte": (body("return 1") + "\0", (REFUSED,), (REFUSED,)),
}  # fmt: skip

# Ways to climb out of an interpreter that hides things in Python objects: Monty has none of them.
INTROSPECTION = {
    "subclasses": "return ().__class__.__base__.__subclasses__()",
    "globals": "return tool.__globals__",
    "code": "return tool.__code__",
    "builtins": "return __builtins__",
    "format string": "return '{0.__class__.__mro__}'.format(1)",
    "frame": "return (x for x in [1]).gi_frame.f_back",
    "traceback frame": "try: 1/0\n    except Exception as e: return e.__traceback__.tb_frame",
    "getattr": "return getattr(tool, '__glo' + 'bals__')",
    "unicode name": "return tool.__ｇｌｏｂａｌｓ__",
    "environment": "import os\n    return dict(os.environ)",
    "patched json": "import json\n    json.dumps = lambda x: '1'",
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def monty() -> AsyncIterator[MontySandbox]:
    sandbox = MontySandbox(2)
    yield sandbox
    await sandbox.aclose()


@pytest.fixture
async def process() -> ProcessSandbox:
    sandbox = ProcessSandbox()
    missing = {"landlock", "seccomp", "no_new_privileges"} - await sandbox.capabilities()
    if missing:
        pytest.skip(f"this kernel has no {missing}")
    return sandbox


async def contained(sandbox: MontySandbox | ProcessSandbox, source: str, kinds: Kinds) -> None:
    with pytest.raises(kinds) as caught:
        await sandbox.run(source, "tool", {}, limits=LIMITS)
    assert str(caught.value)
    result = await sandbox.run("def tool(x): return x + 1", None, {"x": 1}, limits=LIMITS)
    assert result.value == 2


@pytest.mark.parametrize("name", HOSTILE)
async def test_monty_contains(monty: MontySandbox, name: str) -> None:
    source, kinds, _ = HOSTILE[name]
    await contained(monty, source, kinds)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
async def test_the_process_contains(process: ProcessSandbox, name: str) -> None:
    source, _, kinds = HOSTILE[name]
    await contained(process, source, kinds)


@pytest.mark.parametrize("name", INTROSPECTION)
async def test_monty_has_nothing_to_climb(monty: MontySandbox, name: str) -> None:
    await contained(monty, body(INTROSPECTION[name]), (TOOL, REFUSED))


async def test_the_process_has_a_clean_environment(process: ProcessSandbox) -> None:
    source = body(
        "import os, sys", "return [sorted(os.environ), os.listdir('.'), any('site-packages' in p for p in sys.path)]"
    )
    names, files, packages = (await process.run(source, None, {}, limits=LIMITS)).value
    assert set(names) <= {"HOME", "TMPDIR", "LC_CTYPE"}
    assert (files, packages) == ([], False)


async def test_a_patched_json_changes_nothing_in_the_process(process: ProcessSandbox) -> None:
    source = body(
        "import json, sys", "json.dumps = json.loads = lambda *a, **k: 'forged'", "sys.stdout = None", "return {'a': 1}"
    )
    result = await process.run(source, None, {}, limits=LIMITS)
    assert (result.value, result.stdout) == ({"a": 1}, "")


async def test_full_python_runs_in_the_process(process: ProcessSandbox) -> None:
    source = """
import asyncio, dataclasses, threading
class Tool(dict): pass
async def tool(n):
    await asyncio.sleep(0)
    worker = threading.Thread(target=print, args=("from a thread",))
    worker.start(); worker.join()
    return Tool(n=n)
"""
    result = await process.run(source, None, {"n": 3}, limits=LIMITS)
    assert (result.value, result.stdout) == ({"n": 3}, "from a thread\n")


@pytest.mark.parametrize("mode", ["monty", "process"])
async def test_results_prints_and_progress(mode: str, monty: MontySandbox, process: ProcessSandbox) -> None:
    sandbox = monty if mode == "monty" else process
    seen: list[Any] = []
    source = "async def tool(a, b=2):\n    print('hi')\n    progress(a)\n    return {'sum': a + b}\n"
    result = await sandbox.run(source, None, {"a": 1}, limits=LIMITS, on_progress=seen.append)
    assert (result.value, result.stdout, seen) == ({"sum": 3}, "hi\n", [1])


@pytest.mark.parametrize("mode", ["monty", "process"])
async def test_an_error_names_the_tools_line(mode: str, monty: MontySandbox, process: ProcessSandbox) -> None:
    sandbox = monty if mode == "monty" else process
    with pytest.raises(SandboxToolError) as caught:
        await sandbox.run(body("x = 1", "raise KeyError('gone')"), None, {}, limits=LIMITS)
    assert caught.value.type_name == "KeyError"
    assert caught.value.trace.endswith("tool.py:3 in tool")


@pytest.mark.parametrize("mode", ["monty", "process"])
async def test_cancelling_ends_the_work(mode: str, monty: MontySandbox, process: ProcessSandbox) -> None:
    sandbox = monty if mode == "monty" else process
    started = asyncio.Event()
    source = body("progress(0)", "while True: pass")
    running = asyncio.ensure_future(
        sandbox.run(source, None, {}, limits=Limits(seconds=60), on_progress=lambda _: started.set())
    )
    await asyncio.wait_for(started.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
    assert (await sandbox.run(body("return 1"), None, {}, limits=LIMITS)).value == 1


async def test_check_says_why_and_where(monty: MontySandbox) -> None:
    for source, line in [
        (body("import numpy"), 2),
        ("class A(Exception): pass\n" + body("return 1"), 1),
        ("x = 1\nx = 1 / 0\n" + body("return 1"), 2),
        ("def tool(*args): pass", 1),
        ("from . import x\n" + body("return 1"), 1),
    ]:
        with pytest.raises(SandboxRefused) as caught:
            await monty.check(source)
        assert caught.value.line == line, source


async def test_check_describes_the_function(monty: MontySandbox) -> None:
    source = '''
from typing import Literal
def search(query: str, limit: int = 5, kind: Literal["web", "news"] | None = None, tags: list[str] = []):
    """Search the index.

    Args:
        query: What to look for.
        limit (int): Most results.
    """
    return query
'''
    signature = await monty.check(source)
    assert (signature.name, signature.description) == ("search", "Search the index.")
    assert signature.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["query"],
        "properties": {
            "query": {"type": "string", "description": "What to look for."},
            "limit": {"type": "integer", "description": "Most results.", "default": 5},
            "kind": {"anyOf": [{"enum": ["web", "news"]}, {"type": "null"}], "default": None},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        },
    }


async def test_without_what_is_required_nothing_runs() -> None:
    sandbox = ProcessSandbox(required=frozenset({"a measure no kernel has"}))
    with pytest.raises(SandboxRefused, match="a measure no kernel has"):
        await sandbox.run(body("return 1"), None, {}, limits=LIMITS)


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_the_process_holds_as_root(process: ProcessSandbox) -> None:
    assert {"no_capabilities", "landlock", "seccomp"} <= await process.capabilities()
    with pytest.raises(SandboxToolError, match="PermissionError"):
        await process.run(body("import os", "os.setuid(0)", "os.chroot('/')"), None, {}, limits=LIMITS)
