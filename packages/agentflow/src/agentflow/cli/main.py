"""The root of the command: which commands there are, and what becomes of errors. Commands are imported when run.

Exit codes: 0 done, 1 the server refused or failed, 2 a mistake in the call or the configuration, 3 the server could not
be reached, 130 interrupted.
"""

import sys
from importlib import import_module
from typing import Any

import click

COMMANDS = {
    "agents": ("agentflow.cli.agents:agents", "List, show, change and run agents."),
    "approvals": ("agentflow.cli.approvals:approvals", "Decide on tool calls that wait for it."),
    "artifacts": ("agentflow.cli.artifacts:artifacts", "Look at what agents have made, and act on it."),
    "attachments": ("agentflow.cli.attachments:attachments", "Upload and download files that runs can be given."),
    "background": ("agentflow.cli.background:background", "Look after work that no run waits for."),
    "cached-results": (
        "agentflow.cli.cached_results:cached_results",
        "Read large tool results that are kept for a while.",
    ),
    "batches": ("agentflow.cli.batches:batches", "Work off many items in the background."),
    "cancellations": ("agentflow.cli.cancellations:cancellations", "Stop what is running."),
    "chat": ("agentflow.cli.chat:chat", "Talk to an agent."),
    "completion": ("agentflow.cli.completion:completion", "Print the completion script of a shell."),
    "completions": ("agentflow.cli.completions:completions", "Classify, extract, summarise, enrich texts."),
    "conversations": ("agentflow.cli.conversations:conversations", "List, show, search and delete conversations."),
    "knowledge-bases": ("agentflow.cli.knowledge_bases:knowledge_bases", "Make, fill and search knowledge bases."),
    "login": ("agentflow.cli.login:login", "Sign in and keep it as a profile."),
    "logout": ("agentflow.cli.login:logout", "Forget a profile's tokens and secrets."),
    "memory": ("agentflow.cli.memory:memory", "Show, search, change and erase what agents keep about you."),
    "models": ("agentflow.cli.models:models", "Show the models, choose one, set policy and keys."),
    "profiles": ("agentflow.cli.profiles:profiles", "List, show, choose and remove profiles."),
    "prompt-blocks": ("agentflow.cli.prompt_blocks:prompt_blocks", "List, show, change and try prompt blocks."),
    "questions": ("agentflow.cli.questions:questions", "Answer what runs ask their user."),
    "runs": ("agentflow.cli.runs:runs", "Show a run, or follow it."),
    "subagents": ("agentflow.cli.subagents:subagents", "Let agents call other agents."),
    "system": ("agentflow.cli.system:system", "Ask the server how it is."),
    "tools": ("agentflow.cli.tools:tools", "List, define, run and gate tools."),
    "token": ("agentflow.cli.login:token", "Print an access token for scripts."),
    "usage": ("agentflow.cli.usage:usage", "Show what was used, and what may be used."),
    "version": ("agentflow.cli.version:version", "Print the version."),
    "whoami": ("agentflow.cli.login:whoami", "Show who you are to the server."),
}
PLUGINS = "agentflow.cli"


class Root(click.Group):
    """The commands of this package, and those that other packages bring as entry points (`serve`, `db`)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*COMMANDS, *_plugins()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name][0].partition(":")
            command = getattr(import_module(module), name)
            return command if isinstance(command, click.Command) else None
        plugin = _plugins().get(cmd_name)
        return plugin.load() if plugin else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in COMMANDS.items()]
        rows += [(name, _plugin_help(name)) for name in _plugins()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


def _plugins() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=PLUGINS)}


def _plugin_help(name: str) -> str:
    command = _plugins()[name].load()
    return command.get_short_help_str(80)


@click.command(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(None, "-V", "--version", package_name="agentflow", message="%(version)s")
def root() -> None:
    """Run AI agents on AgentFlow."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    try:
        code = root.main(args=arguments, prog_name="agentflow", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the command's last line of defence
        sys.exit(_failed(error))
    sys.exit(code if isinstance(code, int) else 0)


def _failed(error: Exception) -> int:
    """Say what went wrong, without a traceback for what a user can mend."""
    from agentflow.errors import AgentFlowError, ConfigurationError, TransportError

    if not isinstance(error, AgentFlowError):
        if type(error).__module__.startswith("pydantic") or isinstance(error, ValueError):
            click.echo(f"Error: {error}", err=True)
            return 2
        raise error
    if "--json" in sys.argv:
        from agentflow.cli.output import error_json

        click.echo(error_json(error), err=True)
    else:
        click.echo(f"Error: {error}", err=True)
    if isinstance(error, ConfigurationError):
        return 2
    return 3 if isinstance(error, TransportError) else 1
