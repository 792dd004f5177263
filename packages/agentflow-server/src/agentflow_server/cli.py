"""`agentflow serve` and `agentflow db`: the backend's own commands, found by the CLI through entry points."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agentflow_server.kit.settings import Settings


def _settings(**overrides: object) -> "Settings":
    from agentflow_server.kit.settings import Settings, SettingsError

    try:
        return Settings.from_env(os.environ, **overrides)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder of the embedded database.")
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (8001); 0 takes any free one.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log (info).")
@click.option("--app", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Folder of your own code.")
@click.option("--reload", is_flag=True, help="Start again when the folder of --app changes, for development.")
@click.option("--no-worker", is_flag=True, help="Leave runs and jobs to `agentflow worker` processes.")
def serve(
    data: Path | None,
    host: str | None,
    port: int | None,
    log_level: str | None,
    app: Path | None,
    reload: bool,
    no_worker: bool,
) -> None:
    """Start the AgentFlow backend."""
    run_jobs = False if no_worker else None
    settings = _settings(data=data, host=host, port=port, log_level=log_level, app=app, run_jobs=run_jobs)
    if reload:
        _serve_again_and_again(settings)
        return
    from agentflow_server.kit.settings import SettingsError
    from agentflow_server.serving import listen, run

    try:
        socket = listen(settings.host, settings.port)
        run(settings, socket, announce=lambda url: click.echo(f"AgentFlow is listening on {url} (Ctrl-C stops it)"))
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def _serve_again_and_again(settings: "Settings") -> None:
    """Run `serve` as a process of its own, which is stopped and started again when the folder changes."""
    import shlex
    import sys

    from watchfiles import PythonFilter, run_process

    if settings.app is None:
        raise click.ClickException("--reload needs a folder to watch: give --app DIR")
    command = shlex.join([sys.argv[0], *(word for word in sys.argv[1:] if word != "--reload")])
    run_process(
        settings.app, target=command, target_type="command", watch_filter=PythonFilter(),
        callback=lambda changes: click.echo(f"{len(changes)} changed: starting again"),
    )  # fmt: skip


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder of files, if that is where.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log (info).")
@click.option("--app", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Folder of your own code.")
def worker(data: Path | None, log_level: str | None, app: Path | None) -> None:
    """Run jobs of a shared database, without serving HTTP.

    Needs AGENTFLOW_DATABASE_URL. Stops at SIGTERM or Ctrl-C, when its runs are handed over.
    """
    settings = _settings(data=data, log_level=log_level, app=app)
    if settings.database_url is None:
        raise click.ClickException("AGENTFLOW_DATABASE_URL: a worker needs a database that it shares with servers")
    from agentflow_server.kit.settings import SettingsError
    from agentflow_server.serving import work

    try:
        work(settings, announce=lambda: click.echo("AgentFlow is working (Ctrl-C stops it)"))
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


@click.group()
def db() -> None:
    """Look after the backend's database."""


@db.command("upgrade")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder of the embedded database.")
def upgrade(data: Path | None) -> None:
    """Bring the database up to this version's schema. `serve` does it by itself."""
    from agentflow_server.kit.settings import SettingsError
    from agentflow_server.storage.migrations import HEAD
    from agentflow_server.storage.opening import upgrade_database

    try:
        upgrade_database(_settings(data=data))
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"The database has the schema of this version, {HEAD}, or a newer one.")


@db.command("copy")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True, help="Folder to copy from."
)
@click.option("--to", "url", required=True, help="Empty PostgreSQL database to copy to, postgresql://…")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def copy(data: Path, url: str, as_json: bool) -> None:
    """Copy an embedded database to PostgreSQL.

    The server of the folder must be stopped. The files in the folder stay where they are.
    """
    import json

    from agentflow_server.kit.secrets import KEY_FILE
    from agentflow_server.kit.settings import Settings, SettingsError
    from agentflow_server.storage.copying import copy_database

    try:
        counts = copy_database(Settings(data=data), url)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(counts))
        return
    for table, count in counts.items():
        click.echo(f"{count:>10}  {table}")
    click.echo(f"{sum(counts.values()):>10}  rows are in PostgreSQL, counted in both.")
    if (data / KEY_FILE).exists():
        key = data / KEY_FILE
        click.echo(
            f"Stored secrets open with AGENTFLOW_SECRET_KEYS=local:$(base64 -w0 {key}) (add it behind a new key)."
        )
