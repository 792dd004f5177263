"""Knowledge bases: files, passages, the word index and vectors."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def _text(name: str, *, null: bool = False, default: str | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=null, server_default=default)


def _big(name: str, *, null: bool = False, default: int | None = None) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=null, server_default=None if default is None else str(default))


def upgrade() -> None:
    _bases_and_files()
    _index()


def _bases_and_files() -> None:
    op.create_table(
        "knowledge_bases",
        _text("tenant"),
        _text("id"),
        _text("data"),
        _text("embedder", null=True),
        _big("revision", default=0),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("knowledge_bases_by_time", "knowledge_bases", ["tenant", "created_at"])
    op.create_table(
        "kb_files",
        _text("tenant"),
        _text("kb_id"),
        _text("id"),
        _text("name"),
        _text("digest"),
        _big("size"),
        _text("status"),
        _text("data"),
        _text("job_id", null=True),
        _big("chunks", default=0),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "kb_id", "id"),
    )
    op.create_index("kb_files_by_name", "kb_files", ["tenant", "kb_id", "name"])
    op.create_index("kb_files_by_digest", "kb_files", ["tenant", "digest"])
    op.create_index("kb_files_by_job", "kb_files", ["tenant", "job_id"])
    op.create_table(
        "kb_jobs",
        _text("tenant"),
        _text("id"),
        _text("kb_id"),
        _text("kind"),
        _text("status"),
        _text("data"),
        _big("created_at"),
        _big("updated_at"),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("kb_jobs_by_base", "kb_jobs", ["tenant", "kb_id"])


def _index() -> None:
    op.create_table(
        "kb_chunks",
        _text("tenant"),
        _text("kb_id"),
        _big("number"),
        _text("file_id"),
        _big("position"),
        _text("title"),
        _text("headings"),
        _text("body"),
        _big("page", null=True),
        sa.PrimaryKeyConstraint("tenant", "kb_id", "number"),
    )
    op.create_index("kb_chunks_by_number", "kb_chunks", ["number"])
    op.create_index("kb_chunks_by_file", "kb_chunks", ["tenant", "kb_id", "file_id", "position"], unique=True)
    op.create_table(
        "kb_vectors",
        _text("tenant"),
        _text("kb_id"),
        _big("number"),
        _big("amount"),
        _text("file_id"),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "kb_id", "number"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "ALTER TABLE kb_chunks ADD COLUMN words tsvector GENERATED ALWAYS AS ("
            " setweight(to_tsvector('english', title), 'A') || setweight(to_tsvector('english', headings), 'B')"
            " || setweight(to_tsvector('english', body), 'D')) STORED"
        )
        op.execute("CREATE INDEX kb_chunks_by_words ON kb_chunks USING gin (words)")
    else:
        op.create_table(
            "kb_vocabularies",
            _text("tenant"),
            _text("kb_id"),
            _big("number"),
            _big("passages", default=0),
            _big("words", default=0),
            sa.PrimaryKeyConstraint("tenant", "kb_id"),
            sa.UniqueConstraint("number"),
        )
        op.execute(
            "CREATE VIRTUAL TABLE kb_words USING fts5(title, headings, body, content = '', columnsize = 0,"
            " tokenize = \"ascii tokenchars '_'\")"
        )
        op.execute("CREATE VIRTUAL TABLE kb_terms USING fts5vocab(kb_words, instance)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in ("kb_terms", "kb_words", "kb_vocabularies"):
            op.execute(f"DROP TABLE {table}")
    for table in ("kb_embeddings", "kb_vectors", "kb_chunks", "kb_jobs", "kb_files", "knowledge_bases"):
        op.execute(f"DROP TABLE IF EXISTS {table}")
