"""Puts the server together. The only place that knows every part; nothing here decides anything."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import ASGIApp

from agentflow_server.definitions import DefinitionError, Definitions, load
from agentflow_server.eventlog import EventLog, Tail
from agentflow_server.gateway import Gateway, GatewaySettings
from agentflow_server.gateway.gateway import Provider
from agentflow_server.ground import Ground, open_ground
from agentflow_server.http import envelope
from agentflow_server.http.audit import Audit
from agentflow_server.http.capacity import Capacity
from agentflow_server.http.doorman import Doorman
from agentflow_server.http.identity import Admit, Identity, current_caller, describe
from agentflow_server.http.limits import Limits
from agentflow_server.http.sse import Streams
from agentflow_server.http.tokens import Tokens
from agentflow_server.kit import telemetry
from agentflow_server.kit.clock import Clock
from agentflow_server.kit.secrets import Secrets, open_secrets
from agentflow_server.kit.settings import Settings, SettingsError
from agentflow_server.resources.agents import routes as agents_routes
from agentflow_server.resources.agents.service import AgentsService
from agentflow_server.resources.approvals import follow as approvals_follow
from agentflow_server.resources.approvals import routes as approvals_routes
from agentflow_server.resources.approvals.service import ApprovalsService
from agentflow_server.resources.artifacts import routes as artifacts_routes
from agentflow_server.resources.artifacts.service import ArtifactsService, CodeType, code_types
from agentflow_server.resources.artifacts.tool import Artifacts
from agentflow_server.resources.attachments import routes as attachments_routes
from agentflow_server.resources.attachments.contribute import AttachmentsContributor
from agentflow_server.resources.attachments.service import AttachmentsService
from agentflow_server.resources.background import follow as background_follow
from agentflow_server.resources.background import routes as background_routes
from agentflow_server.resources.background.service import BackgroundService
from agentflow_server.resources.background.tool import BackgroundWork
from agentflow_server.resources.batches import routes as batches_routes
from agentflow_server.resources.batches.importer import Importer
from agentflow_server.resources.batches.runner import BatchRunner
from agentflow_server.resources.batches.service import BatchesService
from agentflow_server.resources.batches.webhooks import Webhooks
from agentflow_server.resources.cached_results import routes as cached_results_routes
from agentflow_server.resources.cached_results.service import CachedResultsService
from agentflow_server.resources.cached_results.tool import CachedResults
from agentflow_server.resources.cancellations import routes as cancellations_routes
from agentflow_server.resources.cancellations.service import CancellationsService
from agentflow_server.resources.completions import routes as completions_routes
from agentflow_server.resources.completions.service import CompletionsService
from agentflow_server.resources.conversations import follow as conversations_follow
from agentflow_server.resources.conversations import routes as conversations_routes
from agentflow_server.resources.conversations.service import ConversationsService
from agentflow_server.resources.knowledge_bases import routes as knowledge_bases_routes
from agentflow_server.resources.knowledge_bases.asking import Asking
from agentflow_server.resources.knowledge_bases.contribute import KnowledgeContributor
from agentflow_server.resources.knowledge_bases.crawl import Crawler
from agentflow_server.resources.knowledge_bases.embedders import Embedders
from agentflow_server.resources.knowledge_bases.finding import Finder
from agentflow_server.resources.knowledge_bases.intake import Intake
from agentflow_server.resources.knowledge_bases.service import KnowledgeBasesService
from agentflow_server.resources.knowledge_bases.tool import KnowledgeTools
from agentflow_server.resources.memory import follow as memory_follow
from agentflow_server.resources.memory import routes as memory_routes
from agentflow_server.resources.memory.consolidation import Consolidation
from agentflow_server.resources.memory.recall import Indexes
from agentflow_server.resources.memory.service import Holder, MemoryContributor, MemoryService, core_block
from agentflow_server.resources.memory.tool import memory_tools
from agentflow_server.resources.models import routes as models_routes
from agentflow_server.resources.models.policy import TenantPolicy
from agentflow_server.resources.models.service import ModelsService
from agentflow_server.resources.prompt_blocks import routes as prompt_blocks_routes
from agentflow_server.resources.prompt_blocks.builtin import DynamicBlock, EntityResolver, PromptContext
from agentflow_server.resources.prompt_blocks.contribute import PromptBlocksContributor
from agentflow_server.resources.prompt_blocks.service import PromptBlocksService
from agentflow_server.resources.questions import follow as questions_follow
from agentflow_server.resources.questions import routes as questions_routes
from agentflow_server.resources.questions.service import QuestionsService
from agentflow_server.resources.questions.tool import AskUser
from agentflow_server.resources.runs import routes as runs_routes
from agentflow_server.resources.runs.service import RunsService
from agentflow_server.resources.subagents import follow as subagents_follow
from agentflow_server.resources.subagents import routes as subagents_routes
from agentflow_server.resources.subagents.service import SubagentsService, linking
from agentflow_server.resources.subagents.tool import Delegations
from agentflow_server.resources.system import routes as system_routes
from agentflow_server.resources.system.service import SystemService, server_version
from agentflow_server.resources.tools import routes as tools_routes
from agentflow_server.resources.tools.builtin import current_time
from agentflow_server.resources.tools.resolver import ToolMaker
from agentflow_server.resources.tools.servers import McpServersService
from agentflow_server.resources.tools.service import ToolsService
from agentflow_server.resources.usage import routes as usage_routes
from agentflow_server.resources.usage.budgets import Defaults, nano
from agentflow_server.resources.usage.meter import UsageMeter
from agentflow_server.resources.usage.service import UsageService
from agentflow_server.retrieval.embedding import bundled_embedder
from agentflow_server.retrieval.index import SearchIndex
from agentflow_server.retrieval.parse import Parser
from agentflow_server.runtime.children import Children
from agentflow_server.runtime.control import Control
from agentflow_server.runtime.detached import KIND as DETACHED_KIND
from agentflow_server.runtime.detached import QUEUE as DETACHED_QUEUE
from agentflow_server.runtime.detached import Detached
from agentflow_server.runtime.engine import Engine, Follower
from agentflow_server.runtime.history import Histories
from agentflow_server.runtime.plan import Contributor
from agentflow_server.runtime.planning import Planning
from agentflow_server.runtime.runner import KIND, QUEUE, Runner
from agentflow_server.runtime.tools import Resolvers
from agentflow_server.storage import Database


@dataclass(slots=True)
class Server:
    """A server that is ready to be served: its ASGI app, and how to tell it that it will stop.

    `close_unused` gives back what was opened if the app is never served.
    """

    app: ASGIApp
    fastapi: FastAPI
    begin_shutdown: Callable[[], None]
    close_unused: Callable[[], None]
    loop: asyncio.AbstractEventLoop | None = None

    def begin_shutdown_from_thread(self) -> None:
        """The same, from another thread than the app's."""
        if self.loop is not None and self.loop.is_running():
            self.loop.call_soon_threadsafe(self.begin_shutdown)


