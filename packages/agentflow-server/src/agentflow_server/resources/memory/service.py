"""Memory: blocks of text about a user, changed under compare-and-set, and recalled entry by entry.

Called by routes, by the model's tools and by consolidation; a run gets what it is given of memory through `core_block`
and `MemoryContributor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from agentflow.errors import ConflictError, NotFoundError
from agentflow.types.memory import (
    Erasure,
    MemoryBlock,
    MemoryListScope,
    MemoryPage,
    MemoryRecallPage,
    MemoryRecallRequest,
    MemoryRecallResult,
    MemoryUpdate,
    UserExport,
)
from agentflow.types.runs import MemoryPolicy

from agentflow_server.http.identity import Caller
from agentflow_server.jobs import Job, NewJob, Settled, Worker, ledger
from agentflow_server.kit.clock import Clock, from_datetime, to_datetime
from agentflow_server.kit.ids import new_id
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.agents.service import AgentsService
from agentflow_server.resources.memory import store
from agentflow_server.resources.memory.edits import BLOCK_TYPES, Edit, Limit, apply, check
from agentflow_server.resources.memory.recall import Indexes, block_of
from agentflow_server.resources.memory.store import BlockRecord
from agentflow_server.resources.prompt_blocks.builtin import DynamicBlock, PromptContext
from agentflow_server.runtime.plan import Contribution, PlanAsk
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.idempotency import once

INDEX_KIND = "memory_index"
INDEX_QUEUE = "memory_index"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose memory: a user of a tenant, and the agent whose own blocks are meant (empty: the user's)."""

    tenant: str
    user_id: str
    agent_id: str = ""


class Holder(Protocol):
    """A room that holds data about users: asked when a user wants to have, or to be rid of, everything."""

    async def export_user(self, caller: Caller) -> Any:
        """What it holds about the caller, as JSON values."""
        ...

    async def erase_user(self, caller: Caller) -> int:
        """Erase that for good; returns how many things there were."""
        ...


