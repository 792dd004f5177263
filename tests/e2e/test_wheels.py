"""Both wheels, built and installed into an environment of their own, work from there: the command, a backend, a run."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, agentflow, agentflow_server
from agentflow import AgentFlow
assert sys.argv[2] in agentflow.__file__ and sys.argv[2] in agentflow_server.__file__
with AgentFlow(endpoint=sys.argv[1]) as client:
    agent_id = client.agents.by_name("MainAgent").id
    print(client.agents.run(agent_id=agent_id, message="[[say from a wheel]]").text)
"""


def build(folder: Path) -> list[Path]:
    for package in ("agentflow", "agentflow-server"):
        command = [sys.executable, "-m", "build", "--quiet", "--wheel", "--no-isolation", "--outdir", str(folder)]
        subprocess.run([*command, str(ROOT / "packages" / package)], check=True, capture_output=True)
    return sorted(folder.glob("*.whl"))


def try_out(python: Path, folder: Path) -> None:
    command = python.with_name("agentflow")
    environ = {**os.environ, "DEV_AUTH_BYPASS": "true"}
    version = subprocess.run([command, "version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", version.stdout)
    assert "serve" in subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    serve = [str(command), "serve", "--data", str(folder / "data"), "--port", "0", "--log-level", "error"]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environ, cwd=folder)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found
        arguments = [str(python), "-c", PROGRAM, found.group(), str(folder)]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder)
        assert done.stdout == "from a wheel\n", done.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        assert server.stdout is not None
        server.stdout.close()


@pytest.mark.slow
def test_wheels_work_from_their_own_environment(tmp_path: Path) -> None:
    """The dependencies are those of this environment, the packages come from the wheels."""
    wheels = build(tmp_path / "dist")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *wheels]
    subprocess.run(install, check=True)
    paths = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    Path(paths.stdout.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    try_out(python, tmp_path)


@pytest.mark.long
def test_wheels_bring_their_dependencies(tmp_path: Path) -> None:
    """From the package index into an empty environment, as a user installs them."""
    wheels = build(tmp_path / "dist")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wheels], check=True)
    try_out(python, tmp_path)