def create_server(
    settings: Settings,
    *,
    gateway_settings: GatewaySettings | None = None,
    providers: Mapping[str, Provider] | None = None,
    clock: Clock | None = None,
    prompt_blocks: Sequence[DynamicBlock] = (),
    entity_resolvers: Sequence[EntityResolver] = (),
) -> Server:
    """Open the database and build the app. Work begins with the app's lifespan.

    Args:
        gateway_settings: which model providers are configured; read from the environment by default.
        providers: further model providers by name, for tests and extensions.
        prompt_blocks, entity_resolvers: functions that write prompt blocks and resolve `context_refs`.

    Raises:
        SettingsError: a setting cannot be used, or the data folder is in use.
    """
    definitions, types = _definitions(settings)
    ground = open_ground(settings, clock)
    db, hub, worker, clock = ground.db, ground.hub, ground.worker, ground.clock
    secrets = open_secrets(settings)
    gateway, models, usage = _model_rooms(settings, gateway_settings, providers, db, clock, secrets)
    log, tail = EventLog(db, hub, clock.micros), Tail(db, hub)
    approvals, questions = ApprovalsService(db, clock, worker), QuestionsService(db, clock, worker)
    maker = ToolMaker(db, settings, secrets, definitions=definitions, approve=approvals.gate)
    tools = ToolsService(db, clock, maker)
    parser = Parser()
    contributors: list[Contributor] = []
    holders: dict[str, Holder] = {}
    written = (core_block(db), *prompt_blocks, *_blocks(definitions))
    blocks = PromptBlocksService(db, clock, written, settings.prompt_block_seconds)
    contributors.append(PromptBlocksContributor(db, clock, blocks, (*entity_resolvers, *_entities(definitions))))
    knowledge = _knowledge(settings, ground, gateway, parser, blocks)
    setups = [linking(definitions.sub_agents, clock)]
    agents = AgentsService(db, clock, gateway, tools, blocks, knowledge, contributors, definitions.agents, setups)
    memory = MemoryService(db, clock, settings, worker, agents, Indexes(db, bundled_embedder()), holders)
    maker.offer(current_time(clock), AskUser(questions), *memory_tools(memory))
    Consolidation(db, clock, settings, worker, gateway, agents, memory)
    contributors += [KnowledgeContributor(knowledge), MemoryContributor(memory)]
    attachments = holders["attachments"] = _attachments(settings, ground, parser, contributors)
    resolvers = Resolvers(maker, Planning(), KnowledgeTools(knowledge))
    histories, followers = Histories(db), _followers(clock, settings)
    engine = Engine(db, log, ground.packer, gateway, resolvers, histories, worker, clock, followers)
    runner, control = _runner(settings, engine, attachments), Control(db, worker, clock)
    conversations = holders["conversations"] = ConversationsService(db, clock, tail, control, gateway, agents)
    subagents = SubagentsService(db, clock, agents)
    core = _Core(settings, engine, runner, control, tail, resolvers, contributors, blocks, conversations)
    runs = RunsService(db, clock, settings, tail, worker, runner, agents, tools, subagents)
    completions = CompletionsService(settings, gateway)
    streams = Streams(settings.max_streams, settings.keep_alive_seconds)
    rooms = (
        agents_routes.router(agents),
        attachments_routes.router(attachments),
        agents_routes.knowledge_router(agents),
        knowledge_bases_routes.router(knowledge),
        *_outputs(core, types),
        *_delegation(core, subagents),
        runs_routes.router(runs, streams),
        conversations_routes.router(conversations, streams),
        cancellations_routes.router(CancellationsService(db, control)),
        memory_routes.router(memory),
        models_routes.router(models),
        prompt_blocks_routes.router(blocks),
        usage_routes.router(usage),
        tools_routes.router(tools, McpServersService(db, clock, maker)),
        approvals_routes.router(approvals),
        questions_routes.router(questions),
        completions_routes.router(completions),
        _batches(settings, ground, secrets, completions, knowledge, streams),
    )
    system = SystemService(settings, db, gateway, ground.signals, clock)
    parts = _Parts(settings, ground, gateway, maker, parser, system, streams)
    return _served(parts, _identity(settings, db, clock, agents.admit), rooms)


