"""`make bench`: our server and our SDK, each beside the least that does the same job, in one run on this machine.

Prints ratios; see README.md for the benches that run peers.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
from agentflow import AgentFlow
from agentflow.events import TextDelta

COMMAND = Path(sys.executable).with_name("agentflow")
TOKENS = 20


class Model(BaseHTTPRequestHandler):
    """A model that answers at once with twenty tokens."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    frames = b"".join(
        b"data: "
        + json.dumps({"choices": [{"delta": {"content": f"w{n} "}, "finish_reason": None}]}).encode()
        + b"\n\n"
        for n in range(TOKENS)
    )
    last = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = self.frames + self.last
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


def timed(work: Callable[[], object], count: int) -> float:
    """Median milliseconds of a piece of work."""
    for _ in range(20):
        work()
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def started(statement: str) -> float:
    """Best milliseconds of a fresh interpreter that runs a statement."""
    times: list[float] = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append((time.perf_counter() - began) * 1000)
    return min(times)


def cpu_of(process: subprocess.Popen[str]) -> float:
    """Seconds of CPU a process has used (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row(name: str, ours: float, beside: float, unit: str, what: str) -> None:
    print(f"{name:34} {ours:10.2f} {unit:6} {ours / beside:6.2f} x {what} ({beside:.2f})", flush=True)


def measure(server: subprocess.Popen[str], endpoint: str, model: str) -> None:
    """Runs and streams through the SDK, beside a direct call of the model."""
    ask = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with httpx2.Client() as direct, AgentFlow(endpoint=endpoint) as client:
        agent_id = client.agents.by_name("MainAgent").id
        plain = timed(lambda: direct.post(f"{model}/chat/completions", json=ask).read(), 200)
        began = cpu_of(server)
        ours = timed(lambda: client.agents.run(agent_id=agent_id, message="hello"), 300)
        row("a run, added", ours - plain, plain, "ms", "a direct call of the model")
        row("a run, CPU of the server", (cpu_of(server) - began) / 320 * 1000, plain, "ms", "a direct call, wall")
        conversation = client.conversations.create(agent_id=agent_id)
        early = timed(lambda: conversation.send("again", message_id=str(uuid.uuid4())), 10)
        for _ in range(400):
            conversation.send("again")
        late = timed(lambda: conversation.send("again"), 10)
        row("turn 450 of a conversation", late, early, "ms", "turn 20")
        health = timed(lambda: client.system.health(), 300)
        bare = timed(lambda: direct.get(f"{endpoint}/health").json(), 300)
        row("a call through the SDK", health, bare, "ms", "bare httpx2")
        words = 5000
        began_wall = time.perf_counter()
        stream = client.agents.stream(
            agent_id=agent_id, message=f"[[words {words}]]", options={"model": "agentflow/scripted"}
        )
        seen = sum(len(event.text.split()) for event in stream if isinstance(event, TextDelta))
        assert seen == words
        print(f"{'a burst through server and SDK':34} {words / (time.perf_counter() - began_wall):10.0f} words/s")


def main() -> None:
    model = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=model.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{model.server_port}"
    row("import agentflow", started("import agentflow"), started("pass"), "ms", "python -c pass")
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "DEV_AUTH_BYPASS": "true",
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": address,
            "AGENTFLOW_DEFAULT_MODEL": "openai/m",
        }
        command = [str(COMMAND), "serve", "--data", folder, "--port", "0", "--log-level", "error"]
        began = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        try:
            assert server.stdout is not None
            endpoint = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            with httpx2.Client() as probe:
                probe.get(f"{endpoint}/health", timeout=30)
            print(f"{'cold start to healthy':34} {(time.perf_counter() - began) * 1000:10.0f} ms")
            measure(server, endpoint, address)
        finally:
            server.terminate()
            server.wait(30)
            model.shutdown()


if __name__ == "__main__":
    main()
