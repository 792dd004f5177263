"""Knowledge bases on the wire: what they are made of, how they are searched, what was found."""

from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from agentflow.types.base import Page, RequestModel, ResponseModel

SearchType = Literal["semantic", "keyword", "hybrid"]
ChunkingStrategy = Literal["auto", "recursive", "fixed"]
_Weight = Field(default=None, ge=0, le=1)


class KnowledgeBaseSettings(RequestModel):
    """What a knowledge base is made with.

    Attributes:
        id: one of your own; by default the server makes one.
        chunk_size: most characters of a passage. overlap_percentage: share of it repeated in the next, below a half.
        chunking_strategy: `auto` along headings, tables and code; `recursive` along paragraphs; `fixed` along words.
        embedding_model: `agentflow/all-MiniLM-L6-v2`, a provider's `provider/model`, or `none` for words only; by
            default what the server is set to.
        vector_db_type: taken for compatibility; the server's database decides.
    """

    id: str | None = Field(default=None, min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.\-]+$")
    name: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=10_000)
    tags: list[str] = Field(default_factory=list[str], max_length=50)
    chunk_size: int = Field(default=1200, ge=100, le=20_000)
    overlap_percentage: float = Field(default=0.15, ge=0, lt=0.5)
    chunking_strategy: ChunkingStrategy = "auto"
    embedding_model: str | None = Field(default=None, min_length=1, max_length=300)
    vector_db_type: Literal["pgvector", "embedded", "auto"] | None = None


class CrawlSettings(KnowledgeBaseSettings):
    """A knowledge base that is made from a web site.

    Attributes:
        max_crawl_depth: links followed from the first page. max_crawl_pages: pages read at most.
    """

    website_url: str = Field(min_length=1, max_length=2_000, pattern=r"^https?://")
    max_crawl_depth: int = Field(default=2, ge=0, le=10)
    max_crawl_pages: int = Field(default=20, ge=1, le=1_000)

    @field_validator("website_url")
    @classmethod
    def _is_public(cls, url: str) -> str:
        place = urlsplit(url)
        if not place.hostname or place.port == 0:
            raise ValueError("names no host")
        if place.username is not None or place.password is not None:
            raise ValueError("has a user name or a password: only what anybody may read is read")
        return url


class KnowledgeBaseUpdate(RequestModel):
    """Changes to a knowledge base; another chunking or embedding model holds for what is indexed from now on, and for
    all of it after `refresh` (a changed embedding model is refreshed at once).
    """

    name: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=10_000)
    tags: list[str] | None = Field(default=None, max_length=50)
    chunk_size: int | None = Field(default=None, ge=100, le=20_000)
    overlap_percentage: float | None = Field(default=None, ge=0, lt=0.5)
    chunking_strategy: ChunkingStrategy | None = None
    embedding_model: str | None = Field(default=None, min_length=1, max_length=300)


class KnowledgeBase(ResponseModel):
    """A knowledge base.

    Attributes:
        status: `processing` while files wait to be indexed, else `ready`.
        retrieval_mode: `hybrid`, or `keyword` where there is no embedding model: it is then searched by words only.
    """

    id: str
    name: str
    description: str | None = None
    tags: list[str] = Field(default_factory=list[str])
    status: str = "ready"
    source_type: str = "files"
    website_url: str | None = None
    file_count: int = 0
    chunk_count: int = 0
    retrieval_mode: str = "hybrid"
    configuration: dict[str, Any] = Field(default_factory=dict[str, Any])
    created_at: datetime | None = None
    updated_at: datetime | None = None


class KnowledgeBasePage(Page):
    """A page of knowledge bases."""

    knowledge_bases: list[KnowledgeBase]


class FileOutcome(ResponseModel):
    """What became of one file of a job.

    Attributes:
        status: `queued`, `processing`, `completed`, `failed`, or `unchanged`: its content is in the base already.
        error: why it failed, in words; `error_code` for programs.
    """

    id: str
    name: str
    status: str
    chunk_count: int = 0
    error: str | None = None
    error_code: str | None = None


class IngestJob(ResponseModel):
    """Files on their way into a knowledge base; ask again at `/api/v1/batches/{job_id}`.

    Attributes:
        status: `queued`, `processing`, `completed`, `failed` (no file came through) or `cancelled`.
        progress: 0 to 1, by files. skipped: pages that a crawl left out, and why. reason: why nothing came of it.
    """

    job_id: str
    kb_id: str
    operation: str = "kb_ingest"
    status: str
    progress: float = 0.0
    files_queued: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    files: list[FileOutcome] = Field(default_factory=list[FileOutcome])
    skipped: list[str] = Field(default_factory=list[str])
    reason: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class KnowledgeBaseCreated(KnowledgeBase):
    """A new knowledge base and how far its files are.

    Attributes:
        status: `completed`, or `processing` with a `job_id` to ask for, or `failed` if no file could be read.
    """

    message: str = ""
    files_uploaded: int = 0
    job_id: str | None = None
    files: list[FileOutcome] = Field(default_factory=list[FileOutcome])


