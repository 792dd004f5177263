"""A disk that is full: the server says so, keeps what it acknowledged, and goes on when there is room again."""

import resource
from pathlib import Path
from typing import Any

import pytest
from agentflow import AgentFlow
from agentflow.errors import AgentFlowError, RequestTimeoutError, UnavailableError

from tests.crash.backend import Backend

ROOM = 3 * 1024 * 1024


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    backend = Backend(tmp_path / "data")
    backend.start(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM)))
    kept: list[str] = []
    with backend, AgentFlow(endpoint=backend.endpoint, max_retries=0, timeout=2) as client:
        agent_id = client.agents.by_name("MainAgent").id
        message = "x" * 100_000 + "[[say kept]]"
        refused: AgentFlowError | None = None
        while refused is None:
            assert len(kept) < 100
            try:
                ids: dict[str, Any] = {"conversation_id": f"c{len(kept)}", "message_id": "m"}
                kept.append(client.agents.run(agent_id=agent_id, message=message, **ids).run_id)
            except AgentFlowError as error:
                refused = error
        assert kept
        # either it could not be accepted any more, or it was accepted and cannot be finished for now
        assert isinstance(refused, UnavailableError | RequestTimeoutError)
        assert client.system.health().status == "ok"

        def fill() -> None:
            for number in range(100):
                client.agents.create(name=f"agent {number}", system_prompt="y" * 200_000)

        with pytest.raises(UnavailableError):
            fill()
        backend.stop()
        backend.start()
        assert [client.runs.retrieve(run_id).status for run_id in kept] == ["completed"] * len(kept)
        unfinished: dict[str, Any] = {"conversation_id": f"c{len(kept)}", "message_id": "m"}
        assert client.agents.run(agent_id=agent_id, message=message, **unfinished, timeout=20).text == "kept"
