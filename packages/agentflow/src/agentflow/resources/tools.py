"""`client.agents.tools`: tools of agents, and running them directly."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from agentflow.callables import read_callable
from agentflow.resources.pages import AsyncPage
from agentflow.resources.runs import segment
from agentflow.resources.streams import AsyncStream, new_id
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.types.tools import (
    Assign,
    McpServer,
    McpServerCreate,
    McpServerList,
    OpenApiImport,
    SetApproval,
    Tool,
    ToolCreate,
    ToolPage,
    ToolRunRequest,
    ToolRunResult,
    ToolTest,
    ToolTestResult,
    ToolUpdate,
)


class AsyncTools:
    """Tools of the tenant, as its agents have them. A tool is named by its id or its name."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def register(
        self,
        agent_id: str,
        callable: Callable[..., Any],  # noqa: A002 - the argument's name in the documentation
        *,
        name: str | None = None,
        description: str | None = None,
        replace: bool = False,
        idempotency_key: str | None = None,
        **settings: Any,
    ) -> Tool:
        """Make a tool of a local Python function, sync or async.

        Its name, docstring, argument types and source are sent; it runs in the server's sandbox, not here. Imports,
        plain constants and functions of the same module that it uses go along.

        Args:
            name, description: in place of the function's own. replace: change the tool of this name, if there is one.
            settings: `tags`, `group`, `require_approval`, `approval_timeout`, `execution_timeout` (seconds),
                `idempotent`, `max_retries`, `secure_execution`, … as for `create`.

        Raises:
            ConfigurationError: the function cannot be sent (a lambda, a closure, a built-in, …).
            ValidationError: the sandbox cannot run it; says why and on which line. ConflictError: the name is taken.
        """
        read = read_callable(callable)
        return await self.create(
            agent_id,
            name=name or read.name,
            description=description or read.description,
            function_code=read.function_code,
            entrypoint=read.name,
            args_schema=settings.pop("args_schema", None) or read.args_schema,
            replace=replace,
            idempotency_key=idempotency_key,
            **settings,
        )

    async def create(
        self,
        agent_id: str,
        *,
        name: str,
        description: str,
        function_code: str | None = None,
        args_schema: dict[str, Any] | None = None,
        tags: Sequence[str] | None = None,
        require_approval: bool = False,
        execution_timeout: float | None = None,
        secure_execution: bool = True,
        http: Any = None,
        credentials: Any = None,
        replace: bool = False,
        idempotency_key: str | None = None,
        **settings: Any,
    ) -> Tool:
        """Define a tool and give it to an agent: source (`function_code`) or an HTTP request (`http`).

        Args:
            function_code: Python with the function to call: the one named like the tool, else the only public one,
                else `entrypoint`. args_schema: JSON Schema of the arguments; read from the source by default.
            execution_timeout: seconds for one attempt. require_approval: somebody must approve each call.
            secure_execution: False asks for full Python in a confined process, which an admin must have allowed.
            http: an `HttpCall` or a dict of its fields. credentials: `Credentials` or a dict; stored sealed.
            replace: change the tool of this name, if there is one.
            settings: further fields of `ToolCreate`: `group`, `icon`, `approval_timeout`, `idempotent`, `max_retries`,
                `param_descriptions`, `llm_usage`, `target_agent_ids`, …

        Raises:
            NotFoundError: no such agent. ConflictError: the name is taken. ValidationError: a field does not hold, or
            the sandbox cannot run the source. NotAvailableError: an admin must allow it.
        """
        given: dict[str, Any] = {
            "function_code": function_code, "args_schema": args_schema, "tags": list(tags) if tags else None,
            "execution_timeout": execution_timeout, "http": http, "credentials": credentials,
            "require_approval": require_approval or None, "secure_execution": secure_execution or False,
            "replace": replace or None, **settings,
        }  # fmt: skip
        fields = {field: value for field, value in given.items() if value is not None}
        body = ToolCreate.model_validate({"name": name, "description": description, **fields}).wire()
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        request = Request("POST", _path(agent_id), body=body, headers=headers, repeatable=True)
        return await self._transport.call(request, Tool)

    async def list(self, agent_id: str | None = None, *, limit: int = 50, offset: int = 0) -> AsyncPage[Tool]:
        """A page of an agent's tools, or of all the tenant has; iterating it walks on through all.

        Args:
            limit: 1 to 100.
        """
        path = "/api/v1/tools" if agent_id is None else _path(agent_id)
        query = {"limit": limit, "offset": offset}
        data = await self._transport.call(Request("GET", path, query, repeatable=True), ToolPage)

        async def fetch(start: int) -> AsyncPage[Tool]:
            return await self.list(agent_id, limit=limit, offset=start)

        return AsyncPage(data, "tools", fetch)

    async def retrieve(self, agent_id: str, tool: str) -> Tool:
        """One of an agent's tools, with its source.

        Raises:
            NotFoundError: the agent has no such tool.
        """
        return await self._transport.call(Request("GET", _path(agent_id, tool), repeatable=True), Tool)

    async def update(self, agent_id: str, tool: str, **changes: Any) -> Tool:
        """Change a tool, for every agent that has it; `require_approval` and `approval_timeout` for this one alone.

        Args:
            changes: fields of `ToolUpdate`; what is left out stays.

        Raises:
            NotFoundError: the agent has no such tool. ConflictError: it is built in, of an MCP server, or code.
        """
        body = ToolUpdate.model_validate(changes).wire()
        return await self._transport.call(Request("PATCH", _path(agent_id, tool), body=body, repeatable=True), Tool)

    async def delete(self, agent_id: str, tool: str) -> None:
        """Take a tool from an agent; one of yours that no agent has any more is gone.

        Raises:
            NotFoundError: the agent has no such tool.
        """
        await self._transport.raw(Request("DELETE", _path(agent_id, tool)))

    async def assign(
        self,
        agent_id: str,
        tool: str,
        *,
        require_approval: bool | None = None,
        approval_timeout: float | None = None,
    ) -> Tool:
        """Give an agent a tool of the tenant.

        Args:
            require_approval: for this agent; what the tool says by default. approval_timeout: seconds.

        Raises:
            NotFoundError: there is no such agent or tool.
        """
        given = {"require_approval": require_approval, "approval_timeout": approval_timeout}
        body = Assign.model_validate({name: value for name, value in given.items() if value is not None}).wire()
        request = Request("PUT", _path(agent_id, tool, "/assignment"), body=body, repeatable=True)
        return await self._transport.call(request, Tool)

    async def unassign(self, agent_id: str, tool: str) -> None:
        """Take a tool from an agent; the tool itself stays.

        Raises:
            NotFoundError: the agent has no such tool.
        """
        await self._transport.raw(Request("DELETE", _path(agent_id, tool, "/assignment")))

    async def set_approval(self, agent_id: str, tool: str, *, enabled: bool, timeout: float | None = None) -> Tool:
        """Whether an agent's calls of a tool need approval.

        Args:
            timeout: seconds until a request for approval expires; 300 by default.

        Raises:
            NotFoundError: the agent has no such tool.
        """
        given = {"enabled": enabled, **({} if timeout is None else {"timeout_seconds": timeout})}
        body = SetApproval.model_validate(given).wire()
        request = Request("PUT", _path(agent_id, tool, "/approval"), body=body, repeatable=True)
        return await self._transport.call(request, Tool)

    async def test(
        self,
        agent_id: str,
        *,
        function_code: str,
        arguments: dict[str, Any] | None = None,
        entrypoint: str | None = None,
        secure_execution: bool = True,
        execution_timeout: float = 30.0,
    ) -> ToolTestResult:
        """A dry run of source, without storing it. A failure of the source is in the result, not raised.

        Args:
            execution_timeout: seconds.

        Raises:
            NotFoundError: no such agent. NotAvailableError: an admin must allow it.
        """
        body = ToolTest(
            function_code=function_code, arguments=arguments or {}, entrypoint=entrypoint,
            secure_execution=secure_execution, execution_timeout=execution_timeout,
        ).model_dump(mode="json", exclude_none=True)  # fmt: skip
        return await self._transport.call(Request("POST", _path(agent_id, "test"), body=body), ToolTestResult)

    async def run(
        self,
        agent_id: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        conversation_id: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> ToolRunResult:
        """Run one of an agent's tools directly and wait for its result; approvals are waited for.

        Args:
            conversation_id, message_id: where it belongs; made up by default.
            idempotency_key: a second run with it is refused while the first goes on.
            timeout: seconds for the whole call, or a `Timeout`.

        Raises:
            NotFoundError: the agent has no such tool. ValidationError: the arguments are not what it takes.
            ConflictError: a run with this key goes on. A failure of the tool is in the result (`is_error`).
        """
        request = _run_request(agent_id, tool, arguments, False, conversation_id, message_id, idempotency_key, timeout)
        return await self._transport.call(request, ToolRunResult)

    def stream(
        self,
        agent_id: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        conversation_id: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> AsyncStream:
        """Run one of an agent's tools directly and read its events. Arguments as for `run`."""
        request = _run_request(agent_id, tool, arguments, True, conversation_id, message_id, idempotency_key, timeout)
        return AsyncStream(self._transport, request)

    async def stream_raw(
        self,
        agent_id: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        conversation_id: str | None = None,
        message_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """The same, as the server's own event dicts."""
        async with self.stream(
            agent_id,
            tool,
            arguments,
            conversation_id=conversation_id,
            message_id=message_id,
            idempotency_key=idempotency_key,
            timeout=timeout,
        ) as events:
            async for event in events:
                yield event.raw

    async def import_openapi(
        self,
        agent_id: str,
        *,
        document: dict[str, Any] | None = None,
        document_url: str | None = None,
        operations: Sequence[str] | None = None,
        **settings: Any,
    ) -> Sequence[Tool]:
        """Make an HTTP tool of each chosen operation of an OpenAPI 3 document.

        Args:
            operations: operationIds; all of them by default.
            settings: `base_url`, `prefix`, `credentials`, `tags`, `require_approval`, `execution_timeout`, `replace`.

        Raises:
            ValidationError: the document cannot be read or used. ConflictError: a name is taken.
        """
        given = {"document": document, "document_url": document_url, **settings}
        given["operations"] = list(operations) if operations is not None else None
        fields = {name: value for name, value in given.items() if value is not None}
        body = OpenApiImport.model_validate(fields).wire()
        page = await self._transport.call(Request("POST", _path(agent_id, "openapi"), body=body), ToolPage)
        return page.tools

    async def attach_mcp(self, agent_id: str, *, name: str, **settings: Any) -> McpServer:
        """Attach an MCP server to an agent: its tools become the agent's, each with approval like any other.

        Args:
            name: of the server; put in front of a tool's name that is taken.
            settings: `url` and `credentials`, or `command`, `args` and `env` (which an admin must allow); `tools`,
                `require_approval`, `approval_timeout`, `timeout` (seconds for a call).

        Raises:
            ValidationError: the server cannot be reached. NotAvailableError: commands are not allowed.
        """
        body = McpServerCreate.model_validate({"name": name, **settings}).wire()
        return await self._transport.call(Request("POST", _mcp_path(agent_id), body=body, repeatable=True), McpServer)

    async def mcp_servers(self, agent_id: str) -> Sequence[McpServer]:
        """The MCP servers attached to an agent."""
        listed = await self._transport.call(Request("GET", _mcp_path(agent_id), repeatable=True), McpServerList)
        return listed.servers

    async def refresh_mcp(self, agent_id: str, server: str) -> McpServer:
        """Ask an MCP server again which tools it has.

        Raises:
            NotFoundError: the agent has no such server. ValidationError: it cannot be reached.
        """
        path = f"{_mcp_path(agent_id)}/{segment(server)}/refresh"
        return await self._transport.call(Request("POST", path, repeatable=True), McpServer)

    async def detach_mcp(self, agent_id: str, server: str) -> None:
        """Take an MCP server and its tools from an agent.

        Raises:
            NotFoundError: the agent has no such server.
        """
        await self._transport.raw(Request("DELETE", f"{_mcp_path(agent_id)}/{segment(server)}"))


def _path(agent_id: str, tool: str | None = None, rest: str = "") -> str:
    own = f"/{segment(tool)}" if tool is not None else ""
    return f"/api/v1/agent/{segment(agent_id)}/tools{own}{rest}"


def _mcp_path(agent_id: str) -> str:
    return f"/api/v1/agent/{segment(agent_id)}/mcp-servers"


def _run_request(
    agent_id: str,
    tool: str,
    arguments: dict[str, Any] | None,
    stream: bool,
    conversation_id: str | None,
    message_id: str | None,
    idempotency_key: str | None,
    timeout: Timeout | float | None,
) -> Request:
    """The request of a direct run. Its ids are minted here, so that every attempt means the same run."""
    body = ToolRunRequest(
        arguments=arguments or {}, conversation_id=conversation_id or new_id(), message_id=message_id or new_id(),
        call_id=new_id(), idempotency_key=idempotency_key, stream=stream,
    ).model_dump(mode="json", exclude_none=True)  # fmt: skip
    return Request("POST", _path(agent_id, tool, "/run"), body=body, repeatable=True, stream=stream, timeout=timeout)
