"""The event log: what was packed reads as if it were not."""

import random
from typing import Any

from agentflow_server.eventlog import Draft, EventLog, Hub, Scope, StoredEvent, Tail, encode, runs
from agentflow_server.eventlog.erasure import erase
from agentflow_server.eventlog.packing import Packer
from agentflow_server.eventlog.runs import RunHeader
from agentflow_server.eventlog.tail import milestones, read_run
from agentflow_server.kit.clock import SystemClock
from agentflow_server.storage import Database
from agentflow_server.storage.signals import NoSignals

from tests.conformance.conftest import Run

TENANT, CONVERSATION = "t", "c"


def header(call: str, status: str, root: str | None = None) -> RunHeader:
    return RunHeader(
        TENANT, f"run-{call}", CONVERSATION, f"m-{call}", "a", "u", call, root or call, None, status, "h", "{}", None,
        None, 0, 0, 0,
    )  # fmt: skip


def event(type_: str, call: str, root: str, text: str) -> Draft:
    body = encode(
        type_, call_id=call, parent_call_id=None, root_call_id=root, content={"text": text}, timestamp="2026-11-26"
    )
    return Draft(type_, call, root, None, body)


def story(seed: int) -> list[Draft]:
    """Two runs of a conversation and a sub-agent, talking across each other, with texts that are hard to store."""
    chance = random.Random(seed)
    told = [event("start", call, root, "") for call, root in (("one", "one"), ("two", "two"), ("sub", "one"))]
    for _ in range(120):
        call, root = chance.choice([("one", "one"), ("two", "two"), ("sub", "one")])
        for _ in range(chance.choice([1, 2, 30, 700])):
            type_ = chance.choice(["delta", "delta", "delta", "reasoning_delta"])
            told.append(event(type_, call, root, chance.choice(["word ", "a\nb", "é\u2028", "\x00", '"']) * 3))
        if chance.random() < 0.3:
            told.append(event("tool_start", call, root, "x"))
    return [*told, *(event("end", call, root, "") for call, root in (("sub", "one"), ("one", "one"), ("two", "two")))]


async def everything(db: Database, after: int) -> list[StoredEvent]:
    """All events behind a number, as a reader gets them."""
    reader = Tail(db, Hub(NoSignals())).open(TENANT, CONVERSATION)
    reader.start_after(after)
    found: list[StoredEvent] = []
    last = found
    while not last or last[-1].call_id != "two" or last[-1].type != "end":
        last = await reader.next()
        found += last
    reader.close()
    return found


async def rows(db: Database) -> int:
    row = await db.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM events"))
    assert row is not None
    return row["n"]


def test_what_is_packed_reads_as_before(run: Run) -> None:
    async def test(db: Database) -> None:
        log = EventLog(db, Hub(NoSignals()), SystemClock().micros)
        one, two, sub = header("one", "completed"), header("two", "running"), header("sub", "running", "one")
        await db.write(lambda tx: [runs.insert(tx, each) for each in (one, two, sub)])
        told = await log.append(Scope(TENANT, CONVERSATION), story(seed=7))
        mine = db.tenant(TENANT)
        ends = await mine.read(lambda tx: milestones(tx, CONVERSATION))
        packer = Packer(db)
        await packer.pack(one)
        assert await rows(db) == len(told)  # a sub-agent goes on
        await db.write(lambda tx: runs.finish(tx, sub, "completed", 0, result={}, error=None))
        await packer.pack(sub)
        first = await rows(db)
        await db.write(lambda tx: runs.finish(tx, two, "cancelled", 0, result=None, error=None))
        await packer.pack(two)
        both = await rows(db)
        assert len(told) * 0.8 > first > both
        assert both < len(told) / 50
        await packer.pack(two)
        assert await rows(db) == both
        for after in (-1, 0, *random.Random(1).sample(range(len(told) - 1), 40), len(told) - 2):
            assert await everything(db, after) == told[after + 1 :]
        of_one = await mine.read(lambda tx: read_run(tx, one))
        assert of_one == [each for each in told if each.root_call_id == "one"]
        assert await mine.read(lambda tx: milestones(tx, CONVERSATION)) == ends
        await mine.write(lambda tx: erase(tx, CONVERSATION))
        await packer.pack(one)
        assert await rows(db) == 0

    run(test)


def test_what_is_deleted_while_it_is_packed_stays_deleted(run: Run) -> None:
    class Deleting:
        """A database in which somebody deletes the conversation between what the packer reads and what it writes."""

        def __init__(self, db: Database) -> None:
            self._db = db

        def __getattr__(self, name: str) -> Any:
            return getattr(self._db, name)

        async def write(self, *args: Any, **options: Any) -> Any:
            await self._db.tenant(TENANT).write(lambda tx: erase(tx, CONVERSATION))
            return await self._db.write(*args, **options)

    async def test(db: Database) -> None:
        one = header("one", "completed")
        await db.write(lambda tx: runs.insert(tx, one))
        log = EventLog(db, Hub(NoSignals()), SystemClock().micros)
        await log.append(Scope(TENANT, CONVERSATION), [event("delta", "one", "one", "word")] * 50)
        deleting: Any = Deleting(db)
        await Packer(deleting).pack(one)
        assert await rows(db) == 0

    run(test)
