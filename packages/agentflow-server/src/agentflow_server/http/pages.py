"""Parameters that many routes have."""

from typing import Annotated

from fastapi import Header, Query

Limit = Annotated[int, Query(ge=1, le=100, description="how many items")]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000, description="how many to skip")]
IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=200, description="the same on every attempt of one request")
]


def resume_point(last_event_id: str | None) -> int | None:
    """The number in a `Last-Event-ID` header; None if there is none (WHATWG HTML, section 9.2.4: a hint)."""
    if last_event_id is None:
        return None
    text = last_event_id.strip()
    return int(text) if text.isdigit() and len(text) < 19 else None
