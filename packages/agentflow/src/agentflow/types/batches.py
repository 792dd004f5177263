"""Batches on the wire: the operations of completions on many items, done in the background."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from agentflow.types.base import Page, RequestModel, ResponseModel
from agentflow.types.completions import (
    CompletionRow,
    EnrichRequest,
    ExtractRequest,
    LabelRequest,
    RunRequest,
    SummarizeRequest,
)
from agentflow.types.runs import Usage

BatchStatus = Literal["queued", "processing", "completed", "failed", "cancelled"]
OutputFormat = Literal["json", "jsonl", "csv"]
TERMINAL = frozenset({"completed", "failed", "cancelled"})


class WebhookFields(RequestModel):
    """Who is told when the batch has ended (Standard Webhooks).

    Attributes:
        webhook_secret: what the messages are signed with: `whsec_` and 24 to 64 bytes in base64; one is made, and shown
            once, if it is left out.
    """

    webhook_url: str | None = Field(default=None, max_length=2000)
    webhook_secret: str | None = Field(default=None, max_length=200, repr=False)


class LabelBatch(LabelRequest, WebhookFields):
    """A batch that classifies."""

    operation: Literal["label"]


class ExtractBatch(ExtractRequest, WebhookFields):
    """A batch that extracts."""

    operation: Literal["extract"]


class SummarizeBatch(SummarizeRequest, WebhookFields):
    """A batch that summarises."""

    operation: Literal["summarize"]


class EnrichBatch(EnrichRequest, WebhookFields):
    """A batch that enriches."""

    operation: Literal["enrich"]


class RunBatch(RunRequest, WebhookFields):
    """A batch that asks one's own question."""

    operation: Literal["run"]


BatchRequest = Annotated[
    LabelBatch | ExtractBatch | SummarizeBatch | EnrichBatch | RunBatch, Field(discriminator="operation")
]


class Webhook(ResponseModel):
    """Where the end of a batch is told.

    Attributes:
        secret: shown once, in the answer that creates the batch. status: `pending`, `delivered` or `failed`.
    """

    url: str
    secret: str | None = None
    status: str = "pending"
    attempts: int = 0
    last_error: str | None = None


class BatchError(ResponseModel):
    """Why a batch failed as a whole."""

    code: str
    message: str


class Batch(ResponseModel):
    """A batch.

    Attributes:
        status: `queued` (a file is being read), `processing`, `completed`, `failed` or `cancelled`. It is completed
            when every item has its row, also if rows failed; it fails as a whole if nothing more can be asked.
        total, processed, succeeded, failed: items; exact at every moment. progress: 0 to 1.
        usage, cost: sums over the rows so far; cost in US dollars.
    """

    id: str
    operation: str
    status: str
    model: str | None = None
    total: int = 0
    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    progress: float = 0.0
    usage: Usage = Field(default_factory=Usage)
    cost: float | None = None
    error: BatchError | None = None
    webhook: Webhook | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return self.status in TERMINAL


class BatchPage(Page):
    """A page of batches, newest first."""

    batches: list[Batch]


class BatchOutput(ResponseModel):
    """A page of rows: those of the items from `offset` on, `limit` at most. Items without a row yet are left out."""

    id: str
    status: str
    offset: int
    limit: int
    total: int = 0
    results: list[CompletionRow[Any]]
