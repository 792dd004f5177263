"""Clients of a server that things go wrong with: they stream, decide on approvals, hand in batches and documents, write
down what they were told, and insist until they are answered. What they wrote down is checked when all is over.
"""

import collections
import itertools
import random
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agentflow import AgentFlow
from agentflow.errors import ConflictError, RateLimitedError, TransportError, UnavailableError
from agentflow.events import ApprovalRequired, ApprovalResolved, Event, ToolFinished, ToolStarted

from tests.crash.test_kill import Seen, check

T = TypeVar("T")
STREAMING = 5
PATIENCE = 90.0
BUSY = (TransportError, UnavailableError, RateLimitedError)
CHUNK = 400
_NAME = "It has a name of its own, lives in a wood of its own, and is mentioned in this paragraph alone."


@dataclass
class Gated(Seen):
    """A run whose tool waits for an approval, and how that was decided."""

    decision: str = "approved"
    approval: str = ""


@dataclass
class Upload:
    """Documents that the server has taken, by name; None for one that nobody can read."""

    job_id: str
    files: dict[str, str | None]


@dataclass
class Place:
    """Where the clients work: made before anything goes wrong."""

    agent: str
    gated: str
    kb: str


def prepare(client: AgentFlow) -> Place:
    """An agent whose tool may run at once, one whose tool needs an approval, and a knowledge base."""
    gated = client.agents.create(
        name="Gated", llm_config={"model": "agentflow/scripted"}, tools=["current_time"]
    )  # fmt: skip
    client.agents.tools.set_approval(gated.id, "current_time", enabled=True)
    kb = client.knowledge_bases.create_from_files(
        name="Animals", files=[("first.txt", b"first")], chunk_size=CHUNK, overlap_percentage=0.0
    )
    assert kb.status == "completed"
    return Place(client.agents.by_name("MainAgent").id, gated.id, kb.id)


