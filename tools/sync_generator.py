"""Makes the synchronous resources from the asynchronous ones: `agentflow/resources` → `agentflow/_sync`.

Run by `make sync`; `--check` compares and fails if they differ (CI). It works on tokens, so that comments, strings and
layout stay as they are written.
"""

import io
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "packages/agentflow/src/agentflow"
SOURCE, TARGET = ROOT / "resources", ROOT / "_sync"
HEADER = '"""Generated from agentflow/resources/{name} by tools/sync_generator.py: do not edit.\n\n'
RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "StopAsyncIteration": "StopIteration",
    "AsyncIterator": "Iterator",
    "AsyncTransport": "SyncTransport",
    "AsyncBody": "SyncBody",
    "aclose": "close",
}
DROPPED = {"async", "await"}
IMPORT = ("agentflow.resources", "agentflow._sync")


def convert(text: str, name: str) -> str:
    """The synchronous form of a module."""
    text = text.replace('"""', HEADER.format(name=name), 1)
    text = text.replace("Callable[[int], Awaitable[AsyncPage[T]]]", "Callable[[int], AsyncPage[T]]")
    text = text.replace("import AsyncIterator, Awaitable, Callable", "import Iterator, Callable")
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    lines = text.splitlines(keepends=True)
    for token in reversed(tokens):
        replacement = _replacement(token)
        if replacement is None:
            continue
        (row, start), (_, end) = token.start, token.end
        line = lines[row - 1]
        if token.string in DROPPED:
            while end < len(line) and line[end] == " ":
                end += 1
        lines[row - 1] = line[:start] + replacement + line[end:]
    return "".join(lines).replace(*IMPORT)


def _replacement(token: tokenize.TokenInfo) -> str | None:
    if token.type == tokenize.STRING and token.string.startswith('"') and "AsyncPage[" in token.string:
        return token.string.replace("AsyncPage", "Page")
    if token.type == tokenize.STRING and token.string.startswith('"Async') and token.string[1:-1].isidentifier():
        return token.string.replace("Async", "")
    if token.type != tokenize.NAME:
        return None
    if token.string in DROPPED:
        return ""
    if token.string in RENAMED:
        return RENAMED[token.string]
    if token.string.startswith("Async") and token.string != "Async":
        return token.string.removeprefix("Async")
    return None


def formatted(text: str) -> str:
    """The text as ruff would write it."""
    command = [sys.executable, "-m", "ruff", "format", "-", "--stdin-filename", "generated.py", "--isolated"]
    options = ["--line-length", "120"]
    return subprocess.run([*command, *options], input=text, capture_output=True, text=True, check=True).stdout


def main(arguments: list[str]) -> int:
    """Write the files, or compare them."""
    stale: list[str] = []
    expected = {path.name: formatted(convert(path.read_text(), path.name)) for path in sorted(SOURCE.glob("*.py"))}
    for name, text in expected.items():
        target = TARGET / name
        if not target.exists() or target.read_text() != text:
            stale.append(name)
            if "--check" not in arguments:
                TARGET.mkdir(exist_ok=True)
                target.write_text(text)
    for extra in {path.name for path in TARGET.glob("*.py")} - set(expected):
        stale.append(extra)
        if "--check" not in arguments:
            (TARGET / extra).unlink()
    if "--check" in arguments and stale:
        print(f"_sync is stale ({', '.join(stale)}): run `make sync`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
