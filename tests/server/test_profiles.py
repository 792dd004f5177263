"""Where a client finds its server and its credentials: each row of the table in docs/howto/profiles.md."""

import os
from collections.abc import Iterator
from typing import Any

import keyring
import pytest
from agentflow import AgentFlow
from agentflow.auth.profiles import Profile, Profiles, Secrets
from agentflow.errors import ConfigurationError
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import PasswordDeleteError

PROFILE, OTHER = "https://profile.example", "https://other.example"
ARGUMENT, ENVIRON = "https://argument.example", "https://environ.example"


@pytest.fixture
def profiles() -> Profiles:
    kept = Profiles(os.environ)
    kept.save(Profile("prod", PROFILE, "token", secrets=Secrets(access_token="of-profile")))
    kept.save(Profile("other", OTHER, "token", secrets=Secrets(access_token="of-other")))
    return kept


@pytest.mark.parametrize(
    ("arguments", "environ", "endpoint", "token"),
    [
        ({"endpoint": ARGUMENT, "access_token": "given"}, "ENDPOINT ACCESS_TOKEN PROFILE", ARGUMENT, "given"),
        ({"endpoint": ARGUMENT}, "ENDPOINT ACCESS_TOKEN PROFILE", ARGUMENT, "of-environ"),
        ({"endpoint": ARGUMENT}, "PROFILE", ARGUMENT, None),
        ({}, "ENDPOINT ACCESS_TOKEN PROFILE", ENVIRON, "of-environ"),
        ({}, "ENDPOINT PROFILE", ENVIRON, None),
        ({}, "ACCESS_TOKEN PROFILE", PROFILE, "of-environ"),
        ({}, "PROFILE", PROFILE, "of-profile"),
        ({"profile": "other"}, "ENDPOINT ACCESS_TOKEN PROFILE", OTHER, "of-other"),
    ],
)
def test_arguments_win_over_the_environment_and_that_over_the_profile(
    arguments: dict[str, Any],
    environ: str,
    endpoint: str,
    token: str | None,
    profiles: Profiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"ENDPOINT": ENVIRON, "ACCESS_TOKEN": "of-environ", "PROFILE": "prod"}
    for name in environ.split():
        monkeypatch.setenv(f"AGENTFLOW_{name}", values[name])
    client = AgentFlow(**arguments)
    assert client.endpoint == endpoint
    headers = client._config.credentials.headers()
    assert headers is not None
    sent = headers.get("Authorization")
    assert sent == (token and f"Bearer {token}")


def test_the_profile_that_is_used_when_none_is_named(profiles: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles.use("other")
    assert AgentFlow.from_profile().endpoint == OTHER
    monkeypatch.setenv("AGENTFLOW_PROFILE", "prod")
    assert AgentFlow.from_profile().endpoint == PROFILE


class Ring(KeyringBackend):
    """A keyring of this process."""

    priority: Any = 1

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.entries.pop((service, username), None) is None:
            raise PasswordDeleteError(username)


@pytest.fixture
def system_keyring() -> Iterator[None]:
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("system_keyring")
def test_secrets_in_the_keyring_are_in_no_file() -> None:
    ring = Ring()
    keyring.set_keyring(ring)
    profiles = Profiles(os.environ)
    kept = Profile("ringed", PROFILE, "token", keyring=True, secrets=Secrets(access_token="hush-hush"))
    profiles.save(kept)
    assert profiles.load("ringed").secrets.access_token == "hush-hush"
    written = [path.read_bytes() for path in profiles.folder.rglob("*") if path.is_file()]
    assert written
    assert not any(b"hush-hush" in content for content in written)
    profiles.keep(kept, Secrets())
    assert not ring.entries
    assert not profiles.load("ringed").secrets


@pytest.mark.usefixtures("system_keyring")
def test_a_system_without_a_keyring_says_so() -> None:
    keyring.set_keyring(NoKeyring())
    with pytest.raises(ConfigurationError, match="no keyring"):
        Profiles(os.environ).save(Profile("x", PROFILE, "token", keyring=True, secrets=Secrets(access_token="t")))