def _identity(settings: Settings, db: Database, clock: Clock, admit: Admit) -> Identity:
    """The door: nobody in who is not known, nobody more often than allowed."""
    limits = Limits(db, clock, tenant=settings.tenant_rate_limit, principal=settings.principal_rate_limit)
    return Identity(settings, Tokens(settings, clock), limits, Audit(db, clock, settings.audit_days), admit)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is begun and ended with the server."""

    settings: Settings
    ground: Ground
    gateway: Gateway
    maker: ToolMaker
    parser: Parser
    system: SystemService
    streams: Streams


def _served(parts: _Parts, identity: Identity, rooms: Sequence[APIRouter]) -> Server:
    """The app around the rooms, and how it begins and ends."""
    ground = parts.ground
    telemetry.streams.set_function(lambda: parts.streams.open)

    def begin_shutdown() -> None:
        parts.system.stopping = parts.streams.closing = ground.worker.stopping = True
        ground.hub.ring_all()

    def close_unused() -> None:
        asyncio.run(ground.db.close())
        ground.unlock()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        server.loop = asyncio.get_running_loop()
        await ground.begin()
        try:
            yield
        finally:
            begin_shutdown()
            await ground.stop(parts.settings.shutdown_seconds)
            await identity.aclose()
            await parts.maker.aclose()
            await parts.gateway.aclose()
            await parts.parser.aclose()
            await ground.close()

    app = FastAPI(title="AgentFlow", version=server_version(), lifespan=lifespan)
    envelope.install(app)
    describe(app)
    app.state.identity = identity
    _include(app, *rooms)
    app.include_router(system_routes.router(parts.system))
    uploads = (attachments_routes.UPLOADS, batches_routes.UPLOADS, *knowledge_bases_routes.UPLOADS)
    settings = parts.settings
    capacity = Capacity(settings.max_requests, settings.max_uploads, settings.max_bodies_bytes)
    doorman = Doorman(app, capacity, settings.max_body_bytes, uploads)
    server = Server(doorman, app, begin_shutdown, close_unused)
    return server


def _runner(settings: Settings, engine: Engine, attachments: AttachmentsService) -> Runner:
    """What drives runs, and may look at the images of their messages."""
    engine.images = attachments
    runner = Runner(engine)
    limit = settings.max_concurrent_runs
    engine.worker.register(KIND, runner.handle, queue=QUEUE, concurrency=limit, concludes=True)
    return runner


def _attachments(
    settings: Settings, ground: Ground, parser: Parser, contributors: list[Contributor]
) -> AttachmentsService:
    """The attachments room, and what it adds to runs."""
    service = AttachmentsService(ground.db, ground.clock, settings, ground.blobs, parser)
    contributors.append(AttachmentsContributor(service, settings.max_attachments_per_run))
    return service


def _knowledge(
    settings: Settings, ground: Ground, gateway: Gateway, parser: Parser, blocks: PromptBlocksService
) -> KnowledgeBasesService:
    """The knowledge_bases room, with the jobs and the prompt block it brings."""
    db, clock, worker = ground.db, ground.clock, ground.worker
    index, embedders = SearchIndex(), Embedders(gateway, settings.embedding_model)
    crawler = Crawler(allow_private=settings.allow_private_addresses, pause=settings.crawl_pause_seconds)
    intake = Intake(db, clock, worker, Tail(db, ground.hub), ground.blobs, parser, index, embedders, crawler)
    finder = Finder(db, clock, index, embedders, Asking(gateway))
    limit = parser.limits.file_bytes
    service = KnowledgeBasesService(db, clock, worker, index, embedders, intake, finder, max_file_bytes=limit)

    async def catalogue(context: PromptContext) -> str | None:
        return await service.catalogue(context.tenant, context.agent.get("knowledge_bases") or ())

    told = "The knowledge bases the agent may search."
    name = "available_knowledge_bases"
    blocks.add(DynamicBlock(name, catalogue, told, tags=("catalogue",), order=30, ttl=0))
    return service


def _definitions(settings: Settings) -> tuple[Definitions, dict[str, CodeType]]:
    """What the user's folder defines, and the types of artifacts among it."""
    if settings.app is None:
        return Definitions(), {}
    try:
        found = load(settings.app)
        return found, code_types(found.artifacts)
    except DefinitionError as error:
        raise SettingsError(f"AGENTFLOW_APP: {error}") from error


