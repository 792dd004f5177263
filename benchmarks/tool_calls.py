"""Milliseconds that a tool call and a sub-agent hop add to a run: `python benchmarks/tool_calls.py [RUNS]`.

One process, the scripted model, SQLite with `synchronous=FULL`; the kinds of run take turns, so that only their
differences count. A run with a call asks the model twice; a hop adds the child's own model call.
"""

import json
import statistics
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agentflow_server.testing import local_server

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 50
SOURCE = "def source(a: int, b: int) -> int:\n    'Adds.'\n    return a + b\n"
CODE = (
    "from agentflow_server.definitions import tool\n\n"
    "@tool()\nasync def code(a: int, b: int) -> int:\n    'Adds.'\n    return a + b\n"
)
MCP = (
    "from mcp.server.mcpserver import MCPServer\nserver = MCPServer('bench')\n\n"
    "@server.tool()\ndef mcp(a: int, b: int) -> int:\n    return a + b\n\nserver.run('stdio')\n"
)
HOP = '[[tool worker {"message": "[[say ok]]"}]]'


class Adds(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = b"3"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is overridden
        return None


def call(tool: str) -> str:
    return f"[[tool {tool} {json.dumps({'a': 1, 'b': 2})}]]"


def main() -> None:
    web = ThreadingHTTPServer(("127.0.0.1", 0), Adds)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    kinds = {
        "answer only": "",
        "built-in tool": "[[tool current_time {}]]",
        **{f"{name} tool": call(name) for name in ("code", "source", "http", "mcp")},
        "four source tools side by side": call("source") * 4,
        "one sub-agent": HOP,
        "four sub-agents side by side": HOP * 4,
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        app, script = Path(folder) / "app", Path(folder) / "mcp_server.py"
        app.mkdir()
        (app / "tools.py").write_text(CODE)
        script.write_text(MCP)
        with (
            local_server(app=app, allow_private_addresses=True, allow_mcp_commands=True) as server,
            server.client() as client,
        ):
            boss = client.agents.create(name="Boss", tools=["current_time", "code"]).id
            tools = client.agents.tools
            tools.create(boss, name="source", description="Adds.", function_code=SOURCE)
            url = f"http://127.0.0.1:{web.server_address[1]}/add?a={{a}}&b={{b}}"
            numbers = {name: {"type": "integer"} for name in "ab"}
            tools.create(
                boss, name="http", description="Adds.", http={"url": url},
                args_schema={"type": "object", "properties": numbers, "required": ["a", "b"]},
            )  # fmt: skip
            tools.attach_mcp(boss, name="bench", command=sys.executable, args=[str(script)])
            client.agents.subagents.create(boss, name="Worker", description="Works.")
            for name in ("code", "source", "http", "mcp"):
                assert "3" in str(tools.run(boss, name, {"a": 1, "b": 2}).result), name
            for number in range(RUNS + 5):
                for kind, asked in kinds.items():
                    began = time.perf_counter()
                    result = client.agents.run(agent_id=boss, message=f"{asked} [[say ok]]")
                    if number >= 5:
                        times[kind].append((time.perf_counter() - began) * 1000)
                    assert result.text == "ok"
    web.shutdown()
    base = statistics.median(times["answer only"])
    for kind, taken in times.items():
        middle, p95 = statistics.median(taken), sorted(taken)[int(len(taken) * 0.95)]
        print(f"{kind:32} p50 {middle:6.2f} ms  p95 {p95:6.2f} ms  over an answer {middle - base:+6.2f} ms")


main()
