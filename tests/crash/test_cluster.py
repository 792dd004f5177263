"""Several processes on one PostgreSQL: any serves any stream, resumes any run, runs any job, hears any cancellation."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import agentflow_server
import httpx2
import psycopg
import pytest
from agentflow import AgentFlow
from agentflow.errors import UnavailableError
from agentflow.events import Event, TextDelta
from agentflow_server.storage.migrations import HEAD

from tests.crash.backend import COMMAND, free_port
from tests.crash.cluster import Process, running_cluster
from tests.crash.test_kill import Seen, check
from tests.postgres import PostgresServer
from tests.waiting import eventually

pytestmark = pytest.mark.slow


Connect = Callable[[str], AgentFlow]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients, and closes them when the test is over."""
    with contextlib.ExitStack() as clients:
        yield lambda endpoint: clients.enter_context(AgentFlow(endpoint=endpoint))


def endpoint(process: Process) -> str:
    return f"http://127.0.0.1:{process.port}"


def stream_of(client: AgentFlow, message: str, **ids: Any) -> tuple[Seen, Any]:
    agent_id = client.agents.by_name("MainAgent").id
    words = int(message.split("[[words ")[1].split("]]")[0])
    stream = client.agents.stream(agent_id=agent_id, message=message, options={"verbose": True}, **ids)
    return Seen(words, tool=False), stream


def drain(seen: Seen, stream: Any) -> Seen:
    seen.events.extend(stream)
    seen.run_id, seen.conversation_id = stream.run_id, stream.conversation_id
    return seen


def test_any_process_serves_any_stream(postgres: PostgresServer, tmp_path: Path, connect: Connect) -> None:
    with running_cluster(postgres.migrated(), tmp_path) as cluster:
        first, second = (connect(endpoint(server)) for server in cluster.servers)
        seen, stream = stream_of(first, "[[words 100]] [[delay 10]]")
        began = next(iter(stream))
        elsewhere: list[Event] = []
        at: list[float] = []

        def follow() -> None:
            for event in second.runs.stream(stream.run_id, verbose=True):
                elsewhere.append(event)
                at.append(time.monotonic())

        follower = threading.Thread(target=follow)
        follower.start()
        seen.events.append(began)
        drain(seen, stream)
        follower.join(20)
        assert [event.seq for event in elsewhere] == [event.seq for event in seen.events]
        assert len({round(moment, 1) for moment in at}) > 5  # it came as it was written, not at the end
        check(second, seen)
        # what one process is asked twice, and what another is asked again, is one run
        ids = {"conversation_id": stream.conversation_id, "message_id": "twice"}
        agent_id = first.agents.by_name("MainAgent").id
        with ThreadPoolExecutor(8) as pool:
            results = list(
                pool.map(lambda n: (first, second)[n % 2].agents.run(agent_id=agent_id, message="hi", **ids), range(8))
            )
        assert len({result.run_id for result in results}) == 1
        assert first.conversations.messages(stream.conversation_id or "").total == 4


def test_a_run_is_cancelled_from_another_process(postgres: PostgresServer, tmp_path: Path, connect: Connect) -> None:
    with running_cluster(postgres.migrated(), tmp_path) as cluster:
        first, second = (connect(endpoint(server)) for server in cluster.servers)
        _, stream = stream_of(first, "[[words 2000]] [[delay 20]]")
        assert next(event for event in stream if isinstance(event, TextDelta))
        assert second.cancellations.cancel_run(stream.run_id or "").cancelled
        assert stream.result().finish_reason == "cancelled"


def test_workers_run_what_servers_accept(postgres: PostgresServer, tmp_path: Path, connect: Connect) -> None:
    with running_cluster(
        postgres.migrated(), tmp_path, servers=1, workers=1, extra={"AGENTFLOW_RUN_JOBS": "false"}
    ) as cluster:
        client = connect(endpoint(cluster.servers[0]))
        seen, stream = stream_of(client, "[[words 20]] [[delay 2]]")
        drain(seen, stream)
        check(client, seen)
        assert client.system.ready().checks == {"database": "ok", "shutdown": "ok", "signals": "ok"}


def test_progress_is_told_by_whichever_process_works(
    postgres: PostgresServer, tmp_path: Path, connect: Connect
) -> None:
    with running_cluster(
        postgres.migrated(), tmp_path, servers=2, workers=2, extra={"AGENTFLOW_RUN_JOBS": "false"}
    ) as cluster:
        first, second = (connect(endpoint(server)) for server in cluster.servers)
        made = first.knowledge_bases.create_from_files(name="Words", files=[("first.txt", b"first")])
        assert made.status == "completed"  # the server heard that a worker was done
        text = "\n\n".join(f"Paragraph {n} is about the animal number {n}, at some length." * 5 for n in range(200))
        files = [(f"{n}.txt", f"{n}\n\n{text}".encode()) for n in range(4)]
        job = first.knowledge_bases.upload_documents(made.id, files=files)
        watch, killed = second.knowledge_bases.watch(job.job_id), False
        seen: list[float] = []
        for update in watch:
            seen.append(update.progress)
            if not killed and 0 < update.progress < 1:
                cluster.workers[0].stop(signal.SIGKILL)
                killed = True
        assert seen == sorted(seen)
        assert killed
        assert [file.status for file in watch.result().files] == ["completed"] * 4
        for file in second.knowledge_bases.files(made.id):
            passages = list(second.knowledge_bases.documents(made.id, file.id, limit=100))
            assert [one.position for one in passages] == list(range(file.chunk_count))


