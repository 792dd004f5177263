"""Remembers what a mutating request has led to, under the key its sender gave it, so that a retry is answered the same.

Used by rooms inside the transaction that does the work: the key and the work stand or fall together. Source: IETF draft
"The Idempotency-Key HTTP Header Field".
"""

import hashlib
from collections.abc import Callable

from agentflow.errors import ConflictError

from agentflow_server.storage.database import Tx


def once(tx: Tx, *, user_id: str, key: str | None, body: str, now: int, work: Callable[[], str]) -> str:
    """What `work` gave, or what it gave when this key was used first. `tx` is bound to the tenant.

    Args:
        key: None means that the request may not be repeated. body: the request, to tell a retry from another request.
        work: does the work; returns what is needed to answer again.

    Raises:
        ConflictError: the key was used with another body.
    """
    if key is None:
        return work()
    digest = hashlib.sha256(body.encode()).hexdigest()
    params = {"user": user_id, "key": key, "hash": digest, "now": now}
    known = tx.one(
        "SELECT body_hash, outcome FROM idempotency_keys WHERE tenant = :tenant AND user_id = :user AND key = :key",
        params,
    )
    if known is not None:
        if known["body_hash"] != digest:
            raise ConflictError("the Idempotency-Key was used before with another body")
        return known["outcome"]
    outcome = work()
    tx.execute(
        "INSERT INTO idempotency_keys (tenant, user_id, key, body_hash, outcome, created_at)"
        " VALUES (:tenant, :user, :key, :hash, :outcome, :now)",
        {**params, "outcome": outcome},
    )
    return outcome
