"""What the prompt system adds to a run: blocks, inline blocks, resolved references, facts about the session.

The stable prefix comes first and keeps its bytes: a block of it is written once for a conversation, and again only when
its time is over, its definition has changed, or it was invalidated. Everything else is attached to the user's message.
"""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from agentflow.types.prompt_blocks import MAX_BODY
from agentflow.types.runs import ContextRef, RunOptions
from pydantic_core import to_json

from agentflow_server.eventlog import parts_of, runs
from agentflow_server.eventlog.parts import last_part
from agentflow_server.gateway.messages import MESSAGE, TextPart, UserMessage, tagged
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.resources.prompt_blocks.builtin import EntityResolver, PromptContext, zone_of
from agentflow_server.resources.prompt_blocks.service import Definition, PromptBlocksService
from agentflow_server.resources.prompt_blocks.texts import Kept, Texts
from agentflow_server.resources.prompt_blocks.work import Outcome, run_within
from agentflow_server.runtime.history import COMPACTION
from agentflow_server.runtime.plan import Contribution, Notice, PlanAsk
from agentflow_server.storage import Database, Tx

SETTING = "prompt_blocks"
_DEFAULT_TTL = 300


class _Work(NamedTuple):
    """A function that has to be run: for a block, or for a reference."""

    kind: str
    name: str


class PromptBlocksContributor:
    """Adds the prompt system's part to every run.

    Args:
        resolvers: who resolves `context_refs`.
    """

    def __init__(
        self, db: Database, clock: Clock, blocks: PromptBlocksService, resolvers: Sequence[EntityResolver] = ()
    ) -> None:
        self._db = db
        self._clock = clock
        self._blocks = blocks
        self._resolvers = {(resolver.system, resolver.type): resolver for resolver in resolvers}
        self._texts = Texts()

    async def contribute(self, ask: PlanAsk) -> Contribution:
        """The blocks of a run.

        Raises:
            ValidationError: `client_timezone` is no time zone.
        """
        now = self._clock.micros()
        options = ask.options
        context = PromptContext(
            ask.tenant, ask.user_id, ask.agent_id, ask.agent_name, ask.conversation_id, ask.message,
            to_datetime(now).astimezone(zone_of(options.client_timezone)), options.client_timezone,
            options.session_context, options.memory_policy, ask.agent,
        )  # fmt: skip
        found = await self._blocks.definitions(ask.tenant)
        blocks = [one for one in found if one.is_for(ask.agent_id, ask.agent_name)]
        frozen = await self._frozen(ask, blocks)
        kept = {one.block.name: text for one in blocks if (text := self._kept(ask, one, frozen, now)) is not None}
        outcomes = await run_within(self._work(context, blocks, kept, options), self._blocks.deadline)
        notices: list[Notice] = []
        texts = {one.block.name: self._text(ask, one, kept, outcomes, now, notices) for one in blocks}
        prefix = [one for one in blocks if one.is_prefix]
        attached = [one for one in blocks if not one.is_prefix]
        told = await self._told(ask, [one for one in attached if one.block.scope == "conversation"])
        return Contribution(
            system=_wrapped(prefix, texts),
            context=(
                *_session(options),
                *(text for text in _wrapped(attached, texts) if text not in told),
                *(self._reference(ref, outcomes, notices) for ref in _references(options)),
                *(tagged(block.name, block.body) for block in options.prompt_blocks or ()),
            ),
            notices=tuple(notices),
            settings=self._settings(ask, prefix),
        )

    def _work(
        self, context: PromptContext, blocks: Sequence[Definition], kept: dict[str, Kept], options: RunOptions
    ) -> dict[_Work, Any]:
        work: dict[_Work, Any] = {}
        for one in blocks:
            if one.dynamic is not None and one.block.name not in kept:
                work[_Work("block", one.block.name)] = partial(one.dynamic.function, context)
        for ref in _references(options):
            resolver = self._resolvers.get((ref.system, ref.type))
            if resolver is not None:
                work.setdefault(_Work("ref", _name(ref)), partial(resolver.function, context, ref.id))
        return work

    def _kept(self, ask: PlanAsk, one: Definition, frozen: dict[str, Kept], now: int) -> Kept | None:
        """The text that need not be written again."""
        block = one.block
        if one.dynamic is None or block.mode == "real_time":
            return None
        known = frozen.get(block.name)
        if one.is_prefix and known is not None and known.holds(block.version, now, block.ttl):
            return known
        shared = self._texts.get((ask.tenant, ask.user_id, ask.agent_id, block.name))
        ttl = _DEFAULT_TTL if block.ttl is None else block.ttl
        return shared if shared is not None and shared.holds(block.version, now, ttl) else None

    def _text(
        self,
        ask: PlanAsk,
        one: Definition,
        kept: dict[str, Kept],
        outcomes: dict[_Work, Outcome],
        now: int,
        notices: list[Notice],
    ) -> str | None:
        """What a block says in this run."""
        block = one.block
        if one.dynamic is None:
            return block.body
        text = kept.get(block.name)
        if text is None:
            outcome = _checked(outcomes[_Work("block", block.name)])
            if outcome.problem is not None:
                message = f"prompt block {block.name} was left out: its function {outcome.problem}"
                notices.append(_warning("prompt_block_failed", message, name=block.name))
                return None
            text = Kept(block.version, now, outcome.value)
            if block.mode == "cached":
                self._texts.keep((ask.tenant, ask.user_id, ask.agent_id, block.name), text)
        if one.is_prefix:
            self._texts.keep((ask.tenant, ask.conversation_id, ask.agent_id, "frozen", block.name), text)
        return text.text

    def _reference(self, ref: ContextRef, outcomes: dict[_Work, Outcome], notices: list[Notice]) -> str:
        """A reference as the model sees it, also when nothing could be found."""
        attributes = {"system": ref.system, "type": ref.type, "id": ref.id}
        outcome = outcomes.get(_Work("ref", _name(ref)))
        if outcome is None:
            problem = f"nothing resolves {ref.type} records of {ref.system} on this server"
        elif outcome.problem is not None:
            problem = f"its resolver {outcome.problem}"
        elif outcome.value is None:
            problem = "there is no such record"
        else:
            value = outcome.value
            return tagged("context_ref", value if isinstance(value, str) else to_json(value).decode(), attributes)
        message = f"context reference {_name(ref)} could not be resolved: {problem}"
        notices.append(_warning("context_ref_unresolved", message, **attributes))
        told = f"This reference could not be resolved: {problem}. What it holds is not known."
        return tagged("context_ref", told, attributes)

    async def _frozen(self, ask: PlanAsk, blocks: Sequence[Definition]) -> dict[str, Kept]:
        """What the conversation was told before: from this process's memory, else from the plan of its last run."""
        names = [one.block.name for one in blocks if one.dynamic is not None and one.is_prefix]
        if ask.conversation_id is None or not names:
            return {}
        key = (ask.tenant, ask.conversation_id, ask.agent_id, "frozen")
        known = {name: kept for name in names if (kept := self._texts.get((*key, name))) is not None}
        if known:
            return known
        conversation_id = ask.conversation_id
        return await self._db.tenant(ask.tenant).read(lambda tx: _last_told(tx, ask, conversation_id))

    async def _told(self, ask: PlanAsk, blocks: Sequence[Definition]) -> frozenset[str]:
        """Hidden context that stands in the conversation since its last compaction, and need not be said again."""
        if ask.conversation_id is None or not blocks:
            return frozenset()
        conversation_id = ask.conversation_id
        return await self._db.tenant(ask.tenant).scan(lambda tx: _hidden_since_compaction(tx, conversation_id))

    def _settings(self, ask: PlanAsk, prefix: Sequence[Definition]) -> dict[str, Any]:
        key = (ask.tenant, ask.conversation_id, ask.agent_id, "frozen")
        frozen = {
            one.block.name: list(kept)
            for one in prefix
            if one.dynamic is not None and (kept := self._texts.get((*key, one.block.name))) is not None
        }
        zone = {"client_timezone": ask.options.client_timezone} if ask.options.client_timezone else {}
        return {**zone, **({SETTING: frozen} if frozen else {})}


