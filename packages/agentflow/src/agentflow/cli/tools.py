"""`agentflow tools`."""

import json
from pathlib import Path
from typing import Any

import click

from agentflow.cli.output import agent_id_of, connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow
from agentflow.types.tools import McpServer, Tool

File = click.Path(path_type=Path, dir_okay=False, exists=True)
arguments_option = click.option("--arguments", default="{}", metavar="JSON", help="Arguments, as a JSON object.")


@click.group()
def tools() -> None:
    """List, define, run and gate tools. AGENT and TOOL are names or ids."""


def _object(text: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"this is not JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint=option)
    return value


def _told(tool: Tool, as_json: bool) -> None:
    if as_json:
        write_json(tool)
    else:
        click.echo(f"{tool.name}  {tool.id}")


@tools.command("list")
@click.argument("agent", required=False)
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@connected
def list_(client: AgentFlow, as_json: bool, agent: str | None, limit: int, offset: int) -> None:
    """List an agent's tools, or all there are."""
    page = client.agents.tools.list(agent_id_of(client, agent) if agent else None, limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    rows = [(tool.name, tool.id, tool.kind, tool.require_approval, tool.description) for tool in page.items]
    write_table(["name", "id", "kind", "approval", "description"], rows)


@tools.command()
@click.argument("agent")
@click.argument("tool")
@connected
def show(client: AgentFlow, as_json: bool, agent: str, tool: str) -> None:
    """Show a tool, with its source."""
    found = client.agents.tools.retrieve(agent_id_of(client, agent), tool)
    if as_json:
        write_json(found)
        return
    fields = found.model_dump(mode="json")
    source = fields.pop("function_code", None)
    write_fields(fields)
    if source:
        click.echo(f"\n{source.rstrip()}")


@tools.command()
@click.argument("agent")
@click.argument("file", type=File)
@click.option("--name", help="The function's name by default.")
@click.option("--description", help="The function's docstring by default.")
@click.option("--tag", "tags", multiple=True)
@click.option("--require-approval", is_flag=True)
@click.option("--timeout", "execution_timeout", type=float, help="Seconds for one call.")
@click.option("--full-python", is_flag=True, help="Not in the default sandbox; an admin must have allowed it.")
@click.option("--replace", is_flag=True, help="Change the tool of this name, if there is one.")
@connected
def create(
    client: AgentFlow,
    as_json: bool,
    agent: str,
    file: Path,
    name: str | None,
    description: str | None,
    full_python: bool,
    **settings: Any,
) -> None:
    """Make a tool of the Python source in FILE."""
    agent_id = agent_id_of(client, agent)
    source = file.read_text()
    if name is None or description is None:
        read = client.agents.tools.test(agent_id, function_code=source, secure_execution=not full_python)
        if read.name is None:
            raise click.ClickException((read.error or {}).get("message", "the source cannot be used"))
        name, description = name or read.name, description or read.description
    if not description:
        raise click.UsageError("the function has no docstring: give --description")
    given = {field: value for field, value in settings.items() if value not in (None, ())}
    made = client.agents.tools.create(
        agent_id, name=name, description=description, function_code=source, secure_execution=not full_python, **given
    )
    _told(made, as_json)


@tools.command()
@click.argument("agent")
@click.argument("tool")
@connected
def delete(client: AgentFlow, as_json: bool, agent: str, tool: str) -> None:
    """Take a tool from an agent; one that no agent has any more is gone."""
    client.agents.tools.delete(agent_id_of(client, agent), tool)
    click.echo(json.dumps({"deleted": tool}) if as_json else f"Removed {tool}.")


@tools.command()
@click.argument("agent")
@click.argument("tool")
@click.option("--require-approval/--no-approval", default=None, help="What the tool says by default.")
@connected
def assign(client: AgentFlow, as_json: bool, agent: str, tool: str, require_approval: bool | None) -> None:
    """Give an agent a tool there is."""
    _told(client.agents.tools.assign(agent_id_of(client, agent), tool, require_approval=require_approval), as_json)


@tools.command()
@click.argument("agent")
@click.argument("tool")
@connected
def unassign(client: AgentFlow, as_json: bool, agent: str, tool: str) -> None:
    """Take a tool from an agent; the tool itself stays."""
    client.agents.tools.unassign(agent_id_of(client, agent), tool)
    click.echo(json.dumps({"unassigned": tool}) if as_json else f"{agent} no longer has {tool}.")


@tools.command()
@click.argument("agent")
@click.argument("tool")
@click.argument("state", type=click.Choice(["on", "off"]))
@click.option("--timeout", type=float, help="Seconds until a request expires (300).")
@connected
def approval(client: AgentFlow, as_json: bool, agent: str, tool: str, state: str, timeout: float | None) -> None:
    """Say whether an agent's calls of a tool need approval."""
    changed = client.agents.tools.set_approval(agent_id_of(client, agent), tool, enabled=state == "on", timeout=timeout)
    if as_json:
        write_json(changed)
    elif changed.require_approval:
        click.echo(f"Calls of {changed.name} need approval, within {changed.approval_timeout:g} s.")
    else:
        click.echo(f"Calls of {changed.name} need no approval.")


@tools.command()
@click.argument("agent")
@click.argument("tool")
@arguments_option
@click.option("--stream/--no-stream", default=True, help="Show what happens on the way.")
@click.option("--idempotency-key", help="A second run with it is refused while the first goes on.")
@connected
def run(
    client: AgentFlow,
    as_json: bool,
    agent: str,
    tool: str,
    arguments: str,
    stream: bool,
    idempotency_key: str | None,
) -> None:
    """Run a tool directly. With --json, --stream writes one event a line."""
    from agentflow.cli.streaming import show_stream

    given = _object(arguments, "--arguments")
    agent_id = agent_id_of(client, agent)
    if stream:
        events = client.agents.tools.stream(agent_id, tool, given, idempotency_key=idempotency_key)
        last = show_stream(events, as_json=as_json)
        content: dict[str, Any] = last.content if last is not None else {}
    else:
        result = client.agents.tools.run(agent_id, tool, given, idempotency_key=idempotency_key)
        content = result.raw
        if as_json:
            write_json(result)
    if not as_json:
        value = content.get("result")
        click.echo(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))
    if content.get("is_error"):
        raise SystemExit(1)


@tools.command()
@click.argument("agent")
@click.argument("file", type=File)
@arguments_option
@click.option("--full-python", is_flag=True, help="Not in the default sandbox; an admin must have allowed it.")
@connected
def test(client: AgentFlow, as_json: bool, agent: str, file: Path, arguments: str, full_python: bool) -> None:
    """Run the source in FILE once, without storing it."""
    result = client.agents.tools.test(
        agent_id_of(client, agent),
        function_code=file.read_text(),
        arguments=_object(arguments, "--arguments"),
        secure_execution=not full_python,
    )
    if as_json:
        write_json(result)
    else:
        write_fields(result.model_dump(mode="json"))
    if not result.ok:
        raise SystemExit(1)


@tools.command("import-openapi")
@click.argument("agent")
@click.argument("document")
@click.option("--operation", "operations", multiple=True, help="An operationId; all by default.")
@click.option("--base-url", help="In place of the document's server.")
@click.option("--prefix", help="In front of the tools' names.")
@click.option("--bearer", envvar="AGENTFLOW_BEARER", help="A token for the service; better in the variable.")
@click.option("--require-approval", is_flag=True)
@connected
def import_openapi(
    client: AgentFlow,
    as_json: bool,
    agent: str,
    document: str,
    operations: tuple[str, ...],
    bearer: str | None,
    **settings: Any,
) -> None:
    """Make tools of operations of an OpenAPI DOCUMENT, a JSON file or a URL."""
    given = {name: value for name, value in settings.items() if value}
    if bearer:
        given["credentials"] = {"bearer": bearer}
    if document.startswith(("http://", "https://")):
        given["document_url"] = document
    else:
        given["document"] = _object(Path(document).read_text(), "DOCUMENT")
    made = client.agents.tools.import_openapi(agent_id_of(client, agent), operations=operations or None, **given)
    if as_json:
        write_json(list(made))
    else:
        write_table(["name", "id", "description"], [(tool.name, tool.id, tool.description) for tool in made])


@tools.group()
def mcp() -> None:
    """MCP servers of agents."""


def _server(server: McpServer, as_json: bool) -> None:
    if as_json:
        write_json(server)
    else:
        click.echo(f"{server.name}  {server.id}")
        write_table(
            ["tool", "approval", "description"], [(t.name, t.require_approval, t.description) for t in server.tools]
        )


@mcp.command("list")
@click.argument("agent")
@connected
def mcp_list(client: AgentFlow, as_json: bool, agent: str) -> None:
    """List the MCP servers attached to an agent."""
    found = client.agents.tools.mcp_servers(agent_id_of(client, agent))
    if as_json:
        write_json(list(found))
    else:
        rows = [(one.name, one.id, one.url or one.command, len(one.tools)) for one in found]
        write_table(["name", "id", "where", "tools"], rows)


@mcp.command()
@click.argument("agent")
@click.argument("name")
@click.option("--url", help="Of a streamable HTTP server.")
@click.option("--command", help="Of a server to start; an admin must have allowed it.")
@click.option("--arg", "args", multiple=True, help="An argument of the command.")
@click.option("--bearer", envvar="AGENTFLOW_BEARER", help="A token for the server; better in the variable.")
@click.option("--require-approval", is_flag=True)
@connected
def attach(
    client: AgentFlow, as_json: bool, agent: str, name: str, bearer: str | None, args: tuple[str, ...], **given: Any
) -> None:
    """Attach an MCP server: its tools become the agent's."""
    settings = {field: value for field, value in given.items() if value}
    if args:
        settings["args"] = list(args)
    if bearer:
        settings["credentials"] = {"bearer": bearer}
    _server(client.agents.tools.attach_mcp(agent_id_of(client, agent), name=name, **settings), as_json)


@mcp.command()
@click.argument("agent")
@click.argument("name")
@connected
def refresh(client: AgentFlow, as_json: bool, agent: str, name: str) -> None:
    """Ask an MCP server again which tools it has."""
    _server(client.agents.tools.refresh_mcp(agent_id_of(client, agent), name), as_json)


@mcp.command()
@click.argument("agent")
@click.argument("name")
@connected
def detach(client: AgentFlow, as_json: bool, agent: str, name: str) -> None:
    """Take an MCP server and its tools from an agent."""
    client.agents.tools.detach_mcp(agent_id_of(client, agent), name)
    click.echo(json.dumps({"detached": name}) if as_json else f"{agent} no longer has {name}.")
