"""How much of a request rate is used, in the database, so that the rate holds over all processes. Asked by http/limits.

The generic cell rate algorithm (ITU-T I.371): one number a subject, the instant at which it has paid for everything it
was given. A request costs `period / limit`; the number may run ahead of the clock by one period.
"""

from agentflow_server.storage.database import Tx

_PAID = "CASE WHEN rate_limits.paid_until > :now THEN rate_limits.paid_until ELSE :now END"
_TAKE = (
    "INSERT INTO rate_limits (tenant, subject, paid_until) VALUES (:tenant, :subject, :now + :cost)"  # noqa: S608 - constants
    " ON CONFLICT (tenant, subject) DO UPDATE SET"
    f" paid_until = {_PAID} + :cost WHERE {_PAID} + :cost <= :now + :period"
)


def take(tx: Tx, subject: str, *, cost: int, period: int, now: int) -> bool:
    """Pay `cost` micros, if that stays within the period."""
    return tx.execute(_TAKE, {"subject": subject, "cost": cost, "period": period, "now": now}) == 1


def paid_until(tx: Tx, subject: str) -> int:
    """The instant up to which everything is paid."""
    row = tx.one(
        "SELECT paid_until FROM rate_limits WHERE tenant = :tenant AND subject = :subject", {"subject": subject}
    )
    return 0 if row is None else row["paid_until"]
