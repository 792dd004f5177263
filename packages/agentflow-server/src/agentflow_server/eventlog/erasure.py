"""Removes a conversation from the log for good. Called by the conversations room when its owner deletes it."""

from agentflow_server.eventlog.tail import hold
from agentflow_server.storage import Tx


def erase(tx: Tx, conversation_id: str) -> None:
    """Remove everything the log holds of a conversation, its runs and their jobs. `tx` is bound to the tenant."""
    key = {"conversation": conversation_id}
    runs = "(SELECT id FROM runs WHERE tenant = :tenant AND conversation_id = :conversation)"
    tx.execute(f"DELETE FROM jobs WHERE tenant = :tenant AND id IN {runs}", key)  # noqa: S608 - constants
    tx.execute(f"DELETE FROM run_mail WHERE tenant = :tenant AND run_id IN {runs}", key)  # noqa: S608
    hold(tx, conversation_id)  # a run that is being accepted comes before this or after it
    for table in ("runs", "parts", "events", "event_heads"):
        tx.execute(f"DELETE FROM {table} WHERE tenant = :tenant AND conversation_id = :conversation", key)  # noqa: S608