class MemoryService:
    """The memory room.

    Args:
        holders: the other rooms that hold data about users, by name.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: Settings,
        worker: Worker,
        agents: AgentsService,
        indexes: Indexes,
        holders: dict[str, Holder],
    ) -> None:
        self._db = db
        self._clock = clock
        self._worker = worker
        self._agents = agents
        self._indexes = indexes
        self._holders = holders
        self.limits = {
            "core": Limit(settings.memory_core_chars, settings.memory_core_entries),
            "archival": Limit(settings.memory_archival_chars),
        }
        worker.register(INDEX_KIND, self.index, queue=INDEX_QUEUE, concurrency=1)

    async def list(
        self, caller: Caller, scope: MemoryListScope, agent_id: str | None, *, limit: int, offset: int
    ) -> MemoryPage:
        """A page of the caller's blocks."""
        records = await self._db.tenant(caller.tenant).scan(lambda tx: store.of_user(tx, caller.user_id))
        wanted = [
            block
            for block in records
            if scope in ("all", _scope(block)) and (not block.agent_id or agent_id in (None, block.agent_id))
        ]
        page = [block_model(block) for block in wanted[offset : offset + limit]]
        return MemoryPage(blocks=page, total=len(wanted), limit=limit, offset=offset)

    async def get(self, caller: Caller, block_type: str, agent_id: str | None) -> MemoryBlock:
        """One block.

        Raises:
            NotFoundError: nothing has been written there yet.
        """
        agent = agent_id or ""
        record = await self._db.tenant(caller.tenant).read(lambda tx: store.one(tx, caller.user_id, agent, block_type))
        if record is None:
            raise _missing(block_type, agent)
        return block_model(record)

    async def update(self, caller: Caller, block_type: str, wanted: MemoryUpdate, key: str | None) -> MemoryBlock:
        """Replace a block's text if it is still the one the caller has read; create it if nothing was expected.

        Raises:
            ConflictError: it is not; the details have the current block. ValidationError: it is too large.
            NotFoundError: there is no such agent.
        """
        check(block_type, wanted.content, self.limits[block_type])
        owner = Owner(caller.tenant, caller.user_id, wanted.agent_id or "")
        if owner.agent_id and wanted.expected_updated_at is None:
            await self._agents.record(caller, owner.agent_id)
        now = self._clock.micros()

        def unit(tx: Tx) -> BlockRecord:
            def write() -> str:
                current = store.one(tx, owner.user_id, owner.agent_id, block_type)
                _require(current, wanted.expected_updated_at, block_type)
                made = self.write(tx, owner, block_type, current, wanted.content)
                return f"{made.id} {made.created_at} {made.updated_at}"

            body = wanted.model_dump_json()
            outcome = once(tx, user_id=owner.user_id, key=key, body=f"{block_type} {body}", now=now, work=write)
            identity, created, updated = outcome.split()
            return BlockRecord(
                identity, owner.user_id, owner.agent_id, block_type, wanted.content, int(created), int(updated)
            )

        record = await self._db.tenant(caller.tenant).write(unit)
        self._worker.ring()
        return block_model(record)

    def write(self, tx: Tx, owner: Owner, block_type: str, current: BlockRecord | None, content: str) -> BlockRecord:
        """Store a block's text in the transaction that has read `current`. Its time always moves on."""
        now = self._clock.micros()
        if current is None:
            made = BlockRecord(new_id(), owner.user_id, owner.agent_id, block_type, content, now, now)
        else:
            updated = max(now, current.updated_at + 1)
            made = BlockRecord(
                current.id, owner.user_id, owner.agent_id, block_type, content, current.created_at, updated
            )
        store.put(tx, made)
        self._note_change(tx, owner)
        return made

    def _note_change(self, tx: Tx, owner: Owner) -> None:
        if self._indexes.embedder is not None:
            job = NewJob(owner.tenant, INDEX_KIND, INDEX_QUEUE, {"user_id": owner.user_id}, dedupe_key=owner.user_id)
            ledger.enqueue(tx, job, self._clock.micros())

    async def index(self, job: Job) -> Settled:
        """The handler of index jobs: learn what new entries mean, until the blocks no longer change meanwhile."""
        user_id = str(job.payload["user_id"])
        while True:
            seen = await self._indexes.learn(job.tenant, user_id)

            def unit(tx: Tx, seen: dict[tuple[str, str], int] = seen) -> bool:
                if store.versions(tx, user_id) != seen:
                    return False
                ledger.settle(tx, job, "done", self._clock.micros())
                return True

            if await self._db.tenant(job.tenant).write(unit):
                return Settled.BY_HANDLER

    async def edit(self, owner: Owner, block_type: str, edit: Edit) -> BlockRecord | None:
        """Change one entry of a block as it is now; None if nothing had to be changed.

        Raises:
            EditError: the entry is not there. ValidationError: the block would be too large.
        """

        def unit(tx: Tx) -> BlockRecord | None:
            current = store.one(tx, owner.user_id, owner.agent_id, block_type)
            before = current.content if current else ""
            content = apply(before, edit)
            if content == before:
                return None
            check(block_type, content, self.limits[block_type])
            return self.write(tx, owner, block_type, current, content)

        record = await self._db.tenant(owner.tenant).write(unit)
        self._worker.ring()
        return record

    async def delete(self, caller: Caller, block_type: str, agent_id: str | None, expected: datetime | None) -> None:
        """Remove a block, if it is still the expected one.

        Raises:
            NotFoundError: there is none. ConflictError: it was changed since.
        """
        agent = agent_id or ""

        def unit(tx: Tx) -> None:
            current = store.one(tx, caller.user_id, agent, block_type)
            if current is None:
                raise _missing(block_type, agent)
            if expected is not None:
                _require(current, expected, block_type)
            store.delete(tx, caller.user_id, agent, block_type)
            self._note_change(tx, Owner(caller.tenant, caller.user_id, agent))

        await self._db.tenant(caller.tenant).write(unit)
        self._worker.ring()

    async def recall(self, caller: Caller, wanted: MemoryRecallRequest) -> MemoryRecallPage:
        """The entries of the user's blocks, and of the agent's if one is named, that fit a question best."""
        owner = Owner(caller.tenant, caller.user_id, wanted.agent_id or "")
        return await self.find(owner, wanted.query, BLOCK_TYPES, limit=wanted.limit, min_score=wanted.min_score or 0.0)

    async def find(
        self, owner: Owner, query: str, block_types: Sequence[str], *, limit: int, min_score: float
    ) -> MemoryRecallPage:
        """The best entries of some types of blocks: the user's, and the agent's if the owner names one."""
        blocks = [(agent, block_type) for agent in {"", owner.agent_id} for block_type in block_types]
        found = await self._indexes.search(
            owner.tenant, owner.user_id, query, blocks=blocks, limit=limit, min_score=min_score
        )
        results: list[MemoryRecallResult] = []
        for hit in found.hits:
            agent_id, block_type = block_of(hit.source)
            results.append(
                MemoryRecallResult(
                    content=hit.text,
                    score=round(hit.score, 4),
                    block_type=block_type,
                    scope="agent" if agent_id else "user",
                    agent_id=agent_id or None,
                    line_number=hit.position + 1,
                    updated_at=to_datetime(found.versions[agent_id, block_type]),
                )
            )
        mode = "hybrid" if found.by_meaning else "keyword"
        return MemoryRecallPage(results=results, mode=mode, pending=found.pending)

    async def export(self, caller: Caller) -> UserExport:
        """Everything the server holds about the caller, room by room."""
        records = await self._db.tenant(caller.tenant).scan(lambda tx: store.of_user(tx, caller.user_id))
        data: dict[str, Any] = {"memory": [block_model(record).model_dump(mode="json") for record in records]}
        for name, holder in self._holders.items():
            data[name] = await holder.export_user(caller)
        return UserExport(user_id=caller.user_id, exported_at=to_datetime(self._clock.micros()), data=data)

    async def erase(self, caller: Caller, *, everything: bool) -> Erasure:
        """Erase the caller's memory for good, what waits to be consolidated included; or whatever any room holds."""
        erased: dict[str, int] = {}
        if everything:
            for name, holder in self._holders.items():
                erased[name] = await holder.erase_user(caller)
        count = await self._db.tenant(caller.tenant).write(lambda tx: store.erase(tx, caller.user_id))
        self._indexes.forget(caller.tenant, caller.user_id)
        return Erasure(erased={"memory": count, **erased})


