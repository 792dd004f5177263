"""What of a request goes into the tenant's audit log: changes to what a tenant is made of, and refusals.

The doorman lets the answer out only when its entry is on disk; if the disk refuses it, it goes to the server's log.
Reads, and what people do with their own conversations, are not audited.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from fastapi import Request

from agentflow_server.kit.clock import SECOND, Clock
from agentflow_server.kit.ids import new_id
from agentflow_server.storage import Database, Tx, audit
from agentflow_server.storage.audit import AuditEntry
from agentflow_server.storage.errors import StorageUnavailableError

logger = logging.getLogger(__name__)
Note = Callable[[int], Awaitable[None]]
_ROOMS = frozenset({"agents", "knowledge_bases", "models", "prompt_blocks", "subagents", "system", "tools", "usage"})
_READS = frozenset({"GET", "HEAD"})
_ASKING = frozenset({"chat", "preview", "run", "search"})
_DAY = 86_400 * SECOND
_QUIET = 60 * SECOND
_MAX_QUIET = 10_000


class Audit:
    """Makes the notes.

    Args:
        days: how long entries are kept.
    """

    def __init__(self, db: Database, clock: Clock, days: int) -> None:
        self._db = db
        self._clock = clock
        self._days = days
        self._refused: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def changes(self, request: Request, tenant: str, actor: str, kind: str) -> Note | None:
        """The note for a request that was let in; None if it is not audited."""
        route = request.scope["route"]
        room = str(next(iter(route.tags), ""))
        asking = request.method == "POST" and route.path.rsplit("/", 1)[-1] in _ASKING
        if request.method in _READS or room not in _ROOMS or asking:
            return None
        return self._note(request, tenant, actor, kind)

    def refusal(self, request: Request, tenant: str, actor: str, kind: str) -> Note | None:
        """The note for a request that was refused; the same refusal is noted once a minute."""
        key = (tenant, actor, _action(request))
        now = self._clock.micros()
        if now - self._refused.get(key, -_QUIET) < _QUIET:
            return None
        self._refused[key] = now
        if len(self._refused) > _MAX_QUIET:
            self._refused.popitem(last=False)
        return self._note(request, tenant, actor, kind)

    def _note(self, request: Request, tenant: str, actor: str, kind: str) -> Note:
        action, target = _action(request), request.url.path[:500]
        request_id: str | None = getattr(request.state, "request_id", None)

        async def note(status: int) -> None:
            now = self._clock.micros()
            entry = AuditEntry(new_id(), now, actor, kind, action, target, status, request_id)

            def unit(tx: Tx) -> None:
                audit.append(tx, entry)
                audit.forget(tx, now - self._days * _DAY)

            try:
                await self._db.tenant(tenant).write(unit)
            except StorageUnavailableError:
                logger.error(  # noqa: TRY400 - the reason is in the answer already
                    "an audit entry could not be written",
                    extra={"tenant": tenant, "actor": actor, "action": action, "target": target, "status": status},
                )

        return note


def _action(request: Request) -> str:
    route = request.scope["route"]
    return f"{next(iter(route.tags), 'system')}.{route.name}"