# a stopped process hands its runs over; nobody could wait for a lease that long
@pytest.mark.parametrize(("sig", "lease"), [(signal.SIGKILL, 3.0), (signal.SIGTERM, 600.0)])
def test_a_run_goes_on_elsewhere(
    postgres: PostgresServer, tmp_path: Path, connect: Connect, sig: int, lease: float
) -> None:
    with running_cluster(postgres.migrated(), tmp_path, lease=lease) as cluster:
        client = connect(cluster.relay.endpoint)
        with ThreadPoolExecutor(6) as pool:
            streams = [stream_of(client, "[[words 60]] [[delay 15]]") for _ in range(6)]
            futures = [pool.submit(drain, *one) for one in streams]
            while not all(one.events for one, _ in streams):
                time.sleep(0.01)
            cluster.servers[0].stop(sig)
            for future in futures:
                future.result(60)
        for one, _ in streams:
            check(client, one)


def test_a_paused_process_cannot_write_when_it_wakes(
    postgres: PostgresServer, tmp_path: Path, connect: Connect
) -> None:
    with running_cluster(postgres.migrated(), tmp_path) as cluster:
        first, second = (connect(endpoint(server)) for server in cluster.servers)
        _, stream = stream_of(first, "[[words 100]] [[delay 20]]")
        assert next(event for event in stream if isinstance(event, TextDelta))
        cluster.servers[0].send(signal.SIGSTOP)
        seen = Seen(100, tool=False)
        drain(seen, second.runs.stream(stream.run_id or "", verbose=True))
        cluster.servers[0].send(signal.SIGCONT)
        check(second, seen)
        assert list(stream)[-1].seq == seen.events[-1].seq
        check(second, seen)  # and nothing was added to the log


NEXT = """
import sqlalchemy as sa
from agentflow_server.storage.migrations.tenants import secured
from alembic import op

revision, down_revision = "9999", "{head}"


def upgrade() -> None:
    for table in ("runs", "events", "jobs", "conversations"):
        op.add_column(table, sa.Column("next", sa.Integer, nullable=False, server_default="1"))
    op.create_table("nexts", sa.Column("tenant", sa.Text, primary_key=True), sa.Column("id", sa.Text, primary_key=True))
    for statement in secured("nexts"):
        op.execute(statement)
"""


def test_runs_of_one_conversation_take_turns_over_processes(
    postgres: PostgresServer, tmp_path: Path, connect: Connect
) -> None:
    with running_cluster(postgres.migrated(), tmp_path) as cluster:
        clients = [connect(endpoint(server)) for server in cluster.servers]
        agent_id = clients[0].agents.by_name("MainAgent").id

        def one(number: int) -> tuple[str, str]:
            asked, client = f"turn {number}", clients[number % 2]
            return asked, client.agents.run(agent_id=agent_id, message=asked, conversation_id="shared").text

        with ThreadPoolExecutor(16) as pool:
            turns = sorted(pool.map(one, range(32)))
        said = [message.content for message in clients[1].conversations.messages("shared", limit=100)]
        assert sorted(zip(said[::2], said[1::2], strict=True)) == turns


def test_a_limit_on_runs_is_exact_over_processes(postgres: PostgresServer, tmp_path: Path, connect: Connect) -> None:
    limit = {"AGENTFLOW_PRINCIPAL_MAX_RUNS": "5"}
    with running_cluster(postgres.migrated(), tmp_path, extra=limit) as cluster:
        clients = [connect(endpoint(server)) for server in cluster.servers]
        agent_id = clients[0].agents.by_name("MainAgent").id

        def one(number: int) -> bool:
            body = {"message": "[[words 1000]] [[delay 20]]", "stream": True, "conversation_id": f"c{number}"}
            url = f"{clients[number % 2].endpoint}/api/v1/agent/{agent_id}/chat"
            with httpx2.stream("POST", url, json=body, timeout=30) as answer:
                return answer.status_code == 200

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(one, range(32))) == 5


