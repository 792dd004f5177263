"""kill -9 in the middle of sub-agents, then a restart: parent and children go on, and nothing is done twice."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from agentflow import AgentFlow
from agentflow.events import Event, FinalResponse, SubAgentFinished, SubAgentStarted, ToolFinished, ToolStarted

from tests.crash.backend import Backend


def message_of(words: int) -> str:
    deep = f"[[tool deep {json.dumps({'message': f'[[words {words}]] [[delay 8]]'})}]]"
    calls = [
        f"[[tool left {json.dumps({'message': deep})}]]",
        f"[[tool right {json.dumps({'message': f'[[words {words}]] [[delay 8]]'})}]]",
        f"[[tool right {json.dumps({'message': f'[[words {words}]] [[delay 8]]', 'background': True})}]]",
    ]
    return " ".join([*calls, "[[plan Ask; Tell]] [[say draft]] [[revise longer]] [[revised whole answer]]"])


def check(client: AgentFlow, events: list[Event], words: int) -> None:
    numbers = [event.seq for event in events]
    final = events[-1]
    assert isinstance(final, FinalResponse)
    assert final.text == "whole answer"
    assert final.run_id
    assert final.conversation_id
    assert numbers == [event.seq for event in client.runs.stream(final.run_id, verbose=True)]
    started = [event for event in events if isinstance(event, ToolStarted)]
    finished = [event for event in events if isinstance(event, ToolFinished)]
    assert sorted(str(event.name) for event in started) == ["deep", "left", "right", "right"]
    assert len(finished) == 4
    assert not [event for event in finished if event.is_error]
    children = [event.run_id for event in events if isinstance(event, SubAgentStarted)]
    assert len(children) == len(set(children)) == 4
    expected = " ".join(f"word{number}" for number in range(1, words + 1))
    texts = [event.text for event in events if isinstance(event, SubAgentFinished)]
    assert texts.count(expected) >= 2
    assert f"The tool deep says: {expected}" in texts
    (handle,) = final.background_tasks
    done = client.background.wait(handle["task_id"], timeout=30)
    assert (done.status, done.text) == ("completed", expected)
    tree = client.conversations.timeline(final.conversation_id).calls[0]
    assert [call.name for call in tree.calls] == ["left", "right", "right"]
    assert all(len(call.calls) == 1 and call.calls[0].status == "completed" for call in tree.calls)
    told = client.conversations.messages(final.conversation_id)
    assert [message.content for message in told][1:] == ["whole answer"]


def kill_while_delegating(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    words = chance.randint(10, 40)
    with Backend(tmp_path / f"data-{seed}") as backend, AgentFlow(endpoint=backend.endpoint) as client:
        boss = client.agents.create(name="Boss").id
        left = client.agents.subagents.create(boss, name="Left", description="Works.").id
        client.agents.subagents.create(boss, name="Right", description="Works.", background=True)
        client.agents.subagents.create(left, name="Deep", description="Works.")
        options = {"verbose": True, "enable_planning": True, "enable_reflection": True}
        began = threading.Barrier(4)

        def follow() -> list[Event]:
            began.wait()
            return list(client.agents.stream(agent_id=boss, message=message_of(words), options=options))

        with ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(follow) for _ in range(3)]
            began.wait()
            for _ in range(2):
                time.sleep(chance.uniform(0.0, 0.45))  # the kill point itself
                backend.stop()
                backend.start()
            seen = [future.result(60) for future in futures]
        for events in seen:
            check(client, events, words)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_killed_server_goes_on_with_its_subagents(tmp_path: Path, seed: int) -> None:
    kill_while_delegating(tmp_path, seed)
