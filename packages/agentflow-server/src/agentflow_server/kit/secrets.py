"""Seals what tenants entrust to the server (provider keys, tool credentials, signing secrets) before it is stored.

AES-256-GCM (NIST SP 800-38D) with the tenant, the purpose and the key's id as associated data: a sealed text that is
moved to another tenant or another row's purpose does not open. The first key seals, every key opens, so keys rotate.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentflow_server.kit.settings import Settings, SettingsError

KEY_FILE = "secret.key"
_NONCE = 12


class SealBrokenError(ValueError):
    """A sealed text cannot be opened: its key is gone, or it was altered or moved."""


class Secrets:
    """Seals and opens.

    Args:
        keys: (id, 32 bytes), the one that seals first.
    """

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._first = keys[0][0]
        self._keys = {name: AESGCM(key) for name, key in keys}

    def seal(self, tenant: str, purpose: str, text: str) -> str:
        """The text, sealed for one tenant and one purpose."""
        nonce = os.urandom(_NONCE)
        sealed = self._keys[self._first].encrypt(nonce, text.encode(), _bound(tenant, purpose, self._first))
        return f"{self._first}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, tenant: str, purpose: str, sealed: str) -> str:
        """The text that was sealed.

        Raises:
            SealBrokenError: it cannot be opened.
        """
        name, _, body = sealed.partition(".")
        key = self._keys.get(name)
        if key is None:
            raise SealBrokenError(f"the key {name!r} it was sealed with is not among AGENTFLOW_SECRET_KEYS")
        try:
            raw = base64.urlsafe_b64decode(body)
            return key.decrypt(raw[:_NONCE], raw[_NONCE:], _bound(tenant, purpose, name)).decode()
        except (InvalidTag, ValueError):
            raise SealBrokenError("the sealed text was altered, or belongs elsewhere") from None

    def is_current(self, sealed: str) -> bool:
        """Whether it was sealed with the newest key."""
        return sealed.partition(".")[0] == self._first


def open_secrets(settings: Settings) -> Secrets:
    """The configured keys; the embedded server makes one of its own in its data folder.

    Raises:
        SettingsError: a key is not 32 bytes of base64, or none is set where several processes share a database.
    """
    if settings.secret_keys is not None:
        return Secrets([_key(part) for part in settings.secret_keys.get_secret_value().split(",") if part.strip()])
    if settings.database_url is not None:
        raise SettingsError(
            "AGENTFLOW_SECRET_KEYS: needed with AGENTFLOW_DATABASE_URL, so that every process can open what another"
            " has sealed; make one with: python -c 'import os,base64;"
            ' print("k1:" + base64.b64encode(os.urandom(32)).decode())\''
        )
    return Secrets([("local", _own_key(settings.data / KEY_FILE))])


def _key(part: str) -> tuple[str, bytes]:
    name, _, text = part.strip().partition(":")
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if not name or "." in name or len(key) != 32:
        raise SettingsError("AGENTFLOW_SECRET_KEYS: must be `id:key,…`, each key 32 bytes in base64, newest first")
    return name, key


def _own_key(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != 32:
            raise SettingsError(f"{path} is damaged: it must hold 32 bytes") from None
        return key
    key = os.urandom(32)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _bound(tenant: str, purpose: str, key: str) -> bytes:
    return f"{tenant}\x00{purpose}\x00{key}".encode()
