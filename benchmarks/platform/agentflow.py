"""AgentFlow for the platform bench: one `agentflow serve` process; every event is on disk before a reader sees it."""

import os
import shutil
import uuid

from .base import HOME, LLM, Adapter, sse_events


class AgentFlow(Adapter):
    name = "agentflow"
    port = 18190
    venv = "venv-agentflow"
    packages = ("agentflow", "agentflow-server", "fastapi", "uvicorn")
    durable_note = "SQLite WAL, synchronous=FULL: each event is committed before it is sent; runs resume after kill -9"
    has_best = True
    recovery_wait = 5
    synchronous = "full"

    def prepare(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)

    def command(self):
        command = os.environ.get("AGENTFLOW_COMMAND", str(HOME / self.venv / "bin/agentflow"))
        argv = [command, "serve", "--data", str(self.dir / "data"), "--port", str(self.port), "--log-level", "warning"]
        environ = {
            "DEV_AUTH_BYPASS": "true",
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": LLM,
            "AGENTFLOW_DEFAULT_MODEL": "openai/fake",
            "AGENTFLOW_SQLITE_SYNCHRONOUS": self.synchronous,
        }
        return argv, environ

    async def setup(self, c):
        found = await c.json("GET", "/api/v1/agents")
        found = found[1] if isinstance(found, tuple) else found
        self.agent = found["agents"][0]["id"]
        # the peers' agents have no tools
        await c.request("PATCH", f"/api/v1/agent/{self.agent}", {"tools": []})

    async def conversation(self, c):
        return str(uuid.uuid4())

    def _chat(self, conv, text, stream):
        body = {"message": text, "conversation_id": conv, "message_id": str(uuid.uuid4()), "stream": stream}
        return "POST", f"/api/v1/agent/{self.agent}/chat", body, None

    def run(self, conv, text):
        return self._chat(conv, text, False)

    def stream(self, conv, text):
        return self._chat(conv, text, True)

    stream_durable = stream

    def inspect(self, conv):
        return [("GET", f"/api/v1/conversations/{conv}/messages?limit=100", None)]

    def resume(self, conv, raw, headers):
        events = sse_events(raw)
        ids = [identity for _, identity, _ in events if identity]
        run = next(
            (
                data["content"]["run_id"]
                for _, _, data in events
                if isinstance(data, dict) and data.get("type") == "start"
            ),
            None,
        )
        if run is None:
            return None
        last = {"Last-Event-ID": ids[-1]} if ids else {}
        return "GET", f"/api/v1/runs/{run}/stream", None, last


ADAPTER = AgentFlow
