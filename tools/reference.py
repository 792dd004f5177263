"""`make docs`: writes what the code itself knows into docs/reference: the API as OpenAPI, the command's help.

`--check` compares, for CI.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from agentflow.cli.main import root
from agentflow_server.app import create_server
from agentflow_server.gateway import GatewaySettings
from agentflow_server.kit.settings import Settings

FOLDER = Path(__file__).resolve().parent.parent / "docs/reference"


def openapi() -> str:
    """The API, as the server describes it."""
    with tempfile.TemporaryDirectory() as folder:
        server = create_server(Settings(data=Path(folder), dev_auth_bypass=True), gateway_settings=GatewaySettings())
        schema: dict[str, Any] = server.fastapi.openapi()
        server.close_unused()
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def commands() -> str:
    """The help of every command."""
    lines = ["# The command", ""]

    def add(command: click.Command, path: str, parent: click.Context | None) -> None:
        context = click.Context(command, info_name=path.split()[-1], parent=parent, max_content_width=100)
        lines.extend([f"## {path}", "", "```text", command.get_help(context).rstrip(), "```", ""])
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                if found is not None:
                    add(found, f"{path} {name}", context)

    add(root, "agentflow", None)
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them."""
    stale: list[str] = []
    for name, text in (("openapi.json", openapi()), ("cli.md", commands())):
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in arguments:
                FOLDER.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if "--check" in arguments and stale:
        print(f"docs/reference is stale ({', '.join(stale)}): run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
