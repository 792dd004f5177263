"""`agentflow chat` on a terminal: what a person sees and types."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from agentflow import AgentFlow
from agentflow_server.testing import LocalServer

from tests.crash.backend import COMMAND

ITEMS = [
    {"id": "colour", "question": "Which colour?", "type": "choice", "options": ["red", "blue"]},
    {"id": "sizes", "question": "Which sizes?", "type": "multiple_choice", "options": ["S", "M", "L"]},
    {"id": "amount", "question": "How many?", "type": "number"},
    {"id": "gift", "question": "Is it a gift?", "type": "boolean"},
    {"id": "note", "question": "Anything else?", "required": False},
]


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str, endpoint: str) -> None:
        self._side, other = os.openpty()
        environ = {**os.environ, "AGENTFLOW_ENDPOINT": endpoint, "TERM": "dumb"}
        self.process = subprocess.Popen(
            [str(COMMAND), *arguments], stdin=other, stdout=other, stderr=other, env=environ, start_new_session=True
        )
        os.close(other)
        self.screen = ""

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def wait_for(self, text: str) -> str:
        """Until the screen shows a text; returns what came with it, up to there."""
        deadline = time.monotonic() + 30
        while text not in self.screen:
            ready, _, _ = select.select([self._side], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.screen!r}"
            try:
                self.screen += os.read(self._side, 65_536).decode()
            except OSError:  # the other side has gone
                raise AssertionError(f"{text!r} did not come before the end: {self.screen!r}") from None
        before, _, self.screen = self.screen.partition(text)
        return before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        os.close(self._side)


@pytest.fixture
def terminal(server: LocalServer, client: AgentFlow) -> Iterator[Terminal]:
    made = client.agents.create(name="Asker", llm_config={"model": "agentflow/scripted"}, tools=["ask_user"])
    opened = Terminal("chat", "Asker", endpoint=server.endpoint)
    opened.wait_for("> ")
    yield opened
    opened.close()
    client.agents.delete(made.id)


def test_questions_are_asked_and_asked_again(client: AgentFlow, terminal: Terminal) -> None:
    terminal.type(f"[[tool ask_user {json.dumps({'questions': ITEMS})}]]\n")
    terminal.wait_for("Which colour? [red | blue]: ")
    terminal.type("green\n")
    terminal.wait_for("Which sizes? [S | M | L]: ")
    terminal.type("S, L\n")
    for question, answer in (("How many?: ", "3"), ("Is it a gift?: ", "yes"), ("Anything else?: ", "")):
        terminal.wait_for(question)
        terminal.type(answer + "\n")
    assert "colour: must be one of 'red', 'blue'" in terminal.wait_for("Which colour? [red | blue]: ")
    for answer in ("red", "S, L", "3", "yes", ""):
        terminal.type(answer + "\n")
    terminal.wait_for("> ")
    answered = client.questions.list(status="answered").items[0]
    assert answered.answers == {"colour": "red", "sizes": ["S", "L"], "amount": 3, "gift": True}
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0


def test_ctrl_c_stops_the_answer_and_the_talk_goes_on(client: AgentFlow, terminal: Terminal) -> None:
    terminal.type("[[words 2000]] [[delay 20]]\n")
    terminal.wait_for("word5")
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.wait_for("> ")
    terminal.type("[[say still here]]\n")
    assert "still here" in terminal.wait_for("> ").split("]]")[-1]
    timeline = client.conversations.timeline(client.conversations.list(limit=1).conversations[0].id)
    assert [call.status for call in timeline.calls] == ["cancelled", "completed"]
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0
