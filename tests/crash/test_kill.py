"""kill -9 in the middle of streamed runs, then a restart: every stream resumes with each event exactly once, and every
run finishes. Kill points are random and seeded; each kill meets several runs at different points of their way.
"""

import random
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from agentflow import AgentFlow
from agentflow.events import Event, FinalResponse, TextDelta, TextDiscarded, ToolFinished, ToolStarted

from tests.crash.backend import Backend

RUNS_AT_ONCE = 6


@dataclass
class Seen:
    """What one client saw of one run."""

    words: int
    tool: bool
    run_id: str = ""
    conversation_id: str = ""
    events: list[Event] = field(default_factory=list[Event])


def follow(client: AgentFlow, agent_id: str, words: int, tool: bool, began: threading.Barrier) -> Seen:
    seen = Seen(words, tool)
    call = "[[tool current_time {}]] " if tool else ""
    began.wait()
    stream = client.agents.stream(
        agent_id=agent_id, message=f"{call}[[words {words}]] [[delay 8]]", options={"verbose": True}
    )
    for event in stream:
        seen.events.append(event)
    assert stream.run_id
    assert stream.conversation_id
    seen.run_id, seen.conversation_id = stream.run_id, stream.conversation_id
    return seen


def text_of(events: list[Event]) -> str:
    pieces: list[tuple[int, str]] = []
    for event in events:
        if isinstance(event, TextDelta):
            pieces.append((event.seq or 0, event.text))
        elif isinstance(event, TextDiscarded):
            assert event.since_seq is not None
            pieces = [piece for piece in pieces if piece[0] < event.since_seq]
    return "".join(text for _, text in pieces)


def check(client: AgentFlow, seen: Seen, *, called: bool | None = None) -> None:
    """What the client saw is what the log holds: nothing missing, doubled or out of order, and the run is whole.

    `called` says whether its tool was begun, if not by itself.
    """
    numbers = [event.seq for event in seen.events]
    stored = [event.seq for event in client.runs.stream(seen.run_id, verbose=True)]
    assert numbers == stored
    assert numbers == list(range(numbers[0] or 0, (numbers[0] or 0) + len(numbers)))
    final = seen.events[-1]
    expected = " ".join(f"word{number}" for number in range(1, seen.words + 1))
    assert isinstance(final, FinalResponse)
    assert final.text == expected
    assert text_of(seen.events) == expected
    assert final.finish_reason == "stop"
    assert [message.content for message in client.conversations.messages(seen.conversation_id)][-1] == expected
    finished = [event for event in seen.events if isinstance(event, ToolFinished)]
    assert len(finished) == int(seen.tool)
    begun = [event for event in seen.events if isinstance(event, ToolStarted)]
    assert len(begun) == int(seen.tool if called is None else called)
    assert client.runs.retrieve(seen.run_id).status == "completed"


def kill_while_running(tmp_path: Path, seed: int, sig: int) -> int:
    """One kill among several runs; returns how many of them were not finished when it came."""
    chance = random.Random(seed)
    sizes = [chance.randint(20, 80) for _ in range(RUNS_AT_ONCE)]
    began = threading.Barrier(RUNS_AT_ONCE + 1)
    with Backend(tmp_path / f"data-{seed}") as backend, AgentFlow(endpoint=backend.endpoint) as client:
        agent_id = client.agents.by_name("MainAgent").id
        with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
            futures: list[Future[Seen]] = [
                pool.submit(follow, client, agent_id, size, index % 2 == 0, began) for index, size in enumerate(sizes)
            ]
            began.wait()
            time.sleep(chance.uniform(0.0, 0.4))  # the kill point itself, not a wait for something to happen
            unfinished = sum(not future.done() for future in futures)
            backend.stop(sig)
            backend.start()
            seen = [future.result(60) for future in futures]
        for one in seen:
            check(client, one)
    return unfinished


@pytest.mark.slow
def test_a_killed_server_loses_nothing(tmp_path: Path) -> None:
    points = sum(kill_while_running(tmp_path, seed, signal.SIGKILL) for seed in range(11))
    assert points >= 50


@pytest.mark.slow
def test_a_stopped_server_hands_its_runs_over(tmp_path: Path) -> None:
    points = sum(kill_while_running(tmp_path, seed, signal.SIGTERM) for seed in range(100, 103))
    assert points >= 10


@pytest.mark.long
def test_many_kills(tmp_path: Path) -> None:
    assert sum(kill_while_running(tmp_path, seed, signal.SIGKILL) for seed in range(1000, 1100)) >= 400