_SHARED = "About the user, from earlier conversations:\n"
_OWN = "About the user, for you alone:\n"


def core_block(db: Database) -> DynamicBlock:
    """The built-in prompt block of core memory: in the stable prefix, the same text as long as nothing changes."""

    async def write(context: PromptContext) -> str | None:
        policy = context.memory_policy or MemoryPolicy()
        agent_id = context.agent_id or ""
        records = await db.tenant(context.tenant).read(lambda tx: store.cores(tx, context.user_id, agent_id))
        parts = [
            (_OWN if block.agent_id else _SHARED) + block.content.strip()
            for block in records
            if block.content.strip() and (policy.include_agent_core if block.agent_id else policy.include_user_core)
        ]
        return "\n\n".join(parts) or None

    return DynamicBlock(
        "user_memory", write, "What agents keep about the user: core memory.", tags=("memory",), order=50, ttl=0
    )


class MemoryContributor:
    """What memory adds to the turn of a run: archival matches, if the policy wants them. Core memory is a block."""

    def __init__(self, memory: MemoryService) -> None:
        self._memory = memory

    async def contribute(self, ask: PlanAsk) -> Contribution:
        """See `Contributor`."""
        policy = ask.options.memory_policy or MemoryPolicy()
        reminder = await self._reminder(Owner(ask.tenant, ask.user_id, ask.agent_id), ask.message, policy)
        return Contribution(reminders=(reminder,) if reminder else ())

    async def _reminder(self, owner: Owner, message: str, policy: MemoryPolicy) -> str | None:
        if policy.archival_mode != "auto":
            return None
        found = await self._memory.find(
            owner,
            message[:10_000],
            ("archival",),
            limit=policy.archival_limit,
            min_score=policy.archival_min_score or 0.0,
        )
        if not found.results:
            return None
        lines = [f"- {result.content}" for result in found.results]
        return "\n".join(["From the user's archival memory, found for this message:", *lines])


def _require(current: BlockRecord | None, expected: datetime | None, block_type: str) -> None:
    """Refuse a change of a block that is not the one its writer has read."""
    if current is None and expected is None:
        return
    if current is not None and expected is not None and current.updated_at == from_datetime(expected):
        return
    details = {
        "current": block_model(current).model_dump(mode="json") if current else None,
        "expected_updated_at": expected.isoformat() if expected else None,
    }
    if current is None:
        raise ConflictError(
            f"the {block_type} block is gone: it was deleted since you read it",
            details=details,
            hint="Create it with expected_updated_at=None.",
        )
    told = "you expected that there is none" if expected is None else "it was changed since you read it"
    raise ConflictError(
        f"the {block_type} block is another one: {told}",
        details=details,
        hint="details.current is the block as it is: merge your change into it, and expect its updated_at.",
    )


def _missing(block_type: str, agent_id: str) -> NotFoundError:
    whose = f"agent {agent_id!r} has" if agent_id else "the user has"
    return NotFoundError(
        f"{whose} no {block_type} block yet", hint="Create it: update(block_type, content, expected_updated_at=None)."
    )


def _scope(block: BlockRecord) -> str:
    return "agent" if block.agent_id else "user"


def block_model(record: BlockRecord) -> MemoryBlock:
    """A block as the wire shows it."""
    return MemoryBlock(
        id=record.id,
        block_type=record.block_type,
        content=record.content,
        scope=_scope(record),
        agent_id=record.agent_id or None,
        created_at=to_datetime(record.created_at),
        updated_at=to_datetime(record.updated_at),
    )
