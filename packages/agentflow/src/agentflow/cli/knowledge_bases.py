"""`agentflow knowledge-bases`, and `agentflow agents knowledge-bases`."""

from pathlib import Path
from typing import Any

import click

from agentflow.cli.items import load_json
from agentflow.cli.output import agent_id_of, connected, write_fields, write_json, write_table
from agentflow.cli.progress import follow, sending
from agentflow.client import AgentFlow
from agentflow.errors import NotFoundError
from agentflow.types.knowledge_bases import FileOutcome, IngestJob, SearchResult

_PATHS = click.Path(exists=True, dir_okay=False, path_type=Path)
_LIMIT = click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
_OFFSET = click.option("--offset", type=click.IntRange(0), default=0)
_WAIT = click.option("--wait/--no-wait", "waits", default=True, show_default=True, help="Wait until the files are in.")


@click.group("knowledge-bases")
def knowledge_bases() -> None:
    """Make, fill and search knowledge bases. A KB is a name or an id.

    Commands that bring files in end with code 1, and say why, if a file could not be read.
    """


@knowledge_bases.command("list")
@_LIMIT
@_OFFSET
@connected
def list_(client: AgentFlow, as_json: bool, limit: int, offset: int) -> None:
    """List the knowledge bases."""
    page = client.knowledge_bases.list(limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    rows = [(kb.id, kb.name, kb.file_count, kb.chunk_count, kb.status, kb.retrieval_mode) for kb in page.items]
    write_table(["id", "name", "files", "chunks", "status", "mode"], rows)


@knowledge_bases.command()
@click.argument("kb")
@connected
def show(client: AgentFlow, as_json: bool, kb: str) -> None:
    """Show a knowledge base."""
    found = client.knowledge_bases.retrieve(kb_id_of(client, kb))
    if as_json:
        write_json(found)
    else:
        write_fields(found.model_dump(mode="json"))


def _settings(command: Any) -> Any:
    for option in (
        click.option("--embedding-model", help="provider/model, or none for words only."),
        click.option("--chunking-strategy", type=click.Choice(["auto", "recursive", "fixed"])),
        click.option("--overlap-percentage", type=float, help="Share of a passage repeated in the next, below 0.5."),
        click.option("--chunk-size", type=int, help="Most characters of a passage."),
        click.option("--tag", "tags", multiple=True, help="May be repeated."),
        click.option("--description"),
    ):
        command = option(command)
    return command


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in settings.items() if value not in (None, ())}
    return {**known, "tags": list(known["tags"])} if "tags" in known else known


@knowledge_bases.command()
@click.argument("name")
@click.argument("files", nargs=-1, type=_PATHS)
@click.option("--url", help="Make it of this web site instead of files.")
@click.option("--id", "kb_id", help="An id of your own.")
@click.option("--metadata", help="A JSON object, or @FILE: of all these files, for filters.")
@click.option("--max-crawl-depth", type=int, help="Links followed from the first page.")
@click.option("--max-crawl-pages", type=int, help="Pages read at most.")
@_settings
@_WAIT
@connected
def create(
    client: AgentFlow,
    as_json: bool,
    name: str,
    files: tuple[Path, ...],
    url: str | None,
    kb_id: str | None,
    metadata: str | None,
    max_crawl_depth: int | None,
    max_crawl_pages: int | None,
    waits: bool,
    **settings: Any,
) -> None:
    """Make a knowledge base of files, or of a web site, and wait until it is ready."""
    if bool(url) == bool(files):
        raise click.UsageError("Name files, or a web site with --url.")
    known: dict[str, Any] = {**_given(settings), "id": kb_id}
    if url:
        crawl = {"max_crawl_depth": max_crawl_depth, "max_crawl_pages": max_crawl_pages}
        made = client.knowledge_bases.create_from_url(name=name, website_url=url, **crawl, **known)
    else:
        with sending(quiet=as_json) as progress:
            made = client.knowledge_bases.create_from_files(
                name=name, files=files, metadata=load_json(metadata), progress=progress, **known
            )
    if made.job_id and waits:
        job = _follow(client, made.job_id, as_json)
        now = client.knowledge_bases.retrieve(made.id)
        ended = {"status": job.status, "files": job.files, "skipped": job.skipped}
        made = made.model_copy(update={**dict(now), **ended, "message": f"The job {job.job_id} is {job.status}."})
        _tell_skipped(job, as_json)
    if as_json:
        write_json(made)
    else:
        _write_files(made.files)
        click.echo(f"{made.id}: {made.message}", err=bool(made.files))
    _check(made.status, made.files)


