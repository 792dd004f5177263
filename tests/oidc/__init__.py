"""A certified OpenID Connect provider on loopback (npm `oidc-provider`), and a browser that does what people do there.

`make oidc` installs it; tests that need it fail with that hint if it is missing.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import httpx2

FOLDER = Path(__file__).parent
AUDIENCE = "https://agentflow.example"


@dataclass
class RealProvider:
    """A running provider."""

    issuer: str

    def counts(self) -> dict[str, int]:
        """How many tokens it has given, and how many of them for refresh tokens."""
        return httpx2.get(f"{self.issuer}/counts").json()


@contextmanager
def real_provider(*, lifetime: int = 600) -> Generator[RealProvider]:
    """Start it; access tokens live for `lifetime` seconds."""
    node = shutil.which("node")
    if node is None or not (FOLDER / "node_modules/oidc-provider").exists():
        raise RuntimeError(
            "the OpenID Connect provider for tests is missing: run `make oidc` (it needs Node.js and npm)"
        )
    settings = json.dumps({"audience": AUDIENCE, "lifetime": lifetime})
    process = subprocess.Popen(
        [node, "provider.mjs", settings],
        cwd=FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield RealProvider(process.stdout.readline().strip())
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


def confirm_device(url: str, *, login: str = "alice") -> None:
    """What a person does with the address of a device prompt: confirm the code, sign in, agree."""
    with httpx2.Client(follow_redirects=True) as browser:
        page = browser.get(url)
        for _ in range(6):
            form = re.search(r"<form[^>]*>.*?</form>", page.text, re.DOTALL)
            if form is None:
                break
            action = re.search(r'action="([^"]*)"', form.group(0))
            fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form.group(0)))
            if 'name="login"' in form.group(0):
                fields |= {"login": login, "password": "secret"}
            fields = {name: unescape(value) for name, value in fields.items() if name != "abort"}
            page = browser.post(urljoin(str(page.url), unescape(action.group(1)) if action else ""), data=fields)
    assert "Sign-in Success" in page.text or "success" in page.text.lower(), page.text[:2000]
