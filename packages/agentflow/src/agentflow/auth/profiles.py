"""Profiles: named settings for a server, in one readable file; secrets apart from them, a file each (or the keyring).

The folder is `AGENTFLOW_CONFIG_DIR`, else the platform's place for configuration. Files are replaced atomically, and
changed under a lock, so that several processes may write at once and nothing is lost.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agentflow.auth.locking import locked
from agentflow.errors import ConfigurationError, ProfileDamagedError, ProfileNotFoundError

METHODS = ("dev", "token", "device", "m2m")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_FILE = "profiles.toml"
_SERVICE = "agentflow"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is kept apart from a profile's settings, and never shown. `expires_at` is in seconds since the epoch."""

    access_token: str | None = None
    expires_at: float | None = None
    refresh_token: str | None = None
    client_secret: str | None = None

    def __bool__(self) -> bool:
        return any((self.access_token, self.refresh_token, self.client_secret))

    def __repr__(self) -> str:
        return "Secrets(…)"


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile.

    Args:
        method: how one signs in: `dev`, `token`, `device` or `m2m`. keyring: secrets are in the system's keyring.
    """

    name: str
    endpoint: str
    method: str = "dev"
    client_id: str | None = None
    audience: str | None = None
    auth0_domain: str | None = None
    tenant: str | None = None
    on_behalf_of: str | None = None
    scope: str | None = None
    keyring: bool = False
    secrets: Secrets = field(default=Secrets(), repr=False)


class Profiles:
    """The profiles of this user.

    Args:
        environ: `AGENTFLOW_CONFIG_DIR` and `AGENTFLOW_PROFILE` are read from it.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @property
    def folder(self) -> Path:
        """Where the files are."""
        given = self._environ.get("AGENTFLOW_CONFIG_DIR")
        if given:
            return Path(given)
        from platformdirs import user_config_path

        return user_config_path("agentflow", appauthor=False)

    def current(self) -> str:
        """The profile to use when none is named: `AGENTFLOW_PROFILE`, else the chosen one, else `default`."""
        return self._environ.get("AGENTFLOW_PROFILE") or str(self._read().get("current") or "default")

    def names(self) -> list[str]:
        """All profiles, by name."""
        return sorted(_tables(self._read(), self.folder))

    def load(self, name: str) -> Profile:
        """One profile with its secrets.

        Raises:
            ProfileNotFoundError: there is none of this name. ProfileDamagedError: a file cannot be read.
        """
        checked_name(name)
        tables = _tables(self._read(), self.folder)
        table = tables.get(name)
        if table is None:
            known = ", ".join(sorted(tables)) or "none"
            raise ProfileNotFoundError(
                f"there is no profile {name!r}; there are: {known}",
                hint=f"Make it with: agentflow login --endpoint URL --profile {name} --method dev",
            )
        fields = {key: value for key, value in table.items() if key in Profile.__dataclass_fields__}
        if not isinstance(fields.get("endpoint"), str):
            raise ProfileDamagedError(f"{self.folder / _FILE}: the profile {name!r} has no endpoint")
        profile = replace(Profile(name, fields.pop("endpoint")), **fields)
        return replace(profile, secrets=self.secrets(profile))

    def save(self, profile: Profile, *, use: bool = False) -> None:
        """Write a profile, and make it the chosen one if asked to, or if it is the first."""
        checked_name(profile.name)
        table = {key: value for key, value in asdict(profile).items() if value not in (None, False)}
        del table["name"], table["secrets"]
        self.keep(profile, profile.secrets)

        def change(data: dict[str, Any]) -> None:
            data["profiles"] = {**_tables(data, self.folder), profile.name: table}
            if use or "current" not in data:
                data["current"] = profile.name

        self._change(change)

    def use(self, name: str) -> None:
        """Choose the profile to use when none is named."""
        self.load(name)
        self._change(lambda data: data.update(current=name))

    def remove(self, name: str) -> None:
        """Forget a profile and its secrets."""
        self.keep(self.load(name), Secrets())

        def change(data: dict[str, Any]) -> None:
            data["profiles"] = {key: value for key, value in _tables(data, self.folder).items() if key != name}
            if data.get("current") == name:
                del data["current"]

        self._change(change)

    def secrets(self, profile: Profile) -> Secrets:
        """The secrets of a profile as they are kept now.

        Raises:
            ProfileDamagedError: they cannot be read, or others can read them.
        """
        path = self._secret_path(profile.name)
        try:
            text = self._from_keyring(profile.name) if profile.keyring else _private(path)
            stored = json.loads(text) if text else {}
            return Secrets(**{key: stored[key] for key in Secrets.__dataclass_fields__ if key in stored})
        except FileNotFoundError:
            return Secrets()
        except (OSError, ValueError, TypeError) as error:
            raise ProfileDamagedError(
                f"{path} cannot be read: {error}", hint="Remove it and sign in again with `agentflow login`."
            ) from None

    def keep(self, profile: Profile, secrets: Secrets) -> None:
        """Write the secrets of a profile in place of those that are kept; empty ones are forgotten."""
        content = json.dumps({key: value for key, value in asdict(secrets).items() if value is not None})
        path = self._secret_path(profile.name)
        if profile.keyring:
            self._to_keyring(profile.name, content if secrets else None)
        if secrets and not profile.keyring:
            self._replace(path, content.encode(), 0o600)
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Generator[None]:
        """Hold a profile's secrets: nobody else renews them meanwhile."""
        with locked(self.folder / "credentials" / f".{checked_name(name)}.lock"):
            yield

    def _secret_path(self, name: str) -> Path:
        return self.folder / "credentials" / name

    def _from_keyring(self, name: str) -> str | None:
        return _keyring().get_password(_SERVICE, f"{self.folder}:{name}")

    def _to_keyring(self, name: str, content: str | None) -> None:
        keyring = _keyring()
        entry = f"{self.folder}:{name}"
        if content is not None:
            keyring.set_password(_SERVICE, entry, content)
        elif keyring.get_password(_SERVICE, entry) is not None:
            keyring.delete_password(_SERVICE, entry)

    def _read(self) -> dict[str, Any]:
        import tomllib

        path = self.folder / _FILE
        try:
            return tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ProfileDamagedError(
                f"{path} cannot be read: {error}", hint="Mend the file, or remove it and sign in again."
            ) from None

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        import tomli_w

        try:
            with locked(self.folder / ".lock"):
                data = self._read()
                change(data)
                self._replace(self.folder / _FILE, tomli_w.dumps(data).encode(), 0o644)
        except OSError as error:
            raise ConfigurationError(f"{self.folder} cannot be written: {error.strerror}") from None

    def _replace(self, path: Path, content: bytes, mode: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def checked_name(name: str) -> str:
    """A name that may be a profile's.

    Raises:
        ConfigurationError: it may not: it could lead out of the folder, or be mistaken for an option.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a profile",
            hint="Use letters, digits, `_`, `-` and `.`, at most 64, and begin with a letter or a digit.",
        )
    return name


def _tables(data: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    tables = data.get("profiles", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ProfileDamagedError(f"{folder / _FILE}: `profiles` is not a table of tables")
    return dict(tables)


def _private(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
            raise ValueError(f"others can read it; make it yours alone with: chmod 600 {path}")
        return file.read()


def _keyring() -> Any:
    try:
        import keyring
        from keyring.backends.fail import Keyring
    except ImportError:
        raise ConfigurationError("the system's keyring needs the extra: pip install 'agentflow[keyring]'") from None
    if isinstance(keyring.get_keyring(), Keyring):
        raise ConfigurationError("this system has no keyring", hint="Sign in again without --keyring.")
    return keyring
