"""A process of a chaos cluster whose tool `current_time` has an effect outside: it adds a line to a file, slowly.

It is declared not idempotent, so no line may ever be written twice.
"""

import asyncio
import os
import sys
from typing import Any

from agentflow_server.gateway.messages import ToolSpec
from agentflow_server.resources.tools import builtin
from agentflow_server.runtime.tools import ToolInvocation


def marking(_: object) -> builtin.FunctionTool:
    async def mark(invocation: ToolInvocation) -> dict[str, Any]:
        line = f"{invocation.context.run.id} {invocation.tool_call_id}\n"
        handle = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, line.encode())
        os.close(handle)
        await asyncio.sleep(0.15)
        return {"marked": True}

    spec = ToolSpec(name=builtin.CURRENT_TIME, description="Marks.", parameters={"type": "object"})
    return builtin.FunctionTool(spec, mark, idempotent=False)


if __name__ == "__main__":
    builtin.current_time = marking
    from agentflow_server import cli

    command = cli.serve if sys.argv.pop(1) == "serve" else cli.worker
    command()
