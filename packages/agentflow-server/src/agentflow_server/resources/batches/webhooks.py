"""Tells who wants to know that a batch has ended. The handler of `batch_webhook` jobs.

Messages are signed as "Standard Webhooks" (standardwebhooks.com) says: HMAC-SHA256 over id, time and body. A message
that is not taken is sent again, later and later, for about three days; addresses of this network are not called.
"""

import base64
import hashlib
import hmac
import os
from typing import Any

import httpx2
from agentflow.errors import ValidationError
from pydantic_core import to_json

from agentflow_server.jobs import Job, NewJob, Settled, Worker, ledger
from agentflow_server.kit.clock import SECOND, Clock, to_iso
from agentflow_server.kit.outbound import ForbiddenAddressError, address_problem, outbound_client
from agentflow_server.kit.secrets import SealBrokenError, Secrets
from agentflow_server.resources.batches import store
from agentflow_server.resources.batches.output import wire
from agentflow_server.resources.batches.store import BatchRecord
from agentflow_server.storage import Database, Tx

KIND = "batch_webhook"
QUEUE = "webhooks"
PURPOSE = "batch_webhook"
PAUSES = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
_PREFIX = "whsec_"
_GONE = 410


class Webhooks:
    """Sends messages."""

    def __init__(self, db: Database, clock: Clock, worker: Worker, secrets: Secrets, *, allow_private: bool) -> None:
        self._db = db
        self._clock = clock
        self._worker = worker
        self._secrets = secrets
        self._allow_private = allow_private

    def register(self) -> None:
        """Let the worker send messages."""
        self._worker.register(KIND, self.handle, queue=QUEUE, concurrency=8)

    async def prepare(
        self, tenant: str, url: str | None, secret: str | None
    ) -> tuple[dict[str, Any] | None, str | None]:
        """What is stored of a wish to be told, and the secret to show once.

        Raises:
            ValidationError: the address cannot be called, or the secret is none.
        """
        if url is None:
            if secret is not None:
                raise _invalid("webhook_secret", "needs a webhook_url")
            return None, None
        try:
            problem = await address_problem(url, allow_private=self._allow_private)
        except ForbiddenAddressError as error:
            problem = str(error)
        if problem:
            raise _invalid("webhook_url", problem)
        chosen = secret or _PREFIX + base64.b64encode(os.urandom(32)).decode()
        if _key(chosen) is None:
            raise _invalid("webhook_secret", f"must be {_PREFIX} and 24 to 64 bytes in base64")
        sealed = self._secrets.seal(tenant, PURPOSE, chosen)
        return {"url": url, "sealed": sealed, "status": "pending", "attempts": 0}, chosen

    def secret_of(self, tenant: str, batch: BatchRecord) -> str | None:
        """The secret a batch's messages are signed with."""
        return None if batch.webhook is None else self._secrets.open(tenant, PURPOSE, batch.webhook["sealed"])

    def enqueue(self, tx: Tx, tenant: str, batch_id: str) -> None:
        """Let the end of a batch be told, if somebody wants to know. Part of what ends it."""
        batch = store.by_id(tx, batch_id)
        if batch is None or batch.webhook is None:
            return
        now = self._clock.micros()
        told = wire(batch).model_dump(mode="json", exclude={"webhook"})
        body = {"type": f"batch.{batch.status}", "timestamp": to_iso(now), "data": told}
        store.set_webhook(tx, batch_id, {**batch.webhook, "status": "pending", "attempts": 0, "last_error": None})
        payload = {"batch_id": batch_id, "body": body}
        job = NewJob(tenant=tenant, kind=KIND, queue=QUEUE, payload=payload, max_attempts=1_000_000)
        ledger.enqueue(tx, job, now)

    async def handle(self, job: Job) -> Settled:
        """Send a message; if it is not taken, let it be sent again later."""
        batch_id = job.payload["batch_id"]
        batch = await self._db.tenant(job.tenant).read(lambda tx: store.by_id(tx, batch_id))
        problem, final = "the batch is gone", True
        if batch is not None and batch.webhook is not None:
            problem, final = await self._send(job, batch.webhook)
        now = self._clock.micros()
        attempts = 1 + (batch.webhook["attempts"] if batch is not None and batch.webhook is not None else 0)
        again = problem is not None and not final and attempts <= len(PAUSES)
        status = "delivered" if problem is None else ("pending" if again else "failed")

        def unit(tx: Tx) -> None:
            ledger.check_fence(tx, job)
            current = store.by_id(tx, batch_id)
            if current is not None and current.webhook is not None:
                told = {"status": status, "attempts": attempts, "last_error": problem}
                store.set_webhook(tx, batch_id, {**current.webhook, **told})
            if again:
                ledger.release(tx, job, now, run_at=now + PAUSES[attempts - 1] * SECOND)
            else:
                ledger.settle(tx, job, "failed" if problem else "done", now, error=problem)

        await self._db.tenant(job.tenant).write(unit)
        return Settled.BY_HANDLER

    async def _send(self, job: Job, webhook: dict[str, Any]) -> tuple[str | None, bool]:
        """Why the message was not taken (None if it was), and whether there is no use in sending it again."""
        try:
            secret = self._secrets.open(job.tenant, PURPOSE, webhook["sealed"])
        except SealBrokenError:
            return "its secret cannot be opened any more", True
        body = to_json(job.payload["body"])
        headers = signed(secret, f"msg_{job.id}", self._clock.micros() // SECOND, body)
        try:
            async with (
                outbound_client(allow_private=self._allow_private, timeout=20.0) as http,
                http.stream("POST", webhook["url"], content=body, headers=headers) as response,
            ):
                status = response.status_code
        except ForbiddenAddressError as error:
            return str(error), True
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return f"it could not be reached: {type(error).__name__}", False
        return (None, True) if 200 <= status < 300 else (f"it answered with status {status}", status == _GONE)


def signed(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message."""
    key = _key(secret)
    assert key is not None
    mac = hmac.new(key, b"%s.%d.%s" % (message_id.encode(), timestamp, body), hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "AgentFlow-Webhooks",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def _key(secret: str) -> bytes | None:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        return None
    return key if secret.startswith(_PREFIX) and 24 <= len(key) <= 64 else None


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])
