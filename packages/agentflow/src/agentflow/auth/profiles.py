"""Profiles: named settings for a server, in one readable file; secrets apart from them, a file each.

The folder is `AGENTFLOW_CONFIG_DIR`, else the platform's place for configuration. Files are replaced atomically, so
that several processes may write at once; the last one wins as a whole.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agentflow.errors import ConfigurationError, ProfileDamagedError, ProfileNotFoundError

METHODS = ("dev", "token", "device", "m2m")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_FILE = "profiles.toml"


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile. `access_token` is kept apart and never shown.

    Args:
        method: how one signs in: `dev`, `token`, `device` or `m2m`.
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
    access_token: str | None = field(default=None, repr=False)


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
        return sorted(self._tables(self._read()))

    def load(self, name: str) -> Profile:
        """One profile with its secret.

        Raises:
            ProfileNotFoundError: there is none of this name. ProfileDamagedError: the file cannot be read.
        """
        checked_name(name)
        table = self._tables(self._read()).get(name)
        if table is None:
            known = ", ".join(self.names()) or "none"
            raise ProfileNotFoundError(
                f"there is no profile {name!r}; there are: {known}",
                hint=f"Make it with: agentflow login --endpoint URL --profile {name} --method dev",
            )
        known_fields = {key: value for key, value in table.items() if key in Profile.__dataclass_fields__}
        if not isinstance(known_fields.get("endpoint"), str):
            raise ProfileDamagedError(f"{self.folder / _FILE}: the profile {name!r} has no endpoint")
        return replace(Profile(name, known_fields.pop("endpoint")), **known_fields, access_token=self._secret(name))

    def save(self, profile: Profile, *, use: bool = False) -> None:
        """Write a profile, and make it the chosen one if asked to, or if it is the first."""
        checked_name(profile.name)
        data = self._read()
        tables = self._tables(data)
        table = asdict(profile)
        table.pop("name")
        secret = table.pop("access_token")
        tables[profile.name] = {key: value for key, value in table.items() if value is not None}
        data["profiles"] = tables
        if use or "current" not in data:
            data["current"] = profile.name
        if secret:
            self._replace(self._secret_path(profile.name), secret.encode(), 0o600)
        else:
            self._secret_path(profile.name).unlink(missing_ok=True)
        self._write(data)

    def use(self, name: str) -> None:
        """Choose the profile to use when none is named."""
        self.load(name)
        self._write({**self._read(), "current": name})

    def remove(self, name: str) -> None:
        """Forget a profile and its secret."""
        self.load(name)
        data = self._read()
        tables = self._tables(data)
        del tables[name]
        data["profiles"] = tables
        if data.get("current") == name:
            del data["current"]
        self._secret_path(name).unlink(missing_ok=True)
        self._write(data)

    def _secret_path(self, name: str) -> Path:
        return self.folder / "credentials" / name

    def _secret(self, name: str) -> str | None:
        try:
            return self._secret_path(name).read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileDamagedError(f"{self._secret_path(name)} cannot be read: {error}") from None

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

    def _tables(self, data: dict[str, Any]) -> dict[str, dict[str, Any]]:
        tables = data.get("profiles", {})
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            raise ProfileDamagedError(f"{self.folder / _FILE}: `profiles` is not a table of tables")
        return dict(tables)

    def _write(self, data: dict[str, Any]) -> None:
        import tomli_w

        self._replace(self.folder / _FILE, tomli_w.dumps(data).encode(), 0o644)

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