def _model_rooms(
    settings: Settings,
    given: GatewaySettings | None,
    providers: Mapping[str, Provider] | None,
    db: Database,
    clock: Clock,
    secrets: Secrets,
) -> tuple[Gateway, ModelsService, UsageService]:
    """The gateway between the rooms that rule it: models says who may ask what, usage counts and keeps budgets."""
    gateway_settings = given or GatewaySettings.from_env(os.environ)
    caps = (settings.tenant_monthly_budget, settings.user_monthly_budget)
    budgets = Defaults(*(None if cap is None else nano(cap) for cap in caps))
    private = settings.allow_private_addresses
    policy = TenantPolicy(db, secrets, allow_private=private)
    expiry = gateway_settings.call_timeout + 300
    meter = UsageMeter(db, clock, budgets, expire_after=expiry, rate=settings.tenant_model_rate_limit)
    gateway = Gateway(gateway_settings, providers, policy=policy, meter=meter)
    models = ModelsService(db, clock, gateway, policy, secrets, allow_private=private)
    return gateway, models, UsageService(db, clock, budgets)


def _batches(
    settings: Settings,
    ground: Ground,
    secrets: Secrets,
    completions: CompletionsService,
    knowledge: KnowledgeBasesService,
    streams: Streams,
) -> APIRouter:
    """The batches room, with the jobs it brings."""
    db, clock, worker = ground.db, ground.clock, ground.worker
    webhooks = Webhooks(db, clock, worker, secrets, allow_private=settings.allow_private_addresses)
    runner = BatchRunner(db, clock, settings, worker, completions, webhooks, ground.hub)
    importer = Importer(db, clock, settings, worker, ground.blobs, runner)
    for part in (webhooks, runner, importer):
        part.register()
    service = BatchesService(
        db, clock, settings, worker, importer.blobs, completions, runner, webhooks, Tail(db, ground.hub),
        {"kb_": knowledge.batch},
    )  # fmt: skip
    return batches_routes.router(service, streams)