@dataclass
class Load:
    """Clients that go on until they are told to stop, and what they saw."""

    endpoint: str
    seed: int
    place: Place
    stop: threading.Event = field(default_factory=threading.Event)
    runs: list[Seen] = field(default_factory=list[Seen])
    batches: list[str] = field(default_factory=list[str])
    uploads: list[Upload] = field(default_factory=list[Upload])
    broken: int = 0

    @contextmanager
    def working(self) -> Generator[None]:
        """All clients at work, for the length of a block; what they have begun then is brought to its end."""
        work = [*[self._stream] * STREAMING, self._approve, self._approve, self._batch, self._ingest]
        with ThreadPoolExecutor(len(work)) as pool:
            clients: list[Future[None]] = [
                pool.submit(self._client, number, one) for number, one in enumerate(work)
            ]  # fmt: skip
            try:
                yield
            finally:
                self.stop.set()
            for client in clients:
                client.result(PATIENCE + 30)

    def _client(self, number: int, work: Callable[[AgentFlow, str, random.Random], None]) -> None:
        chance = random.Random(self.seed * 1000 + number)
        with AgentFlow(endpoint=self.endpoint, timeout=30) as client:
            for count in itertools.count(1):
                if self.stop.is_set():
                    return
                work(client, f"c{number}-{count}", chance)

    def insist(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer. An answer that says no is raised."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except BUSY as error:
                self.broken += 1
                if time.monotonic() > deadline:
                    raise TimeoutError("no answer came") from error
                time.sleep(0.1)

    def _stream(self, client: AgentFlow, name: str, chance: random.Random) -> None:
        self._run(client, self.place.agent, name, Seen(chance.randint(20, 120), chance.random() < 0.5), chance)

    def _approve(self, client: AgentFlow, name: str, chance: random.Random) -> None:
        decision = "approved" if chance.random() < 0.7 else "denied"
        self._run(client, self.place.gated, name, Gated(chance.randint(5, 40), tool=True, decision=decision), chance)

    def _run(self, client: AgentFlow, agent_id: str, name: str, seen: Seen, chance: random.Random) -> None:
        """Send one message until its run has ended, with the same ids however often it takes."""
        call = "[[tool current_time {}]] " if seen.tool else ""
        message = f"{call}[[words {seen.words}]] [[delay {chance.randint(5, 25)}]]"
        ids: dict[str, Any] = {"conversation_id": name, "message_id": "m"}
        before: list[Event] = []

        def once() -> None:
            nonlocal before
            before, seen.events = max(before, seen.events, key=len), []
            stream = client.agents.stream(agent_id=agent_id, message=message, options={"verbose": True}, **ids)
            for event in stream:
                seen.events.append(event)
                if isinstance(seen, Gated) and isinstance(event, ApprovalRequired):
                    self._decide(client, seen, event)
            assert stream.run_id
            assert stream.conversation_id
            seen.run_id, seen.conversation_id = stream.run_id, stream.conversation_id

        self.insist(once)
        assert [event.raw for event in before] == [event.raw for event in seen.events[: len(before)]]
        self.runs.append(seen)

    def _decide(self, client: AgentFlow, seen: Gated, event: ApprovalRequired) -> None:
        assert event.id
        seen.approval = event.id
        decision: Any = seen.decision
        try:
            self.insist(lambda: client.approvals.respond(seen.approval, decision))
        except ConflictError:  # it was taken, and the answer was lost
            assert self.insist(lambda: client.approvals.retrieve(seen.approval)).status == seen.decision

    def _batch(self, client: AgentFlow, name: str, chance: random.Random) -> None:
        """Hand a batch in, and look at it until it has ended: what was there stays, and is there once."""
        texts = [f"[[say {name} {number}]] [[delay 25]]" for number in range(chance.randint(40, 150))]
        if chance.random() < 0.5:
            lines = "".join(f'"{text}"\n' for text in texts).encode()
            made = self.insist(
                lambda: client.batches.upload_file(
                    lines, name="items.jsonl", operation="summarize", idempotency_key=name
                )
            )
        else:
            made = self.insist(
                lambda: client.batches.submit(operation="summarize", items=texts, idempotency_key=name)
            )  # fmt: skip
        self.batches.append(made.id)
        kept: dict[int, str] = {}
        deadline = time.monotonic() + PATIENCE
        while True:
            now = self.insist(lambda: client.batches.retrieve(made.id))
            rows = self.insist(lambda: list(client.batches.iter_output(made.id)))
            found = {row.index: row.model_dump()["result"]["summary"] for row in rows}
            assert len(rows) == len(found), "a row is there twice"
            assert kept.items() <= found.items(), "a row that was there is gone, or has changed"
            assert len(rows) >= now.processed
            kept = found
            if now.done:
                break
            assert time.monotonic() < deadline, f"{name} did not end: {now}"
            time.sleep(0.2)
        assert now.status == "completed", now
        assert (now.total, now.succeeded, now.failed) == (len(texts), len(texts), 0)
        assert kept == {number: f"{name} {number}" for number in range(len(texts))}

    def _ingest(self, client: AgentFlow, name: str, chance: random.Random) -> None:
        """Hand documents in, now and then one that cannot be read, and wait until their job has ended."""
        files: dict[str, str | None] = {
            f"{name}-{number}.txt": _text(f"{name}-{number}", chance.randint(3, 30)) for number in range(3)
        }
        if chance.random() < 0.3:
            files[f"{name}-broken.pdf"] = None
        sent = [(file, b"%PDF-1.7 " + file.encode() if text is None else text.encode()) for file, text in files.items()]
        kb = self.place.kb
        job = self.insist(lambda: client.knowledge_bases.upload_documents(kb, files=sent, idempotency_key=name))
        self.uploads.append(Upload(job.job_id, files))
        done = self.insist(lambda: client.knowledge_bases.wait(job.job_id, timeout=PATIENCE))
        broken = sum(text is None for text in files.values())
        assert (done.completed, done.failed) == (len(files) - broken, broken), done


def _word(name: str, place: int) -> str:
    """A word that stands in one paragraph alone."""
    return f"{name}-{place}".replace("-", "x")


def _text(name: str, paragraphs: int) -> str:
    return "\n\n".join(f"The animal {_word(name, place)} is here. {_NAME} {_NAME}" for place in range(paragraphs))


def check_all(client: AgentFlow, load: Load, marks: list[str]) -> None:
    """What the clients saw is what the server holds, and every effect outside is there as often as it should."""
    effects = collections.Counter(line.split()[0] for line in marks)
    assert [line for line, count in collections.Counter(marks).items() if count > 1] == []
    for seen in load.runs:
        if isinstance(seen, Gated):
            _check_gate(client, seen)
        else:
            check(client, seen)
        _check_effect(seen, effects.pop(seen.run_id, 0))
    assert not effects, "a tool was run that no run has asked for"
    _check_documents(client, load)
    assert len({batch.id for batch in client.batches.list(limit=100)}) == len(load.batches), "a batch was taken twice"


def _check_gate(client: AgentFlow, seen: Gated) -> None:
    """The request was told once and decided once, the call came after the decision or not at all."""
    check(client, seen, called=seen.decision == "approved")
    asked = [event for event in seen.events if isinstance(event, ApprovalRequired)]
    decided = [event for event in seen.events if isinstance(event, ApprovalResolved)]
    assert [event.id for event in asked] == [event.id for event in decided] == [seen.approval]
    assert decided[0].type == f"approval_{seen.decision}"
    assert client.approvals.retrieve(seen.approval).status == seen.decision
    begun = [event.seq or 0 for event in seen.events if isinstance(event, ToolStarted)]
    assert all(seq > (decided[0].seq or 0) for seq in begun)


def _check_effect(seen: Seen, count: int) -> None:
    """A call that has succeeded was made once; one that was interrupted at most once; a denied one never."""
    finished = next((event for event in seen.events if isinstance(event, ToolFinished)), None)
    if finished is None or (isinstance(seen, Gated) and seen.decision == "denied"):
        assert count == 0
    elif finished.is_error:
        assert finished.result["error"]["code"] == "interrupted"
        assert count <= 1
    else:
        assert finished.result == {"marked": True}
        assert count == 1


def _check_documents(client: AgentFlow, load: Load) -> None:
    """Every document that was taken is there once: whole, with every passage in its place, or failed with a reason."""
    sent = {name: text for upload in load.uploads for name, text in upload.files.items()}
    kb = load.place.kb
    stored = [file for file in client.knowledge_bases.files(kb, limit=100) if file.name != "first.txt"]
    names = sorted(file.name for file in stored)
    assert names == sorted(sent), f"{set(names) ^ set(sent)} of {names}"
    for file in stored:
        text = sent[file.name]
        if text is None:
            assert (file.status, file.chunk_count) == ("failed", 0)
            assert file.error
            assert file.error_code
            continue
        assert file.status == "completed"
        passages = list(client.knowledge_bases.documents(kb, file.id, limit=100))
        assert [one.position for one in passages] == list(range(file.chunk_count))
        assert "\n\n".join(one.content for one in passages) == text
    if whole := [name for name, text in sent.items() if text is not None]:
        wanted = _word(whole[-1].removesuffix(".txt"), 0)
        found = client.knowledge_bases.search(kb, query=wanted, search_type="keyword", limit=3).documents
        assert wanted in found[0].content
