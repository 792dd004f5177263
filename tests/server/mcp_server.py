"""A real MCP server for tests: over standard input and output, or streamable HTTP. Some of its tools misbehave."""

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tests")
WIRE = os.dup(1)  # the transport moves standard output elsewhere


@server.tool()
def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


@server.tool()
def current_time() -> str:
    """Bears a name that is taken."""
    return "mcp time"


@server.tool()
async def report(context: Context, steps: int) -> str:
    """Report on the way."""
    for step in range(steps):
        await context.report_progress(step, steps, f"step {step}")
    return "reported"


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("it does not work")


@server.tool()
async def hang() -> str:
    """Never answer."""
    await asyncio.sleep(3600)
    return "late"


@server.tool()
def crash() -> str:
    """Die."""
    os._exit(3)


@server.tool()
def huge() -> str:
    """Answer with too much."""
    return "x" * 1_500_000


@server.tool()
def flood() -> str:
    """Write without end what is no protocol and has no line ends."""
    while True:
        os.write(WIRE, b"x" * 65536)


@server.tool()
def environment() -> list[str]:
    """Tell which variables there are."""
    return sorted(os.environ)


@server.tool()
def child(path: str) -> str:
    """Start a process that outlives the call, and note its number."""
    import subprocess

    process = subprocess.Popen(["sleep", "600"])
    Path(path).write_text(str(process.pid))
    return str(os.getpid())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
