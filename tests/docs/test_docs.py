"""Docs fail like code: examples run, links lead somewhere, and what the code knows stands in its page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from agentflow import AgentFlow, errors, events
from agentflow_server.gateway import settings as gateway_settings
from agentflow_server.kit.settings import Settings, variable_of
from agentflow_server.testing import LocalServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLES = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, code in enumerate(FENCE.findall(page.read_text()))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(
    code: str, server: LocalServer, client: AgentFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentflow.auth.profiles import Profile, Profiles

    monkeypatch.chdir(tmp_path)
    Profiles(os.environ).save(Profile("local", server.endpoint))
    exec(compile(code, "example", "exec"), {"client": client, "__name__": "example"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_setting_has_its_line() -> None:
    page = (ROOT / "docs/howto/settings.md").read_text()
    names = {variable_of(name, field.description) for name, field in Settings.model_fields.items()}
    sources = [*(ROOT / "packages").rglob("*.py")]
    used = {name for path in sources for name in re.findall(r"\"(AGENTFLOW_[A-Z_]+)\"", path.read_text())}
    models = (ROOT / "docs/resources/models.md").read_text()
    assert not [name for name in names | used if name not in page and name not in models]
    known = {key for entry in gateway_settings._KNOWN.values() for key in entry.key}
    assert not [name for name in known if name not in models]


def test_every_error_and_event_has_its_line() -> None:
    page = (ROOT / "docs/resources/errors.md").read_text()
    for code, cls in errors._Registry.by_code.items():
        assert f"`{code}`" in page
        assert cls.__name__ in page or issubclass(cls, errors.ModelError)
    page = (ROOT / "docs/resources/events.md").read_text()
    for type_, cls in events._BY_TYPE.items():
        assert f"`{type_}`" in page, type_
        assert f"`{cls.__name__}`" in page


def test_every_route_has_its_line(client: AgentFlow) -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs/resources").glob("*.md"))
    bare = re.sub(r"\{[^}]*\}", "{}", pages)
    for path in client.request("GET", "/openapi.json").json()["paths"]:
        assert re.sub(r"\{[^}]*\}", "{}", path) in bare, path


def test_every_command_has_its_line() -> None:
    from agentflow.cli.main import COMMANDS

    pages = "".join(page.read_text() for page in PAGES)
    assert not [name for name in COMMANDS if f"agentflow {name}" not in pages]


def test_the_reference_is_fresh() -> None:
    done = subprocess.run([sys.executable, "tools/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
