"""`make demo`: a backend on a free port, a profile, and the SDK's quick start in both forms. Leaves nothing behind.

Uses a local or remote model if one is configured (OLLAMA_BASE_URL, OPENAI_API_KEY, …), else the scripted one.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = Path(sys.executable).with_name("agentflow")
QUESTION = "What date and time is it?"


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n## {text}", flush=True)


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start `agentflow serve`; returns the process and its address."""
    environ = {**os.environ, "DEV_AUTH_BYPASS": "true"}
    server = subprocess.Popen(
        [COMMAND, "serve", "--data", folder / "data", "--port", "0", "--log-level", "warning"],
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r"http://\S+", line)
    if found is None:
        raise SystemExit(f"the backend did not start: {line}{server.stdout.read()}")
    return server, found.group()


def synchronous() -> None:
    from agentflow import AgentFlow

    with AgentFlow.from_profile("demo") as client:
        agent_id = client.agents.by_name("MainAgent").id
        result = client.agents.run(agent_id=agent_id, message=QUESTION)
        print(result.text)
        print(f"[{result.metrics.model}, {result.metrics.tool_calls} tool call, {result.metrics.duration_ms:.0f} ms]")


async def asynchronous() -> None:
    from agentflow import AsyncAgentFlow
    from agentflow.events import FinalResponse, TextDelta

    async with AsyncAgentFlow.from_profile("demo") as client:
        agent_id = (await client.agents.by_name("MainAgent")).id
        result = await client.agents.run(agent_id=agent_id, message=QUESTION)
        print(result.text)

        say("A streamed answer")
        async for event in client.agents.stream(agent_id=agent_id, message="Who are you?"):
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
            elif isinstance(event, FinalResponse):
                print(f"\n[{event.finish_reason}, {event.usage['total_tokens']} tokens]")

        say("Two turns of one conversation")
        conversation = await client.conversations.create(agent_id=agent_id)
        for message in ("My favourite colour is green.", "Which is my favourite colour?"):
            print(f"> {message}")
            print((await conversation.send(message)).text)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="agentflow-demo-") as temporary:
        folder = Path(temporary)
        os.environ["AGENTFLOW_CONFIG_DIR"] = str(folder / "config")
        say("Starting the backend: agentflow serve")
        server, endpoint = start(folder)
        try:
            print(endpoint, flush=True)
            say("Signing in: agentflow login --method dev")
            login = [COMMAND, "login", "--endpoint", endpoint, "--profile", "demo", "--method", "dev"]
            subprocess.run(login, check=True)
            say("The quick start")
            synchronous()
            say("The same, asynchronously")
            asyncio.run(asynchronous())
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    say("Done: the backend is stopped and its data removed.")


if __name__ == "__main__":
    main()
