"""Messages to a run that is under way: written by whoever has something to say, read by the run between two turns."""

from typing import NamedTuple

from agentflow_server.storage import Tx


class Letter(NamedTuple):
    """A message that waits to be read."""

    id: str
    text: str


def post(tx: Tx, tenant: str, run_id: str, letter: Letter, now: int) -> None:
    """Leave a message for a run; one of the same id is left once."""
    tx.execute(
        "INSERT INTO run_mail (tenant, run_id, id, text, created_at) VALUES (:tenant, :run, :id, :text, :now)"
        " ON CONFLICT DO NOTHING",
        {"tenant": tenant, "run": run_id, "id": letter.id, "text": letter.text, "now": now},
    )


def unread(tx: Tx, tenant: str, run_id: str) -> list[Letter]:
    """What the run has not read, oldest first."""
    rows = tx.all(
        "SELECT id, text FROM run_mail WHERE tenant = :tenant AND run_id = :run AND read_at IS NULL"
        " ORDER BY created_at, id",
        {"tenant": tenant, "run": run_id},
    )
    return [Letter(row["id"], row["text"]) for row in rows]


def place_of(tx: Tx, tenant: str, letter_id: str) -> tuple[str, bool] | None:
    """Which run a message was left for, and whether it has read it; None if there is no such message."""
    row = tx.one(
        "SELECT run_id, read_at FROM run_mail WHERE tenant = :tenant AND id = :id ORDER BY read_at DESC LIMIT 1",
        {"tenant": tenant, "id": letter_id},
    )
    return (row["run_id"], row["read_at"] is not None) if row else None


def mark_read(tx: Tx, tenant: str, run_id: str, letters: list[Letter], now: int) -> None:
    """Note that the run has these messages in its thread."""
    for letter in letters:
        tx.execute(
            "UPDATE run_mail SET read_at = :now WHERE tenant = :tenant AND run_id = :run AND id = :id",
            {"tenant": tenant, "run": run_id, "id": letter.id, "now": now},
        )
