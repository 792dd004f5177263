"""`agentflow knowledge-bases` and `agentflow agents knowledge-bases`, as people and programs use them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow_server.testing import LocalServer, local_server

COMMAND = Path(sys.executable).with_name("agentflow")
Done = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def own_server(monkeypatch: pytest.MonkeyPatch, server: LocalServer) -> None:
    monkeypatch.setenv("AGENTFLOW_ENDPOINT", server.endpoint)


def run(*arguments: str | Path, code: int = 0) -> Done:
    command = [str(COMMAND), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=os.environ)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def kb(*arguments: str | Path, code: int = 0) -> Done:
    return run("knowledge-bases", *arguments, code=code)


def told(*arguments: str | Path, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def pumps(tmp_path: Path) -> Path:
    path = tmp_path / "pumps.md"
    path.write_text("# Pumps\n\nThe pump needs oil.")
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "program.exe"
    path.write_bytes(b"MZ" + bytes(range(256)))
    return path


def test_files_in_and_passages_out_by_name(client: AgentFlow, pumps: Path, tmp_path: Path) -> None:
    made = told("knowledge-bases", "create", "Machines", pumps, "--chunk-size", "500", "--tag", "a", "--tag", "b")
    assert (made["status"], made["tags"], made["configuration"]["chunk_size"]) == ("completed", ["a", "b"], 500)
    assert made["files"][0]["name"] == "pumps.md"
    shown = kb("show", "Machines").stdout
    assert made["id"] in shown
    more = tmp_path / "cakes.txt"
    more.write_text("A cake needs eggs.")
    done = kb("upload", "Machines", more, pumps, "--metadata", '{"year": 2024}')
    assert "cakes.txt: completed, 1 passage\n" in done.stderr
    assert "pumps.md: unchanged" in done.stderr
    assert "completed, 2 of 2 files, 0 failed" in done.stderr
    names = [file["name"] for file in told("knowledge-bases", "files", "Machines")["files"]]
    assert names == ["pumps.md", "cakes.txt"]
    assert "The pump needs oil." in kb("documents", "Machines", "pumps.md").stdout
    found = told("knowledge-bases", "search", made["id"], "eggs", "--options", '{"metadata_filters": {"year": 2024}}')
    assert [one["source_file"] for one in found["documents"]] == ["cakes.txt", "pumps.md"]  # known, but now of 2024
    assert "pumps.md › Pumps" in kb("search", "Machines", "oil", "--type", "keyword").stdout
    assert "Nothing was found." in kb("search", "Machines", "submarine", "--type", "keyword").stderr
    assert told("knowledge-bases", "update", "Machines", "--name", "Engines")["name"] == "Engines"
    assert told("knowledge-bases", "refresh", "Engines")["completed"] == 2
    kb("delete", "Engines", "pumps.md")
    assert told("knowledge-bases", "delete", "Engines") == {"id": made["id"], "deleted": True}
    assert made["id"] not in [one["id"] for one in told("knowledge-bases", "list", "--limit", "100")["knowledge_bases"]]


def test_a_file_that_failed_fails_the_command_and_says_why(client: AgentFlow, pumps: Path, broken: Path) -> None:
    done = kb("create", "Half", pumps, broken, code=1)
    assert ".exe files are not read here" in done.stdout
    made = told("knowledge-bases", "create", "None", broken, code=1)
    assert (made["status"], made["files"][0]["error_code"]) == ("failed", "unsupported")
    done = kb("upload", "Half", broken, code=1)
    assert "program.exe: failed, .exe files are not read here" in done.stderr
    assert [one["status"] for one in told("knowledge-bases", "files", "Half")["files"]] == ["completed", "failed"]
    assert told("knowledge-bases", "refresh", "Half", code=1)["failed"] == 1
    for name in ("Half", "None"):
        kb("delete", name)


def test_jobs_can_be_left_and_waited_for(client: AgentFlow, pumps: Path) -> None:
    made = client.knowledge_bases.create_from_files(name="Left", files=[("a.txt", b"first")])
    job = told("knowledge-bases", "upload", "Left", pumps, "--no-wait")
    done = told("knowledge-bases", "wait", job["job_id"])
    assert (done["status"], done["kb_id"]) == ("completed", made.id)
    assert told("knowledge-bases", "cancel", job["job_id"])["status"] == "completed"
    assert told("batches", "wait", job["job_id"])["status"] == "completed"
    client.knowledge_bases.delete(made.id)


def test_a_site_that_is_refused_says_why() -> None:
    with local_server(crawl_pause_seconds=0) as server:
        done = kb("create", "Site", "--url", "http://127.0.0.1:9/", "--endpoint", server.endpoint, code=1)
        assert "private address" in done.stderr
        assert told("knowledge-bases", "list", "--endpoint", server.endpoint)["total"] == 1


def test_an_agent_is_given_bases(client: AgentFlow) -> None:
    agent = client.agents.create(name="Reader")
    made = client.knowledge_bases.create_from_files(name="For readers", files=[("a.txt", b"The heron eats fish.")])
    base = ("agents", "knowledge-bases")
    assert told(*base, "assign", "Reader", "For readers")["knowledge_bases"][0]["id"] == made.id
    assert [one["name"] for one in told(*base, "list", agent.id)] == ["For readers"]
    assert "The heron eats fish." in run(*base, "search", "Reader", "heron").stdout
    assert told(*base, "unassign", "Reader", made.id) == {"agent_id": agent.id, "unassigned": made.id}
    assert told(*base, "list", "Reader") == []
    client.knowledge_bases.delete(made.id)
    client.agents.delete(agent.id)


def test_mistakes_are_told(client: AgentFlow, pumps: Path) -> None:
    assert "no knowledge base named 'Nowhere'" in kb("show", "Nowhere", code=1).stderr
    assert "no agent named 'Nobody'" in run("agents", "knowledge-bases", "list", "Nobody", code=1).stderr
    assert "Name files" in kb("create", "Empty", code=2).stderr
    assert "overlap_percentage" in kb("create", "Bad", pumps, "--overlap-percentage", "0.9", code=2).stderr
    assert "embedding_model" in kb("create", "Bad", pumps, "--embedding-model", "nobody/x", code=1).stderr
    twins = [client.knowledge_bases.create_from_files(name="Twin", files=[("a.txt", b"a")]) for _ in range(2)]
    done = kb("show", "Twin", code=1)
    assert all(twin.id in done.stderr for twin in twins)
    for twin in twins:
        kb("delete", twin.id)
