"""Builds the tools of a run from the references in its plan; owns the sandboxes and the MCP sessions they use.

The runtime's `ToolResolver` for every tool that is in the database. Called by the runtime and by this room's service.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.errors import NotAvailableError
from agentflow.types.tools import Credentials, HttpCall

from agentflow_server.connectors.http import secret_headers
from agentflow_server.connectors.mcp import McpPool, McpTarget
from agentflow_server.definitions import Definitions
from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.kit.outbound import outbound_client
from agentflow_server.kit.secrets import SealBrokenError, Secrets
from agentflow_server.kit.settings import Settings
from agentflow_server.resources.tools import store
from agentflow_server.resources.tools.execution import (
    ApprovalGate,
    CodeExecutor,
    Executor,
    Gated,
    GatedTool,
    HttpExecutor,
    McpExecutor,
    RegisteredTool,
    SourceExecutor,
)
from agentflow_server.resources.tools.store import ServerRecord, ToolRecord
from agentflow_server.runtime.context import RunContext
from agentflow_server.runtime.plan import ToolRef
from agentflow_server.runtime.tools import Tool
from agentflow_server.sandbox import Limits, MontySandbox, ProcessSandbox, Sandbox
from agentflow_server.storage import Database, Tx

logger = logging.getLogger(__name__)
REFERENCE = "tool"
DEFAULT_TIMEOUT = 30.0


class ToolMaker:
    """Makes tools of their definitions.

    Args:
        definitions: tools of the operator's folder.
        approve: who decides on calls that need approval.
    """

    def __init__(
        self,
        db: Database,
        settings: Settings,
        secrets: Secrets,
        *,
        definitions: Definitions,
        approve: ApprovalGate,
    ) -> None:
        self._db = db
        self._settings = settings
        self._secrets = secrets
        self._approve = approve
        self._monty = MontySandbox(settings.sandbox_concurrency)
        self._process = ProcessSandbox(settings.sandbox_concurrency)
        self.builtins: dict[str, Tool] = {}
        self.definitions = definitions
        self.mcp = McpPool(allow_private=settings.allow_private_addresses)

    def offer(self, *tools: Tool) -> None:
        """Add tools of the server itself, before any tenant is set up."""
        self.builtins.update({tool.spec.name: tool for tool in tools})

    async def aclose(self) -> None:
        """End the sandboxes' processes and the sessions."""
        await asyncio.gather(self._monty.aclose(), self._process.aclose(), self.mcp.aclose())

    def sandbox(self, *, secure: bool) -> Sandbox:
        """Where source runs.

        Raises:
            NotAvailableError: full Python was asked for, and no admin has allowed it.
        """
        if secure:
            return self._monty
        if not self._settings.allow_full_python:
            message = "this server runs tools in its default sandbox only"
            raise NotAvailableError(
                f"secure_execution: {message}",
                details=[{"field": "secure_execution", "message": message}],
                hint="An admin can allow full Python with AGENTFLOW_ALLOW_FULL_PYTHON=true.",
            )
        return self._process

    async def resolve(self, context: RunContext) -> Mapping[str, Tool]:
        """The run's tools by name."""
        refs = [ref for ref in context.plan.tools if ref.kind == REFERENCE]
        stored = [ref.config["id"] for ref in refs if ref.config["kind"] not in ("builtin", "code")]
        records: dict[str, tuple[ToolRecord, ServerRecord | None]] = {}
        if stored:
            records = await self._db.tenant(context.tenant).read(lambda tx: _records(tx, stored))
        tools: dict[str, Tool] = {}
        for ref in refs:
            tool = self._tool(context.tenant, ref, records)
            if tool is not None:
                tools[ref.name] = self._gated(tool, ref)
        return tools

    def _gated(self, tool: Tool, ref: ToolRef) -> Tool:
        seconds = ref.config.get("approval")
        return tool if seconds is None else GatedTool(tool, Gated(ref.config["id"], tool.spec, seconds), self._approve)

    def _tool(
        self, tenant: str, ref: ToolRef, records: Mapping[str, tuple[ToolRecord, ServerRecord | None]]
    ) -> Tool | None:
        """The tool of a reference; None if it is gone."""
        kind = ref.config["kind"]
        if kind == "builtin":
            return self.builtins.get(ref.name)
        if kind == "code":
            definition = self.definitions.tools.get(ref.name)
            if definition is None:
                return None
            spec = ToolSpec(name=ref.name, description=definition.description, parameters=definition.parameters)
            return RegisteredTool(spec, CodeExecutor(definition), definition.idempotent, definition.max_retries)
        if ref.config["id"] not in records:
            return None
        record, server = records[ref.config["id"]]
        try:
            return self._stored(tenant, record, server)
        except (SealBrokenError, NotAvailableError) as error:
            logger.warning("tool left out", extra={"tool": record.id, "tenant": tenant, "reason": str(error)})
            return None

    def _stored(self, tenant: str, record: ToolRecord, server: ServerRecord | None) -> Tool:
        data = record.data
        usage = data.get("llm_usage")
        text = f"{data['description']}\n\n{usage}" if usage else data["description"]
        spec = ToolSpec(name=record.name, description=text, parameters=data["parameters"])
        idempotent = bool(data.get("idempotent"))
        return RegisteredTool(spec, self._executor(tenant, record, server), idempotent, data.get("max_retries") or 0)

    def _executor(self, tenant: str, record: ToolRecord, server: ServerRecord | None) -> Executor:
        data = record.data
        seconds: float = data.get("execution_timeout") or DEFAULT_TIMEOUT
        if record.kind == "source":
            sandbox = self.sandbox(secure=data.get("secure_execution", True))
            return SourceExecutor(sandbox, data["function_code"], data.get("entrypoint"), Limits(seconds=seconds))
        if record.kind == "http":
            credentials = self.credentials(tenant, f"tool:{record.id}", record.sealed)
            call = HttpCall.model_validate(data["http"])
            return HttpExecutor(self.client, call, credentials, seconds, bool(data.get("idempotent")))
        assert server is not None
        return McpExecutor(self.mcp, self.target(tenant, server), data["mcp"]["tool"], seconds)

    def client(self, seconds: float) -> Any:
        """A client for addresses that users name."""
        return outbound_client(allow_private=self._settings.allow_private_addresses, timeout=seconds)

    def seal(self, tenant: str, purpose: str, credentials: Credentials | None) -> str | None:
        """Credentials as they are stored."""
        if credentials is None:
            return None
        return self._secrets.seal(tenant, purpose, credentials.model_dump_json(exclude_defaults=True))

    def credentials(self, tenant: str, purpose: str, sealed: str | None) -> Credentials | None:
        """Credentials as they were given.

        Raises:
            SealBrokenError: they cannot be opened.
        """
        if sealed is None:
            return None
        return Credentials.model_validate_json(self._secrets.open(tenant, purpose, sealed))

    def target(self, tenant: str, server: ServerRecord) -> McpTarget:
        """Where an MCP server is, and what it is told; the environment of a command is kept as credentials.

        Raises:
            SealBrokenError, NotAvailableError: its credentials cannot be opened; commands are not allowed.
        """
        secret = self.credentials(tenant, f"mcp:{server.name}", server.sealed) or Credentials()
        version = str(server.updated_at)
        identity = f"{tenant}/{server.id}"
        command = server.data.get("command")
        if command is None:
            return McpTarget(identity, version, url=server.data["url"], headers=secret_headers(secret))
        self.require_commands()
        args = tuple(server.data.get("args", ()))
        return McpTarget(identity, version, command=command, args=args, env=secret.headers)

    def require_commands(self) -> None:
        """Refuse MCP servers that are commands unless an admin has allowed them.

        Raises:
            NotAvailableError: nobody has.
        """
        if not self._settings.allow_mcp_commands:
            message = "this server does not start commands for its users"
            raise NotAvailableError(
                f"command: {message}",
                details=[{"field": "command", "message": message}],
                hint="An admin can allow them with AGENTFLOW_ALLOW_MCP_COMMANDS=true; or give a url.",
            )


def _records(tx: Tx, ids: Sequence[str]) -> dict[str, tuple[ToolRecord, ServerRecord | None]]:
    found: dict[str, tuple[ToolRecord, ServerRecord | None]] = {}
    for record in store.by_ids(tx, ids):
        server = store.server_named(tx, record.server_id) if record.server_id else None
        if record.kind != "mcp" or server is not None:
            found[record.id] = (record, server)
    return found