def _checked(outcome: Outcome) -> Outcome:
    """What a block's function gave, if it is something a model can be told."""
    value = outcome.value
    if outcome.problem is not None or value is None:
        return outcome
    if not isinstance(value, str):
        return Outcome(problem=f"gave {type(value).__name__} and not a text")
    if len(value) > MAX_BODY:
        return Outcome(problem=f"gave {len(value)} characters; at most {MAX_BODY} are taken")
    return Outcome(value.strip() or None)


def _wrapped(blocks: Sequence[Definition], texts: dict[str, str | None]) -> tuple[str, ...]:
    return tuple(tagged(one.block.name, text) for one in blocks if (text := texts[one.block.name]))


def _references(options: RunOptions) -> list[ContextRef]:
    return [ContextRef.model_validate(ref) for ref in options.context_refs or ()]


def _session(options: RunOptions) -> tuple[str, ...]:
    context = options.session_context
    if not context:
        return ()
    return (tagged("session_context", context if isinstance(context, str) else to_json(context).decode()),)


def _name(ref: ContextRef) -> str:
    return f"{ref.system}/{ref.type}/{ref.id}"


def _warning(code: str, message: str, **details: str) -> Notice:
    return Notice(type="warning", content={"code": code, "message": message, **details})


def _last_told(tx: Tx, ask: PlanAsk, conversation_id: str) -> dict[str, Kept]:
    part = last_part(tx, conversation_id, "user", "")
    run = runs.by_id(tx, ask.tenant, part.run_id) if part is not None else None
    if run is None or run.agent_id != ask.agent_id:
        return {}
    settings: dict[str, Any] = json.loads(run.plan).get("settings", {})
    return {name: Kept(*kept) for name, kept in settings.get(SETTING, {}).items()}


def _hidden_since_compaction(tx: Tx, conversation_id: str) -> frozenset[str]:
    compaction = last_part(tx, conversation_id, COMPACTION, "")
    after = int(json.loads(compaction.data)["upto"]) if compaction is not None else -1
    found: set[str] = set()
    for part in parts_of(tx, conversation_id, after=after, thread=""):
        if part.kind == "user":
            message = MESSAGE.validate_json(part.data)
            assert isinstance(message, UserMessage)
            found.update(hidden_text(one.text) for one in message.parts if isinstance(one, TextPart))
    return frozenset(found)


def hidden_text(text: str) -> str:
    """What stands inside the tag of hidden context."""
    return text.removeprefix("<system_context>\n").removesuffix("\n</system_context>")
