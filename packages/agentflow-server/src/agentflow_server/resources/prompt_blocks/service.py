"""Prompt blocks: defined, changed, tried. Called by routes, and by `contribute` for every run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agentflow.errors import ConflictError, NotFoundError, ValidationError
from agentflow.types.prompt_blocks import (
    PromptBlock,
    PromptBlockCreate,
    PromptBlockPage,
    PromptBlockPreview,
    PromptBlockPreviewRequest,
    PromptBlockUpdate,
)

from agentflow_server.gateway.messages import tagged
from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.resources.prompt_blocks import store
from agentflow_server.resources.prompt_blocks.builtin import DATETIME, DynamicBlock, PromptContext, zone_of
from agentflow_server.resources.prompt_blocks.store import BlockRecord
from agentflow_server.resources.prompt_blocks.work import run_within
from agentflow_server.storage import Database, Tx
from agentflow_server.storage.idempotency import once

MAX_BLOCKS = 200
_KEPT = ("description", "message", "mode", "scope", "tags", "order", "ttl", "agents")


@dataclass(frozen=True, slots=True)
class Definition:
    """A block as it stands for a tenant: its own row, or a function with what the tenant has changed of it."""

    block: PromptBlock
    dynamic: DynamicBlock | None = None

    @property
    def is_prefix(self) -> bool:
        """Whether it belongs to the stable prefix; all others are attached to the user's message."""
        block = self.block
        return (block.message, block.scope, block.mode) == ("system", "conversation", "cached")

    def is_for(self, agent_id: str | None, agent_name: str | None) -> bool:
        """Whether it is enabled, and for this agent."""
        agents = self.block.agents
        return self.block.enabled and (not agents or agent_id in agents or agent_name in agents)


