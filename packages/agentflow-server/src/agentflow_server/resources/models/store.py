"""Rows of the models room: a tenant's policy, its sealed provider keys, and the models its users have chosen."""

import json
from typing import Any, NamedTuple

from agentflow_server.storage import Row, Tx


class Rules(NamedTuple):
    """A tenant's policy. `allowed` is None where every model may be used; `defaults` are by use case."""

    mode: str = "platform"
    allowed: tuple[str, ...] | None = None
    defaults: dict[str, str] = {}  # noqa: RUF012 - never changed
    updated_at: int | None = None
    updated_by: str | None = None


class KeyRecord(NamedTuple):
    """A provider key of a tenant; `sealed` holds it."""

    provider: str
    sealed: str
    last_four: str
    settings: dict[str, Any]
    checked_at: int | None
    created_at: int
    updated_at: int
    updated_by: str


def rules(tx: Tx) -> Rules:
    """The tenant's policy; the one everybody begins with if none was set."""
    row = tx.one("SELECT data, updated_at, updated_by FROM model_policies WHERE tenant = :tenant")
    if row is None:
        return Rules()
    data = json.loads(row["data"])
    allowed = data.get("allowed_models")
    return Rules(
        data["mode"],
        None if allowed is None else tuple(allowed),
        data.get("defaults", {}),
        row["updated_at"],
        row["updated_by"],
    )


def set_rules(tx: Tx, wanted: Rules) -> None:
    """Store a policy."""
    data = {"mode": wanted.mode, "allowed_models": wanted.allowed, "defaults": wanted.defaults}
    tx.execute(
        "INSERT INTO model_policies (tenant, data, updated_at, updated_by) VALUES (:tenant, :data, :now, :by)"
        " ON CONFLICT (tenant) DO UPDATE SET data = :data, updated_at = :now, updated_by = :by",
        {"data": json.dumps(data), "now": wanted.updated_at, "by": wanted.updated_by},
    )


_KEY = "SELECT provider, sealed, last_four, settings, checked_at, created_at, updated_at, updated_by FROM provider_keys"


def keys(tx: Tx) -> list[KeyRecord]:
    """The tenant's keys."""
    return [_key(row) for row in tx.all(f"{_KEY} WHERE tenant = :tenant ORDER BY provider")]


def key(tx: Tx, provider: str) -> KeyRecord | None:
    """The tenant's key of a provider."""
    row = tx.one(f"{_KEY} WHERE tenant = :tenant AND provider = :provider", {"provider": provider})
    return _key(row) if row else None


def _key(row: Row) -> KeyRecord:
    return KeyRecord(
        row["provider"], row["sealed"], row["last_four"], json.loads(row["settings"]), row["checked_at"],
        row["created_at"], row["updated_at"], row["updated_by"],
    )  # fmt: skip


def set_key(tx: Tx, record: KeyRecord) -> None:
    """Store a key in place of the one before."""
    tx.execute(
        "INSERT INTO provider_keys (tenant, provider, sealed, last_four, settings, checked_at, created_at, updated_at,"
        " updated_by) VALUES (:tenant, :provider, :sealed, :last_four, :settings, :checked, :created, :updated, :by)"
        " ON CONFLICT (tenant, provider) DO UPDATE SET sealed = :sealed, last_four = :last_four, settings = :settings,"
        " checked_at = :checked, updated_at = :updated, updated_by = :by",
        {
            "provider": record.provider, "sealed": record.sealed, "last_four": record.last_four,
            "settings": json.dumps(record.settings), "checked": record.checked_at, "created": record.created_at,
            "updated": record.updated_at, "by": record.updated_by,
        },
    )  # fmt: skip


def delete_key(tx: Tx, provider: str) -> bool:
    """Remove a key; False if there was none."""
    params = {"provider": provider}
    return tx.execute("DELETE FROM provider_keys WHERE tenant = :tenant AND provider = :provider", params) == 1


def user_model(tx: Tx, user_id: str) -> str | None:
    """The model a user has chosen."""
    row = tx.one("SELECT model FROM user_models WHERE tenant = :tenant AND user_id = :user", {"user": user_id})
    return row["model"] if row else None


def set_user_model(tx: Tx, user_id: str, model: str | None, now: int) -> None:
    """Keep a user's choice; None forgets it."""
    tx.execute("DELETE FROM user_models WHERE tenant = :tenant AND user_id = :user", {"user": user_id})
    if model is not None:
        tx.execute(
            "INSERT INTO user_models (tenant, user_id, model, updated_at) VALUES (:tenant, :user, :model, :now)",
            {"user": user_id, "model": model, "now": now},
        )
