"""Tools on the wire: their definitions, their assignments to agents, MCP servers, direct runs and dry runs."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from agentflow.types.base import Page, RequestModel, ResponseModel
from agentflow.types.runs import Id, RunResult

NAME_PATTERN = r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$"
Name = Field(pattern=NAME_PATTERN, description="1 to 64 letters, digits and _, not beginning with a digit.")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
Address = Annotated[str, Field(min_length=8, max_length=4000)]


class HttpCall(RequestModel):
    """The request an HTTP tool makes.

    Attributes:
        url: a template: `{argument}` stands for an argument, in the path or the query, never in the host.
        headers: fixed ones. header_arguments: header → argument. query: parameter → argument.
        body: field of the JSON object → argument, or the name of the argument that is the whole body. Without `query`
            and `body`, arguments the URL does not name go to the query of GET, HEAD and DELETE, else into the body.
    """

    method: Method = "GET"
    url: Address
    headers: dict[str, str] = Field(default_factory=dict[str, str], max_length=50)
    header_arguments: dict[str, str] = Field(default_factory=dict[str, str], max_length=50)
    query: dict[str, str] | None = Field(default=None, max_length=100)
    body: dict[str, str] | str | None = None
    body_format: Literal["json", "form"] = "json"


class Credentials(RequestModel):
    """What an HTTP tool or an MCP server is given to identify itself. Stored sealed, and never returned."""

    bearer: str | None = Field(default=None, min_length=1, max_length=20_000)
    username: str | None = Field(default=None, max_length=1000)
    password: str | None = Field(default=None, max_length=1000)
    headers: dict[str, str] = Field(default_factory=dict[str, str], max_length=50)
    query: dict[str, str] = Field(default_factory=dict[str, str], max_length=50)


class _Settings(RequestModel):
    tags: list[str] | None = Field(default=None, max_length=100)
    group: str | None = Field(default=None, max_length=200)
    icon: str | None = Field(default=None, max_length=200)
    icon_type: str | None = Field(default=None, max_length=200)
    icon_color: str | None = Field(default=None, max_length=200)
    icon_variant: str | None = Field(default=None, max_length=200)
    llm_usage: str | None = Field(default=None, max_length=4000, description="When and how to use it, for the model.")
    args_schema: dict[str, Any] | None = Field(default=None, description="JSON Schema of the arguments.")
    parameters: dict[str, Any] | None = Field(default=None, description="The same as args_schema.")
    param_descriptions: dict[str, str] | None = None
    entrypoint: str | None = Field(default=None, max_length=200, description="The function of function_code to call.")
    execution_timeout: float | None = Field(default=None, gt=0, le=3600, description="Seconds for one attempt.")
    idempotent: bool | None = Field(default=None, description="A call may be repeated without harm.")
    max_retries: int | None = Field(default=None, ge=0, le=10, description="Further attempts; needs idempotent.")
    require_approval: bool | None = None
    approval_timeout: float | None = Field(default=None, gt=0, le=30 * 86_400, description="Seconds.")
    credentials: Credentials | None = None

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        if self.args_schema is not None and self.parameters is not None:
            raise ValueError("give args_schema or parameters, not both")
        return self

    @property
    def schema_given(self) -> dict[str, Any] | None:
        """The schema of the arguments, under whichever name it came."""
        return self.args_schema if self.args_schema is not None else self.parameters


class ToolCreate(_Settings):
    """A new tool: source (`function_code`) or an HTTP request (`http`).

    Attributes:
        secure_execution: false asks for full Python in a confined process, which an admin must have allowed.
        replace: change the tool of this name, if there is one, in place of a 409.
        target_agent_ids, target_sub_agent_id: further agents that get it.
    """

    name: str = Name
    description: str = Field(min_length=1, max_length=10_000)
    function_code: str | None = Field(default=None, min_length=1, max_length=200_000)
    http: HttpCall | None = None
    secure_execution: bool = True
    target_agent_ids: list[str] | None = Field(default=None, max_length=100)
    target_sub_agent_id: str | None = Field(default=None, max_length=200)
    replace: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.function_code is None) == (self.http is None):
            raise ValueError("give function_code or http, and not both")
        return self


class ToolUpdate(_Settings):
    """Changes to a tool; what is left out stays, for every agent that has it."""

    description: str | None = Field(default=None, min_length=1, max_length=10_000)
    function_code: str | None = Field(default=None, min_length=1, max_length=200_000)
    http: HttpCall | None = None
    secure_execution: bool | None = None


class Assign(RequestModel):
    """How an agent gets a tool. By default calls need approval if the tool says so."""

    require_approval: bool | None = None
    approval_timeout: float | None = Field(default=None, gt=0, le=30 * 86_400)


class SetApproval(RequestModel):
    """Whether an agent's calls of a tool need approval, and for how many seconds it may be given."""

    enabled: bool
    timeout_seconds: float | None = Field(default=None, gt=0, le=30 * 86_400)


