"""kill -9 in the middle of batches: no row is lost, and at most what was under way is asked again. Kills are seeded."""

import random
import sqlite3
import time
from pathlib import Path

import pytest
from agentflow import AgentFlow

from tests.crash.backend import Backend

ITEMS = 1500
UNDER_WAY = 64


def asked(data: Path) -> int:
    """How many model calls were recorded."""
    with sqlite3.connect(data / "agentflow.db") as connection:
        return connection.execute("SELECT COUNT(*) FROM model_calls").fetchone()[0]


def kept(client: AgentFlow, batch_id: str) -> dict[int, str]:
    rows = list(client.batches.iter_output(batch_id))
    return {row.index: row.model_dump()["result"]["summary"] for row in rows}


@pytest.mark.slow
def test_a_killed_server_loses_no_row(tmp_path: Path) -> None:
    chance = random.Random(7)
    kills = 0
    with Backend(tmp_path / "data") as backend, AgentFlow(endpoint=backend.endpoint) as client:
        lines = "".join(f'"[[say {number} and more]] [[delay 60]]"\n' for number in range(ITEMS)).encode()
        batch = client.batches.upload_file(lines, name="items.jsonl", operation="summarize")
        before: dict[int, str] = {}
        while True:
            time.sleep(chance.uniform(0.2, 0.9))  # the kill point itself, not a wait for something to happen
            now = client.batches.retrieve(batch.id)
            rows = kept(client, batch.id)
            assert before.items() <= rows.items(), "a row that was there is gone, or has changed"
            assert len(rows) >= now.processed
            before = rows
            if now.done:
                break
            backend.stop()
            kills += 1
            backend.start()
            after = client.batches.retrieve(batch.id)
            assert after.processed >= now.processed
        assert now.status == "completed"
        assert (now.total, now.succeeded, now.failed) == (ITEMS, ITEMS, 0)
        assert before == {number: f"{number} and more" for number in range(ITEMS)}
        assert kills >= 3
        again = asked(backend.data) - ITEMS
        assert 0 <= again <= kills * UNDER_WAY


@pytest.mark.slow
def test_a_killed_upload_or_import_leaves_nothing_half(tmp_path: Path) -> None:
    chance = random.Random(11)
    with Backend(tmp_path / "data") as backend, AgentFlow(endpoint=backend.endpoint, max_retries=0) as client:
        lines = "".join(f'"[[say {number}]]"\n' for number in range(20_000)).encode()
        batch = client.batches.upload_file(lines, name="items.jsonl", operation="summarize")
        for _ in range(3):
            backend.stop()
            backend.start()
            time.sleep(chance.uniform(0.0, 0.3))
            found = client.batches.retrieve(batch.id)
            assert found.total in (0, 20_000)
        client.batches.cancel(batch.id)
        rows = [row.index for row in client.batches.iter_output(batch.id)]
        assert len(rows) == len(set(rows)) == client.batches.retrieve(batch.id).processed