def _followers(clock: Clock, settings: Settings) -> tuple[Follower, ...]:
    """What rooms note in the transaction that ends a run, in this order."""
    return (
        conversations_follow.follower(clock),
        subagents_follow.follower(clock),
        background_follow.follower(clock),
        approvals_follow.follower(clock),
        questions_follow.follower(clock),
        memory_follow.follower(clock, settings),
    )


@dataclass(frozen=True, slots=True)
class _Core:
    """What rooms that work within runs are put together from."""

    settings: Settings
    engine: Engine
    runner: Runner
    control: Control
    tail: Tail
    resolvers: Resolvers
    contributors: list[Contributor]
    blocks: PromptBlocksService
    conversations: ConversationsService


def _delegation(core: _Core, subagents: SubagentsService) -> list[APIRouter]:
    """Sub-agents, and work that nobody waits for: what runs are given of them, and their routes."""
    engine = core.engine
    children = Children(engine, core.runner)
    delegations = Delegations(subagents, children, background_follow.began)
    background = BackgroundService(engine.db, engine.clock, core.tail, engine.worker, core.control, children)
    detached = Detached(engine, background_follow.tool_ended(engine.clock))
    work = BackgroundWork(engine.db, engine.clock, engine.gateway, background, subagents, detached)
    engine.worker.register(
        DETACHED_KIND,
        detached.handle,
        queue=DETACHED_QUEUE,
        concurrency=core.settings.max_concurrent_runs,
        concludes=True,
    )
    core.contributors.extend((delegations, work))
    core.resolvers.add(delegations, work)
    core.resolvers.wrap(work)
    core.conversations.erase_with(background_follow.erase)
    return [subagents_routes.router(subagents), background_routes.router(background)]


def _blocks(definitions: Definitions) -> list[DynamicBlock]:
    """The prompt blocks of the user's folder."""

    def fixed(body: str | None) -> Callable[[PromptContext], Awaitable[str | None]]:
        async def block(_: PromptContext) -> str | None:
            return body

        return block

    return [
        DynamicBlock(
            one.name, one.function or fixed(one.body), one.description, one.message, one.mode, one.scope, one.tags,
            one.order, None if one.ttl is None else int(one.ttl), one.agents,
        )
        for one in definitions.prompt_blocks.values()
    ]  # fmt: skip


def _entities(definitions: Definitions) -> list[EntityResolver]:
    """The resolvers of references of the user's folder."""
    return [EntityResolver(one.system, one.type, one.resolve) for one in definitions.entity_resolvers.values()]


def _outputs(core: _Core, types: Mapping[str, CodeType]) -> list[APIRouter]:
    """What runs leave behind besides their answers: artifacts, and results too large for the model."""
    engine = core.engine
    artifacts = ArtifactsService(engine.db, engine.clock, types)
    making = Artifacts(artifacts, engine.clock)
    cached = CachedResultsService(engine.db, engine.clock, core.settings)
    cache = CachedResults(cached)
    core.contributors.append(making)

    async def catalogue(context: PromptContext) -> str | None:
        return await making.catalogue(context.tenant, context.agent)

    told = "The kinds of artifacts the agent may make."
    core.blocks.add(DynamicBlock("available_artifacts", catalogue, told, tags=("catalogue",), order=40, ttl=0))
    core.resolvers.add(making, cache)
    core.resolvers.wrap(cache)
    core.conversations.erase_with(artifacts.erase, cached.erase)
    return [artifacts_routes.router(artifacts), cached_results_routes.router(cached)]


def _include(app: FastAPI, *rooms: APIRouter) -> None:
    for room in rooms:
        app.include_router(room, prefix="/api/v1", dependencies=[Depends(current_caller)])
