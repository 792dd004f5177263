"""The rules of the house that no linter knows: rooms, sizes, names, what may not be committed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "packages/agentflow/src/agentflow"
SERVER = ROOT / "packages/agentflow-server/src/agentflow_server"

ROOMS = {
    "agents", "tools", "subagents", "knowledge_bases", "prompt_blocks", "conversations", "memory", "completions",
    "cached_results", "approvals", "questions", "artifacts", "batches", "attachments", "background", "cancellations",
    "models", "system", "usage", "runs",
}  # fmt: skip
BUILT = {
    "attachments",
    "batches",
    "completions",
    "agents",
    "approvals",
    "artifacts",
    "background",
    "cached_results",
    "cancellations",
    "conversations",
    "knowledge_bases",
    "memory",
    "models",
    "prompt_blocks",
    "questions",
    "runs",
    "subagents",
    "system",
    "tools",
    "usage",
}
SHARED = {"base", "downloads", "pages", "streams"}
CLI_ONLY = {
    "chat", "completion", "items", "login", "main", "output", "profiles", "progress", "streaming", "version",
}  # fmt: skip
BROAD = {
    "packages/agentflow/src/agentflow/cli/main.py",
    "packages/agentflow-server/src/agentflow_server/runtime/runner.py",
}
FORBIDDEN_NAMES = re.compile(r"(utils?|helpers?|common|misc|manager|.*_v\d+)(\.py)?$")


def sources() -> list[Path]:
    return [path for folder in (SDK, SERVER) for path in folder.rglob("*.py")]


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {
        "__init__"
    }


def test_a_room_has_one_name_everywhere() -> None:
    assert BUILT <= ROOMS
    assert names(SDK / "types") - SHARED == BUILT
    assert names(SDK / "resources") - SHARED == BUILT
    assert names(SDK / "_sync") - SHARED == BUILT
    assert names(SERVER / "resources") == BUILT
    assert names(SDK / "cli") - CLI_ONLY == BUILT
    pages = {path.stem for path in (ROOT / "docs/resources").glob("*.md")}
    assert pages >= BUILT, f"without a page: {BUILT - pages}"
    assert pages <= ROOMS | {"events", "errors"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT / "packages")))
def test_a_file_keeps_the_rules(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    generated = "_sync" in path.parts
    assert ast.get_docstring(tree), "a file opens with what it is for"
    assert not FORBIDDEN_NAMES.match(path.name), "the name says nothing"
    assert generated or len(text.splitlines()) <= 600, "longer than 600 lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert "router" in node.name or (node.end_lineno or 0) - node.lineno < 75, f"{node.name} is too long"
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception":
            assert str(path.relative_to(ROOT)) in BROAD, "catches everything"
    if path.name == "__init__.py" and path != SDK / "__init__.py":
        kinds = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign)
        assert all(isinstance(node, kinds) for node in tree.body) or path.parent.name == "migrations"


def test_a_store_is_asked_by_its_own_room_only() -> None:
    graph = grimp.build_graph("agentflow_server", cache_dir=None)
    for room in names(SERVER / "resources"):
        store = f"agentflow_server.resources.{room}.store"
        if store in graph.modules:
            users = graph.find_modules_that_directly_import(store)
            strangers = {user for user in users if not user.startswith(f"agentflow_server.resources.{room}.")}
            assert not strangers


def test_the_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_synchronous_half_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "tools/sync_generator.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def committed() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.fail("git is needed to see what is committed: install it with scripts/install-system-packages.sh")
    return listed.stdout.splitlines()


def test_nothing_of_one_machine_is_committed() -> None:
    files = committed()
    assert not [name for name in files if name.endswith(("uv.lock", ".db", ".pyc"))]
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in re.sub(r"(?m)^\s*#.*$", "", lock)
    assert "--hash=sha256:" in lock
    home = str(Path.home())
    for name in files:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".lock", ".sh", ""} and path.is_file():
            text = path.read_text(errors="replace")
            assert f"{ROOT}/" not in text, name
            assert len(home) < 6 or f"{home}/" not in text, name


def test_the_migrations_end_where_the_server_thinks() -> None:
    from agentflow_server.storage.migrations import FOLDER, HEAD

    revisions = {path.stem.split("_", 1)[0] for path in (FOLDER / "versions").glob("*.py")}
    assert max(revisions) == HEAD


def test_importing_the_sdk_touches_nothing() -> None:
    program = """
import sys
seen = []
def hook(event, args):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen"):
        seen.append(event)
    elif event == "open" and not str(args[0]).endswith((".py", ".pyc", ".so", ".toml", ".pth")):
        if "agentflow" not in str(args[0]) and "__pycache__" not in str(args[0]):
            seen.append(args[0])
sys.addaudithook(hook)
import agentflow
agentflow.AgentFlow
agentflow.AgentFlow(endpoint="http://127.0.0.1:1")
heavy = {"httpx2", "pydantic", "ssl", "asyncio", "click", "agentflow.transport.drivers"} & set(sys.modules)
assert not heavy, heavy
assert not seen, seen
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