class PromptBlocksService:
    """The prompt_blocks room.

    Args:
        dynamic: blocks that functions write, besides the server's own. deadline: seconds such a function may take.
    """

    def __init__(self, db: Database, clock: Clock, dynamic: Sequence[DynamicBlock] = (), deadline: float = 2.0) -> None:
        self._db = db
        self._clock = clock
        self._dynamic = {block.name: block for block in (DATETIME, *dynamic)}
        self.deadline = deadline

    def add(self, block: DynamicBlock) -> None:
        """Take in a block of another room, while the server is put together."""
        self._dynamic[block.name] = block

    async def definitions(self, tenant: str) -> list[Definition]:
        """Every block of a tenant in its order, the disabled ones too."""
        records = await self._db.tenant(tenant).read(store.every)
        return self._merged(records)

    def _merged(self, records: Sequence[BlockRecord]) -> list[Definition]:
        rows = {record.name: record for record in records}
        names = {*rows, *self._dynamic}
        found = [self._definition(name, rows.get(name)) for name in names]
        return sorted(
            (definition for definition in found if definition is not None),
            key=lambda definition: (definition.block.order, definition.block.name),
        )

    def _definition(self, name: str, record: BlockRecord | None) -> Definition | None:
        """The block of this name; None for what a tenant has changed of a function that is gone."""
        if record is not None and record.data["type"] == "static":
            return Definition(_block(record, {**record.data, "builtin": False}))
        dynamic = self._dynamic.get(name)
        if dynamic is None:
            return None
        fields = {field: getattr(dynamic, field) for field in _KEPT}
        fields.update(tags=list(dynamic.tags), agents=list(dynamic.agents), type="dynamic", builtin=True)
        if record is None:
            return Definition(PromptBlock(name=name, **fields), dynamic)
        return Definition(_block(record, {**fields, **record.data}), dynamic)

    async def list(self, caller: Caller, *, limit: int, offset: int) -> PromptBlockPage:
        """A page of blocks in their order."""
        found = await self.definitions(caller.tenant)
        page = [definition.block for definition in found[offset : offset + limit]]
        return PromptBlockPage(prompt_blocks=page, total=len(found), limit=limit, offset=offset)

    async def retrieve(self, caller: Caller, name: str) -> PromptBlock:
        """One block.

        Raises:
            NotFoundError: there is none of this name.
        """
        return (await self._known(caller, name)).block

    async def _known(self, caller: Caller, name: str) -> Definition:
        record = await self._db.tenant(caller.tenant).read(lambda tx: store.by_name(tx, name))
        return self._found(name, record)

    def _found(self, name: str, record: BlockRecord | None) -> Definition:
        definition = self._definition(name, record)
        if definition is None:
            raise NotFoundError(
                f"there is no prompt block {name!r}", hint="client.prompt_blocks.list() shows those there are."
            )
        return definition

    async def create(self, caller: Caller, wanted: PromptBlockCreate, key: str | None = None) -> PromptBlock:
        """Add a static block; a second request with the same idempotency key gives the block of the first.

        Raises:
            ConflictError: the name is taken, or there are too many. ValidationError: it is dynamic, or has no body.
        """
        if wanted.type == "dynamic":
            raise _invalid("type", "a dynamic block is a function on the server and is not made by a request")
        if not (wanted.body or "").strip():
            raise _invalid("body", "a static block needs a text")
        now = self._clock.micros()
        record = BlockRecord(wanted.name, wanted.model_dump(mode="json", exclude={"name"}), 1, now, now)

        def unit(tx: Tx) -> BlockRecord | None:
            def insert() -> str:
                if store.count(tx) >= MAX_BLOCKS:
                    raise ConflictError(f"there are {MAX_BLOCKS} prompt blocks already: delete some first")
                if wanted.name in self._dynamic or not store.insert(tx, record):
                    raise ConflictError(
                        f"there is a prompt block named {wanted.name!r} already", details={"name": wanted.name}
                    )
                return wanted.name

            body = wanted.model_dump_json()
            return store.by_name(tx, once(tx, user_id=caller.user_id, key=key, body=body, now=now, work=insert))

        return self._found(wanted.name, await self._db.tenant(caller.tenant).write(unit)).block

    async def update(self, caller: Caller, name: str, changes: PromptBlockUpdate) -> PromptBlock:
        """Change a block; its next run sees it. Null takes a `description` or a `ttl` away.

        Raises:
            NotFoundError: there is none. ValidationError: a dynamic block was given a body.
        """
        given = changes.model_dump(mode="json", exclude_unset=True)
        fields = {
            field: value for field, value in given.items() if value is not None or field in ("description", "ttl")
        }
        if "body" in given and not (given["body"] or "").strip():
            raise _invalid("body", "a static block needs a text")
        return await self._change(caller, name, fields)

    async def invalidate(self, caller: Caller, name: str) -> PromptBlock:
        """Forget every kept text of a block, in all conversations and processes.

        Raises:
            NotFoundError: there is none.
        """
        return await self._change(caller, name, {})

    async def _change(self, caller: Caller, name: str, fields: dict[str, Any]) -> PromptBlock:
        now = self._clock.micros()

        def unit(tx: Tx) -> BlockRecord:
            record = store.by_name(tx, name)
            definition = self._found(name, record)
            if definition.dynamic is not None and "body" in fields:
                raise _invalid("body", f"{name} is dynamic: a function on the server writes its text")
            if record is None:
                record = BlockRecord(name, {"type": "dynamic"}, 0, now, now)
            changed = replace(record, data={**record.data, **fields}, version=record.version + 1, updated_at=now)
            store.replace(tx, changed)
            return changed

        return self._found(name, await self._db.tenant(caller.tenant).write(unit)).block

    async def delete(self, caller: Caller, name: str) -> None:
        """Remove a static block.

        Raises:
            NotFoundError: there is none. ConflictError: it comes with the server.
        """
        definition = await self._known(caller, name)
        if definition.dynamic is not None:
            raise ConflictError(
                f"{name} comes with the server and cannot be deleted",
                hint=f"Disable it: client.prompt_blocks.update({name!r}, enabled=False).",
            )
        await self._db.tenant(caller.tenant).write(lambda tx: store.delete(tx, name))

    async def preview(self, caller: Caller, name: str, request: PromptBlockPreviewRequest) -> PromptBlockPreview:
        """A block as the model would see it, with another body if one is given; nothing is stored.

        Raises:
            NotFoundError: there is none. ValidationError: a dynamic block was given a body; its function failed.
        """
        definition = await self._known(caller, name)
        if definition.dynamic is None:
            text = definition.block.body if request.body is None else request.body
        elif request.body is not None:
            raise _invalid("body", f"{name} is dynamic: a function on the server writes its text")
        else:
            context = PromptContext(
                caller.tenant, caller.user_id, request.agent_id, None, None, request.message,
                to_datetime(self._clock.micros()).astimezone(zone_of(request.client_timezone)), request.client_timezone,
            )  # fmt: skip
            outcome = (await run_within({name: partial(definition.dynamic.function, context)}, self.deadline))[name]
            if outcome.problem is not None:
                raise _invalid("name", f"the function of {name} {outcome.problem}")
            text = outcome.value
        text = (text or "").strip()
        wrapped = tagged(name, text) if text else ""
        return PromptBlockPreview(name=name, body=text, wrapped=wrapped, tokens=len(wrapped) // 4)


def _block(record: BlockRecord, fields: dict[str, Any]) -> PromptBlock:
    return PromptBlock(
        name=record.name,
        version=record.version,
        created_at=to_datetime(record.created_at),
        updated_at=to_datetime(record.updated_at),
        **fields,
    )


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])