@knowledge_bases.command()
@click.argument("kb")
@click.argument("files", nargs=-1, required=True, type=_PATHS)
@click.option("--metadata", help="A JSON object, or @FILE: of all these files, for filters.")
@_WAIT
@connected
def upload(
    client: AgentFlow, as_json: bool, kb: str, files: tuple[Path, ...], metadata: str | None, waits: bool
) -> None:
    """Add files to a knowledge base, and wait until they are in it."""
    kb_id = kb_id_of(client, kb)
    with sending(quiet=as_json) as progress:
        job = client.knowledge_bases.upload_documents(
            kb_id, files=files, metadata=load_json(metadata), progress=progress
        )
    _end(client, job, as_json, waits)


@knowledge_bases.command()
@click.argument("kb")
@_WAIT
@connected
def refresh(client: AgentFlow, as_json: bool, kb: str, waits: bool) -> None:
    """Index all files of a knowledge base again."""
    _end(client, client.knowledge_bases.refresh(kb_id_of(client, kb)), as_json, waits)


@knowledge_bases.command()
@click.argument("job_id")
@connected
def wait(client: AgentFlow, as_json: bool, job_id: str) -> None:
    """Wait for a job that brings files in."""
    _end(client, client.knowledge_bases.job(job_id), as_json, True)


@knowledge_bases.command()
@click.argument("job_id")
@connected
def cancel(client: AgentFlow, as_json: bool, job_id: str) -> None:
    """Stop a job that brings files in; what is in the knowledge base stays."""
    _write_job(client.knowledge_bases.cancel_job(job_id), as_json)


@knowledge_bases.command()
@click.argument("kb")
@click.option("--name", help="Its new name.")
@_settings
@connected
def update(client: AgentFlow, as_json: bool, kb: str, name: str | None, **settings: Any) -> None:
    """Change a knowledge base; what is not given stays. Another embedding model indexes all of it again."""
    changes = {**_given(settings), **({"name": name} if name else {})}
    changed = client.knowledge_bases.update(kb_id_of(client, kb), **changes)
    if as_json:
        write_json(changed)
    else:
        write_fields(changed.model_dump(mode="json"))