class KnowledgeFile(ResponseModel):
    """A file of a knowledge base.

    Attributes:
        name: as it was uploaded, or the address of a page. size: bytes. warnings: what was left out when it was read.
    """

    id: str
    kb_id: str
    name: str
    status: str
    size: int = 0
    media_type: str | None = None
    title: str | None = None
    pages: int | None = None
    chunk_count: int = 0
    error: str | None = None
    error_code: str | None = None
    warnings: list[str] = Field(default_factory=list[str])
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])
    created_at: datetime | None = None
    updated_at: datetime | None = None


class KnowledgeFilePage(Page):
    """A page of files."""

    files: list[KnowledgeFile]


class DocumentChunk(ResponseModel):
    """A passage of a file."""

    id: str
    file_id: str
    position: int
    title: str
    headings: list[str] = Field(default_factory=list[str])
    content: str
    page: int | None = None


class DocumentChunkPage(Page):
    """A page of passages."""

    documents: list[DocumentChunk]


class SearchOptions(RequestModel):
    """How knowledge bases are searched. What is left out takes the server's default.

    Attributes:
        search_type: by meaning, by words, or both (default).
        vector_weight, keyword_weight: 0 to 1, how much each list counts in a hybrid search. alpha: another name of
            `vector_weight`; with it alone, the words count 1 - alpha.
        rrf_k: how little the first places stand out in the fusion (default 60).
        similarity_threshold: least similarity of a passage, 0 to 1.
        metadata_filters: only files whose metadata has these values; a list means any of them, an object compares:
            `{"year": {"gte": 2020}}` (`eq`, `ne`, `gt`, `gte`, `lt`, `lte`, `in`).
        enable_mmr, mmr_lambda: choose passages that differ; 1 looks at relevance only, 0 at difference only.
        enable_surrounding_chunks, neighboring_chunks_count: give passages with what stands around them.
        enable_query_rewrite, enable_query_expansion, enable_hyde: let a model put the question better, in further ways,
            or as the answer it expects. model: which one.
        enable_rerank: let a model order the best passages. freshness_boost: how much of its score an old file loses.
        freshness_half_life_days: when it has lost half of that.
        title_alpha: how much words in titles count. field_alphas: the same for `title`, `headings` and `body`.
    """

    search_type: SearchType | None = None
    vector_weight: float | None = _Weight
    keyword_weight: float | None = _Weight
    alpha: float | None = _Weight
    rrf_k: int | None = Field(default=None, ge=1, le=1_000)
    similarity_threshold: float | None = _Weight
    metadata_filters: dict[str, Any] | None = Field(default=None, max_length=20)
    enable_mmr: bool | None = None
    mmr_lambda: float | None = _Weight
    enable_surrounding_chunks: bool | None = None
    neighboring_chunks_count: int | None = Field(default=None, ge=0, le=10)
    enable_query_rewrite: bool | None = None
    enable_query_expansion: bool | None = None
    enable_hyde: bool | None = None
    enable_rerank: bool | None = None
    model: str | None = Field(default=None, min_length=1, max_length=300)
    freshness_boost: float | None = _Weight
    freshness_half_life_days: float | None = Field(default=None, gt=0, le=36_500)
    title_alpha: float | None = Field(default=None, ge=0, le=20)
    field_alphas: dict[Literal["title", "headings", "body"], float] | None = None


class SearchRequest(SearchOptions):
    """A search. limit: most passages, 1 to 100."""

    query: str = Field(min_length=1, max_length=8_000)
    limit: int = Field(default=10, ge=1, le=100)


class SearchDocument(ResponseModel):
    """A passage that was found.

    Attributes:
        score: 0 to 1, what the list is ordered by; `metadata` has what it is made of.
        content: the passage, with what stands around it if that was asked for.
    """

    id: str
    kb_id: str
    file_id: str
    content: str
    source_file: str
    score: float
    title: str = ""
    headings: list[str] = Field(default_factory=list[str])
    page: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])


class SearchResult(ResponseModel):
    """What was found.

    Attributes:
        search_metadata: `retrieval_mode`, the texts that were searched for, `timings_ms` by stage, `warnings`.
    """

    documents: list[SearchDocument]
    total_results: int
    search_metadata: dict[str, Any] = Field(default_factory=dict[str, Any])


class AssignedKnowledgeBases(ResponseModel):
    """The knowledge bases of an agent."""

    agent_id: str
    knowledge_bases: list[KnowledgeBase]