class Tool(ResponseModel):
    """A tool as one agent has it.

    Attributes:
        kind: `builtin`, `source`, `http`, `mcp` or `code`. execution_timeout, approval_timeout: seconds.
        require_approval: for this agent. has_credentials: some are stored.
    """

    id: str
    tool_id: str | None = None
    name: str
    description: str
    kind: str = "source"
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    tags: list[str] = Field(default_factory=list[str])
    group: str | None = None
    icon: str | None = None
    icon_type: str | None = None
    icon_color: str | None = None
    icon_variant: str | None = None
    llm_usage: str | None = None
    require_approval: bool = False
    approval_timeout: float = 300.0
    execution_timeout: float = 30.0
    secure_execution: bool | None = None
    idempotent: bool = False
    max_retries: int = 0
    entrypoint: str | None = None
    function_code: str | None = None
    http: dict[str, Any] | None = None
    mcp: dict[str, Any] | None = None
    has_credentials: bool = False
    agent_ids: list[str] = Field(default_factory=list[str])
    created_by_user_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class ToolPage(Page):
    """A page of tools."""

    tools: list[Tool]


class ToolTest(RequestModel):
    """A dry run of source: nothing is stored."""

    function_code: str = Field(min_length=1, max_length=200_000)
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any])
    entrypoint: str | None = Field(default=None, max_length=200)
    secure_execution: bool = True
    execution_timeout: float = Field(default=30.0, gt=0, le=300)


class ToolTestResult(ResponseModel):
    """What a dry run gave.

    Attributes:
        ok: it returned a result. error: `{code, message}`, and `line` where one is known.
        stdout: what it printed. duration_ms: milliseconds.
    """

    ok: bool
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    result: Any = None
    stdout: str = ""
    duration_ms: float | None = None
    progress: list[Any] = Field(default_factory=list[Any])
    error: dict[str, Any] | None = None


class ToolRunRequest(RequestModel):
    """A direct run of a tool.

    Attributes:
        idempotency_key: a second run with it is refused (409) while the first goes on.
        call_id: the id of the run's root call; the SDK sends the same on every attempt of one request.
    """

    arguments: dict[str, Any]
    conversation_id: str | None = Id
    message_id: str | None = Id
    call_id: str | None = Id
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200)
    stream: bool = True


class ToolRunResult(RunResult):
    """What a direct run gave.

    Attributes:
        result: what the tool returned; `{"error": {code, message}}` if `is_error`. events: the run's events.
    """

    name: str | None = None
    result: Any = None
    is_error: bool = False


class OpenApiImport(RequestModel):
    """Operations of an OpenAPI (3.x) document, each to become an HTTP tool.

    Attributes:
        operations: operationIds; None takes all. prefix: in front of the tools' names.
        base_url: in place of the document's first server.
    """

    document: dict[str, Any] | None = None
    document_url: Address | None = None
    operations: list[str] | None = Field(default=None, min_length=1, max_length=100)
    base_url: str | None = Field(default=None, max_length=2000)
    prefix: str = Field(default="", max_length=40, pattern=r"^[a-zA-Z0-9_]*$")
    credentials: Credentials | None = None
    tags: list[str] | None = None
    require_approval: bool = False
    execution_timeout: float | None = Field(default=None, gt=0, le=3600)
    replace: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.document is None) == (self.document_url is None):
            raise ValueError("give document or document_url, and not both")
        return self


class McpServerCreate(RequestModel):
    """An MCP server to attach to an agent: `url` (streamable HTTP) or `command` (stdio, which an admin must allow).

    Attributes:
        credentials: sent to a `url`. env: further environment of a `command`; stored sealed, never returned.
        tools: names of the server's tools to take; None takes all. timeout: seconds for one call.
    """

    name: str = Name
    url: str | None = Field(default=None, min_length=8, max_length=4000)
    command: str | None = Field(default=None, min_length=1, max_length=1000)
    args: list[str] = Field(default_factory=list[str], max_length=100)
    env: dict[str, str] = Field(default_factory=dict[str, str], max_length=100)
    credentials: Credentials | None = None
    tools: list[str] | None = Field(default=None, min_length=1, max_length=500)
    require_approval: bool = False
    approval_timeout: float | None = Field(default=None, gt=0, le=30 * 86_400)
    timeout: float = Field(default=60.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        if (self.url is None) == (self.command is None):
            raise ValueError("give url or command, and not both")
        return self


class McpServer(ResponseModel):
    """An attached MCP server and the tools it brings."""

    id: str
    name: str
    transport: str
    url: str | None = None
    command: str | None = None
    args: list[str] = Field(default_factory=list[str])
    timeout: float = 60.0
    has_credentials: bool = False
    tools: list[Tool] = Field(default_factory=list[Tool])
    created_at: datetime | None = None
    updated_at: datetime | None = None


class McpServerList(ResponseModel):
    """The MCP servers of an agent."""

    servers: list[McpServer]