@knowledge_bases.command()
@click.argument("kb")
@_LIMIT
@_OFFSET
@connected
def files(client: AgentFlow, as_json: bool, kb: str, limit: int, offset: int) -> None:
    """List the files of a knowledge base."""
    page = client.knowledge_bases.files(kb_id_of(client, kb), limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    rows = [(file.id, file.name, file.status, file.chunk_count, file.error or "") for file in page.items]
    write_table(["id", "name", "status", "chunks", "error"], rows)


@knowledge_bases.command()
@click.argument("kb")
@click.argument("file")
@_LIMIT
@_OFFSET
@connected
def documents(client: AgentFlow, as_json: bool, kb: str, file: str, limit: int, offset: int) -> None:
    """Show the passages of FILE, a name or an id."""
    kb_id = kb_id_of(client, kb)
    page = client.knowledge_bases.documents(kb_id, _file_id_of(client, kb_id, file), limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    for chunk in page.items:
        click.secho(f"{chunk.position}  {' › '.join([chunk.title, *chunk.headings])}", dim=True)
        click.echo(f"{chunk.content}\n")


def _search_options(command: Any) -> Any:
    for option in (
        click.option("--options", help='Further options as a JSON object, or @FILE: {"enable_mmr": true}.'),
        click.option("--type", "search_type", type=click.Choice(["hybrid", "semantic", "keyword"])),
        click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="Most passages."),
    ):
        command = option(command)
    return command


@knowledge_bases.command()
@click.argument("kb")
@click.argument("query")
@_search_options
@connected
def search(
    client: AgentFlow, as_json: bool, kb: str, query: str, limit: int, search_type: str | None, options: str | None
) -> None:
    """Search a knowledge base."""
    more = load_json(options) or {}
    found = client.knowledge_bases.search(
        kb_id_of(client, kb), query=query, limit=limit, **{"search_type": search_type, **more}
    )
    _write_found(found, as_json)


@knowledge_bases.command()
@click.argument("kb")
@click.argument("file", required=False)
@connected
def delete(client: AgentFlow, as_json: bool, kb: str, file: str | None) -> None:
    """Remove a knowledge base, or one of its files (a name or an id)."""
    kb_id = removed = kb_id_of(client, kb)
    if file:
        removed = _file_id_of(client, kb_id, file)
        client.knowledge_bases.delete_document(kb_id, removed)
    else:
        client.knowledge_bases.delete(kb_id)
    if as_json:
        write_json({"id": removed, "deleted": True})
    else:
        click.echo(f"Deleted {removed}.")


@click.group("knowledge-bases")
def agent_knowledge_bases() -> None:
    """The knowledge bases that AGENT searches by itself. AGENT and KB are names or ids."""


@agent_knowledge_bases.command("list")
@click.argument("agent")
@connected
def list_assigned(client: AgentFlow, as_json: bool, agent: str) -> None:
    """List the knowledge bases of an agent."""
    assigned = client.agents.knowledge_bases.list(agent_id_of(client, agent))
    if as_json:
        write_json(assigned)
        return
    write_table(["id", "name", "files", "chunks"], [(kb.id, kb.name, kb.file_count, kb.chunk_count) for kb in assigned])


@agent_knowledge_bases.command()
@click.argument("agent")
@click.argument("kb")
@connected
def assign(client: AgentFlow, as_json: bool, agent: str, kb: str) -> None:
    """Let an agent search a knowledge base."""
    assigned = client.agents.knowledge_bases.assign(agent_id_of(client, agent), kb_id_of(client, kb))
    if as_json:
        write_json(assigned)
    else:
        click.echo(f"{agent} searches {', '.join(one.name for one in assigned.knowledge_bases)}.")


@agent_knowledge_bases.command()
@click.argument("agent")
@click.argument("kb")
@connected
def unassign(client: AgentFlow, as_json: bool, agent: str, kb: str) -> None:
    """Take a knowledge base from an agent."""
    agent_id, kb_id = agent_id_of(client, agent), kb_id_of(client, kb)
    client.agents.knowledge_bases.unassign(agent_id, kb_id)
    if as_json:
        write_json({"agent_id": agent_id, "unassigned": kb_id})
    else:
        click.echo(f"{agent} does not search {kb} any more.")


@agent_knowledge_bases.command("search")
@click.argument("agent")
@click.argument("query")
@_search_options
@connected
def search_assigned(
    client: AgentFlow, as_json: bool, agent: str, query: str, limit: int, search_type: str | None, options: str | None
) -> None:
    """Search all knowledge bases of an agent as one."""
    more = load_json(options) or {}
    found = client.agents.knowledge_bases.search(
        agent_id_of(client, agent), query=query, limit=limit, **{"search_type": search_type, **more}
    )
    _write_found(found, as_json)


def kb_id_of(client: AgentFlow, name_or_id: str) -> str:
    """The id of a knowledge base given by name or id."""
    try:
        return client.knowledge_bases.retrieve(name_or_id).id
    except NotFoundError:
        return client.knowledge_bases.by_name(name_or_id).id


def _file_id_of(client: AgentFlow, kb_id: str, name_or_id: str) -> str:
    for file in client.knowledge_bases.files(kb_id, limit=100):
        if name_or_id in (file.id, file.name):
            return file.id
    raise click.ClickException(f"the knowledge base {kb_id} has no file {name_or_id!r}")


def _write_found(result: SearchResult, as_json: bool) -> None:
    if as_json:
        write_json(result)
        return
    for document in result.documents:
        where = " › ".join([document.source_file, *document.headings])
        click.echo(f"{document.score:.3f}  {where}\n{document.content}\n")
    if not result.documents:
        click.echo("Nothing was found.", err=True)
    for warning in result.search_metadata.get("warnings", ()):
        click.echo(warning, err=True)


def _follow(client: AgentFlow, job_id: str, as_json: bool) -> IngestJob:
    hint = f"agentflow knowledge-bases wait {job_id}"
    return follow(client.knowledge_bases.watch(job_id), quiet=as_json, hint=hint)


def _end(client: AgentFlow, job: IngestJob, as_json: bool, waits: bool) -> None:
    """Wait for a job if that is wanted, write it, and end the command as the job ended."""
    if waits:
        job = _follow(client, job.job_id, as_json)
    _write_job(job, as_json)
    _check(job.status, job.files)


def _write_job(job: IngestJob, as_json: bool) -> None:
    if as_json:
        write_json(job)
        return
    _write_files(job.files)
    _tell_skipped(job, as_json)
    done = f"{job.completed} of {job.total} files, {job.failed} failed"
    click.echo(f"{job.kb_id}: the job {job.job_id} is {job.status}, {done}", err=True)


def _write_files(files: list[FileOutcome]) -> None:
    if files:
        rows = [(file.name, file.status, file.chunk_count, file.error or "") for file in files]
        write_table(["file", "status", "chunks", "error"], rows)


def _tell_skipped(job: IngestJob, as_json: bool) -> None:
    for line in () if as_json else job.skipped:
        click.echo(f"left out: {line}", err=True)


def _check(status: str, files: list[FileOutcome]) -> None:
    if status in ("failed", "cancelled") or any(file.status == "failed" for file in files):
        raise click.exceptions.Exit(1)