def next_version(folder: Path) -> Path:
    """Makes a version of the server with one more change of the schema; what to put on the path to start it."""
    package = Path(agentflow_server.__file__).parent
    shutil.copytree(package, folder / package.name)
    migrations = folder / package.name / "storage" / "migrations"
    (migrations / "versions" / "9999_next.py").write_text(NEXT.format(head=HEAD))
    source = migrations / "__init__.py"
    source.write_text(source.read_text().replace(f'HEAD = "{HEAD}"', 'HEAD = "9999"'))
    return folder


def test_versions_are_replaced_process_by_process(postgres: PostgresServer, tmp_path: Path, connect: Connect) -> None:
    url, newer = postgres.migrated(), next_version(tmp_path / "next")

    def revision() -> str:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            assert row is not None
            return row[0]

    with running_cluster(url, tmp_path, servers=2, workers=1, lease=600.0) as cluster:
        client = connect(cluster.relay.endpoint)
        first, second = (connect(endpoint(server)) for server in cluster.servers)
        agent_id = client.agents.by_name("MainAgent").id

        def begin(process: Process, version: str) -> None:
            process.stop(signal.SIGTERM)
            process.environ["PYTHONPATH"] = version
            process.start()

        def replace(process: Process, version: str) -> None:
            begin(process, version)
            process.wait_until_ready()

        def talk() -> None:
            """A conversation that goes to and fro between the two servers."""
            conversation = None
            for turn, one in enumerate((first, second, first, second), 1):
                result = one.agents.run(agent_id=agent_id, message=f"turn {turn}", conversation_id=conversation)
                conversation = result.conversation_id
                assert one.conversations.messages(conversation or "").total == 2 * turn

        with ThreadPoolExecutor(4) as pool:
            streams = [stream_of(client, "[[words 400]] [[delay 15]]") for _ in range(4)]
            futures = [pool.submit(drain, *one) for one in streams]
            talk()
            with psycopg.connect(url) as reader:
                reader.execute("SELECT FROM jobs")  # a long transaction: the change of the table can't be made yet
                begin(cluster.servers[0], str(newer))
                eventually(lambda: "waiting for the database" in cluster.log.read_text())
                second.agents.run(agent_id=agent_id, message="the rest goes on")
            cluster.servers[0].wait_until_ready()
            assert revision() == "9999"
            talk()
            replace(cluster.workers[0], str(newer))
            replace(cluster.servers[1], str(newer))
            talk()
            replace(cluster.servers[0], "")  # and back
            assert first.system.ready().status == "ok"
            talk()
            for future in futures:
                future.result(60)
        for one, _ in streams:
            check(client, one)


def test_a_database_that_restarts_costs_nothing(tmp_path: Path, connect: Connect) -> None:
    from tests.postgres import running_postgres

    with running_postgres() as own, running_cluster(own.migrated(), tmp_path, servers=1) as cluster:
        client = connect(endpoint(cluster.servers[0]))
        seen, stream = stream_of(client, "[[words 60]] [[delay 15]]")
        seen.events.append(next(iter(stream)))
        own.stop()
        own.start()
        drain(seen, stream)
        check(client, seen)
        own.stop()
        with pytest.raises(UnavailableError), AgentFlow(endpoint=client.endpoint, max_retries=0) as once:
            once.system.ready()
        assert client.system.health().status == "ok"
        cluster.servers[0].stop(signal.SIGKILL)
        cluster.servers[0].start()
        eventually(lambda: "waiting for the database" in cluster.log.read_text())
        own.start()
        cluster.servers[0].wait_until_ready()
        assert client.system.ready().status == "ok"


BREAKS_A_COMMIT = """
CREATE SEQUENCE deltas;
CREATE FUNCTION break_the_first() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF nextval('deltas') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER break_the_first AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.type = 'delta') EXECUTE FUNCTION break_the_first();
"""


def test_what_comes_after_a_commit_that_failed_is_not_written(
    postgres: PostgresServer, tmp_path: Path, connect: Connect
) -> None:
    """The rest of an answer was under way already when it became known that its first words are lost."""
    url = postgres.migrated()
    with psycopg.connect(url) as connection:
        connection.execute(BREAKS_A_COMMIT)
    with running_cluster(url, tmp_path, servers=1) as cluster:
        client = connect(endpoint(cluster.servers[0]))
        seen, stream = stream_of(client, "[[words 12]]")
        check(client, drain(seen, stream))


def test_a_database_that_refuses_or_stays_away_is_told(tmp_path: Path, postgres: PostgresServer) -> None:
    away = f"postgresql://agentflow@127.0.0.1:{free_port()}/x"
    for url, told in ((postgres.url("nowhere"), 'database "nowhere" does not exist'), (away, "refused")):
        environ = {**os.environ, "AGENTFLOW_DATABASE_URL": url, "AGENTFLOW_DATABASE_WAIT_SECONDS": "0.1"}
        command = [str(COMMAND), "serve", "--data", str(tmp_path), "--port", "0"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "the database cannot be used" in done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
