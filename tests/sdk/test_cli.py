"""The command, as people and programs use it: against a real backend, also in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agentflow.cli.main import root
from agentflow_server.testing import LocalServer
from click.testing import CliRunner, Result

COMMAND = Path(sys.executable).with_name("agentflow")


@pytest.fixture(autouse=True)
def signed_in(server: LocalServer) -> None:
    assert run("login", "--endpoint", server.endpoint, "--profile", "local", "--method", "dev").exit_code == 0


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(root, list(arguments), input=text)


def told(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def process(
    *arguments: str, stdin: str = "", environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *arguments], input=stdin, capture_output=True, text=True, env={**os.environ, **(environ or {})}
    )


def test_profiles_are_kept_apart_from_their_secrets(server: LocalServer, tmp_path: Path) -> None:
    assert [profile["name"] for profile in told("profiles", "list")] == ["local"]
    assert told("profiles", "show")["endpoint"] == server.endpoint
    from agentflow.auth.profiles import Profile, Profiles, Secrets

    profiles = Profiles(os.environ)
    profiles.save(Profile("prod", "https://x.example", "token", secrets=Secrets(access_token="very-secret")))
    assert "very-secret" not in (profiles.folder / "profiles.toml").read_text()
    assert (profiles.folder / "credentials/prod").stat().st_mode & 0o777 == 0o600
    assert profiles.load("prod").secrets.access_token == "very-secret"
    assert "very-secret" not in run("profiles", "show", "prod").output
    assert told("profiles", "use", "prod") == {"current": "prod"}
    assert told("profiles", "remove", "prod") == {"removed": "prod"}
    assert not (profiles.folder / "credentials/prod").exists()


def test_many_processes_may_save_profiles_at_once(server: LocalServer) -> None:
    program = (
        "import os, sys; from agentflow.auth.profiles import Profile, Profiles;"
        "[Profiles(os.environ).save(Profile(f'p{sys.argv[1]}-{n}', 'http://127.0.0.1:1')) for n in range(20)]"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for number in range(4)]
    assert [each.wait(60) for each in running] == [0] * 4
    from agentflow.auth.profiles import Profiles

    assert len(Profiles(os.environ).names()) == 81


def test_every_command_speaks_json(server: LocalServer) -> None:
    assert told("agents", "list")["agents"][0]["name"] == "MainAgent"
    assert told("agents", "show", "MainAgent")["max_turns"] == 10
    made = told("agents", "create", "Cli", "--description", "x", "--tool", "current_time")
    assert told("agents", "update", "Cli", "--max-turns", "3")["max_turns"] == 3
    assert told("agents", "delete", made["id"]) == {"deleted": made["id"]}
    result = told("agents", "run", "MainAgent", "[[say hello]]", "--no-stream")
    assert result["text"] == "hello"
    conversation = result["conversation_id"]
    assert told("conversations", "list", "--limit", "1")["conversations"][0]["id"] == conversation
    assert told("conversations", "show", conversation)["messages"][1]["content"] == "hello"
    assert told("conversations", "show", conversation, "--timeline")["parts"]
    assert told("conversations", "title", conversation, "New")["title"] == "New"
    assert told("conversations", "search", "New")["total"] >= 1
    assert told("runs", "show", result["run_id"])["status"] == "completed"
    assert told("cancellations", "run", result["run_id"])["cancelled"] is False
    assert told("cancellations", "call", result["call_id"])["cancelled"] is False
    assert told("cancellations", "message", conversation, result["message_id"])["cancelled"] is False
    assert told("models", "list")["default"] == "agentflow/scripted"
    assert told("models", "show", "agentflow/scripted")["available"]
    assert told("system", "health")["status"] == "ok"
    assert told("system", "ready")["status"] == "ok"
    assert told("system", "info")["api_version"] == "v1"
    assert told("version")["version"]
    assert told("conversations", "delete", conversation) == {"deleted": conversation}


def test_a_run_streams(server: LocalServer) -> None:
    shown = process("agents", "run", "MainAgent", "[[tool current_time {}]] [[say good morning]]")
    assert shown.stdout == "good morning\n"
    assert "→ current_time {}" in shown.stderr
    lines = process("agents", "run", "MainAgent", "[[say a b]]", "--json").stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["start", "delta", "delta", "end"] or len(lines) == 3
    run_id = json.loads(lines[0])["content"]["run_id"]
    assert process("runs", "follow", run_id).stdout == "a b\n"


def test_chat_goes_on_with_its_conversation(server: LocalServer) -> None:
    done = process("chat", stdin="My cat is called Tom.\n\nWhat is my cat called?\n")
    assert done.returncode == 0, done.stderr
    assert "Tom" in done.stdout.splitlines()[-1]
    conversation = done.stderr.split()[1]
    again = process("chat", "--conversation", conversation, stdin="What is my cat called?\n")
    assert "Tom" in again.stdout


def test_ctrl_c_cancels_the_run(server: LocalServer) -> None:
    command = [str(COMMAND), "agents", "run", "MainAgent", "[[words 3000]] [[delay 20]]"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.read(5) == "word1"
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=10)
    assert running.returncode == 0
    assert "Traceback" not in err
    assert "The run was cancelled." in err
    assert "word3000" not in out
    with server.client() as client:
        assert not any(item.has_active_generation for item in client.conversations.list(limit=5).items)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["agents", "show", "Nobody"], 1, "Nobody"),
        (["agents", "show", "00000000-0000-0000-0000-000000000000"], 1, "not_found"),
        (["agents", "run", "MainAgent", ""], 1, "message"),
        (["agents", "run", "MainAgent", "[[fail auth]]"], 1, "model_auth_error"),
        (["agents", "list", "--limit", "0"], 2, "limit"),
        (["agents", "list", "--profile", "nope"], 2, "nope"),
        (["agents", "list", "--profile", "../evil"], 2, "../evil"),
        (["agents", "list", "--endpoint", "nonsense"], 2, "endpoint"),
        (["agents", "list", "--endpoint", "http://127.0.0.1:9"], 3, "could not be reached"),
        (["login", "--endpoint", "http://127.0.0.1:9", "--method", "dev"], 3, "could not be reached"),
        (["profiles", "remove", "nope"], 2, "nope"),
        (["nonsense"], 2, "nonsense"),
        (["conversations", "list", "--all-users"], 1, "source_ref_id"),
    ],
)
def test_mistakes_are_told_without_a_traceback(arguments: list[str], code: int, message: str) -> None:
    done = process(*arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if arguments[0] != "nonsense" and code != 2:
        as_json = process(*arguments, "--json")
        assert json.loads(as_json.stderr.splitlines()[-1])["error"]["message"] or as_json.stdout


def test_a_damaged_profile_names_its_file() -> None:
    from agentflow.auth.profiles import Profiles

    path = Profiles(os.environ).folder / "profiles.toml"
    path.write_text("[profiles\nbroken = ")
    done = process("agents", "list")
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "line 1" in done.stderr


def test_completion_and_version() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_AGENTFLOW_COMPLETE" in run("completion", shell).output
    assert process("--version").stdout == process("version").stdout
    listed = process(environ={"_AGENTFLOW_COMPLETE": "bash_complete", "COMP_WORDS": "agentflow con", "COMP_CWORD": "1"})
    assert "conversations" in listed.stdout


def test_help_names_every_command() -> None:
    shown = run("--help").output
    for name in ("agents", "chat", "conversations", "login", "profiles", "serve", "db", "version"):
        assert name in shown


def test_a_port_in_use_is_told(server: LocalServer, tmp_path: Path) -> None:
    port = server.endpoint.rsplit(":", 1)[1]
    done = process("serve", "--data", str(tmp_path), "--port", port, environ={"DEV_AUTH_BYPASS": "true"})
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr
    upgraded = process("db", "upgrade", "--data", str(tmp_path / "new"))
    assert "has the schema of this version" in upgraded.stdout
