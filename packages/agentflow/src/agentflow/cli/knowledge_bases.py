"""`agentflow knowledge-bases`."""

from pathlib import Path

import click

from agentflow.cli.output import connected, write_fields, write_json, write_table
from agentflow.client import AgentFlow
from agentflow.types.knowledge_bases import IngestJob


@click.group("knowledge-bases")
def knowledge_bases() -> None:
    """Make, fill and search knowledge bases."""


@knowledge_bases.command("list")
@click.option("--limit", default=50, show_default=True, help="How many.")
@click.option("--offset", default=0, help="How many to skip.")
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
@click.argument("kb_id")
@connected
def show(client: AgentFlow, as_json: bool, kb_id: str) -> None:
    """Show a knowledge base."""
    kb = client.knowledge_bases.retrieve(kb_id)
    if as_json:
        write_json(kb)
    else:
        write_fields(kb.model_dump(mode="json"))


@knowledge_bases.command()
@click.argument("name")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--url", help="Make it of this web site instead of files.")
@click.option("--id", "kb_id", help="An id of your own.")
@click.option("--description")
@click.option("--max-crawl-depth", type=int, help="Links followed from the first page.")
@click.option("--max-crawl-pages", type=int, help="Pages read at most.")
@connected
def create(
    client: AgentFlow,
    as_json: bool,
    name: str,
    files: tuple[Path, ...],
    url: str | None,
    kb_id: str | None,
    description: str | None,
    max_crawl_depth: int | None,
    max_crawl_pages: int | None,
) -> None:
    """Make a knowledge base of files, or of a web site, and wait until it is ready."""
    if bool(url) == bool(files):
        raise click.UsageError("Name files, or a web site with --url.")
    if url:
        made = client.knowledge_bases.create_from_url(
            name=name, website_url=url, description=description, id=kb_id, max_crawl_depth=max_crawl_depth,
            max_crawl_pages=max_crawl_pages,
        )  # fmt: skip
    else:
        made = client.knowledge_bases.create_from_files(name=name, files=files, description=description, id=kb_id)
    if made.job_id:
        _write_job(client.knowledge_bases.wait(made.job_id, timeout=None), as_json)
    elif as_json:
        write_json(made)
    else:
        click.echo(f"{made.id}: {made.message}")


@knowledge_bases.command()
@click.argument("kb_id")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@connected
def upload(client: AgentFlow, as_json: bool, kb_id: str, files: tuple[Path, ...]) -> None:
    """Add files to a knowledge base, and wait until they are in it."""
    job = client.knowledge_bases.upload_documents(kb_id, files=files)
    _write_job(client.knowledge_bases.wait(job.job_id, timeout=None), as_json)


@knowledge_bases.command()
@click.argument("kb_id")
@connected
def refresh(client: AgentFlow, as_json: bool, kb_id: str) -> None:
    """Index all files of a knowledge base again."""
    job = client.knowledge_bases.refresh(kb_id)
    _write_job(client.knowledge_bases.wait(job.job_id, timeout=None), as_json)


@knowledge_bases.command()
@click.argument("kb_id")
@click.option("--limit", default=50, show_default=True, help="How many.")
@click.option("--offset", default=0, help="How many to skip.")
@connected
def files(client: AgentFlow, as_json: bool, kb_id: str, limit: int, offset: int) -> None:
    """List the files of a knowledge base."""
    page = client.knowledge_bases.files(kb_id, limit=limit, offset=offset)
    if as_json:
        write_json(page.data)
        return
    rows = [(file.id, file.name, file.status, file.chunk_count, file.error or "") for file in page.items]
    write_table(["id", "name", "status", "chunks", "error"], rows)


@knowledge_bases.command()
@click.argument("kb_id")
@click.argument("query")
@click.option("--limit", default=5, show_default=True, help="Most passages.")
@click.option("--type", "search_type", type=click.Choice(["hybrid", "semantic", "keyword"]))
@connected
def search(client: AgentFlow, as_json: bool, kb_id: str, query: str, limit: int, search_type: str | None) -> None:
    """Search a knowledge base."""
    result = client.knowledge_bases.search(kb_id, query=query, limit=limit, search_type=search_type)
    if as_json:
        write_json(result)
        return
    for document in result.documents:
        where = " › ".join([document.source_file, *document.headings])
        click.echo(f"{document.score:.3f}  {where}\n{document.content}\n")
    for warning in result.search_metadata.get("warnings", ()):
        click.echo(warning, err=True)


@knowledge_bases.command()
@click.argument("kb_id")
@click.argument("file_id", required=False)
@connected
def delete(client: AgentFlow, as_json: bool, kb_id: str, file_id: str | None) -> None:
    """Remove a knowledge base, or one of its files."""
    if file_id:
        client.knowledge_bases.delete_document(kb_id, file_id)
    else:
        client.knowledge_bases.delete(kb_id)
    if as_json:
        write_json({"id": file_id or kb_id, "deleted": True})
    else:
        click.echo(f"Deleted {file_id or kb_id}.")


def _write_job(job: IngestJob, as_json: bool) -> None:
    if as_json:
        write_json(job)
        return
    rows = [(file.name, file.status, file.chunk_count, file.error or "") for file in job.files]
    write_table(["file", "status", "chunks", "error"], rows)
    click.echo(f"{job.kb_id}: {job.status}, {job.completed} of {job.total} files, {job.failed} failed", err=True)
