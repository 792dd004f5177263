"""The types of artifacts every tenant has, and how an artifact of a type becomes a file."""

import csv
import io
import json
from email.message import EmailMessage
from typing import Any, NamedTuple, cast

from agentflow.types.artifacts import ArtifactAction, ArtifactType

_TEXT = {"type": "string", "maxLength": 1_000_000}
_LINE = {"type": "string", "maxLength": 1_000}
_PEOPLE = {"type": "array", "items": {"type": "string", "maxLength": 320}, "maxItems": 500}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _action(label: str, from_: list[str], to: str) -> ArtifactAction:
    return ArtifactAction.model_validate({"label": label, "from": from_, "to": to})


def type_of(
    name: str,
    label: str,
    description: str,
    schema: dict[str, Any],
    actions: dict[str, ArtifactAction],
    *,
    source: str = "built_in",
    initial_state: str = "draft",
    summary_fields: list[str] | None = None,
    icon: str | None = None,
    display: str = "panel",
) -> ArtifactType:
    """A type from its parts; its states are what its actions speak of."""
    states = dict.fromkeys([initial_state, *(s for a in actions.values() for s in (*a.from_, a.to))])
    return ArtifactType(
        name=name,
        source=source,
        label=label,
        description=description,
        icon=icon,
        display=display,
        content_schema=schema,
        initial_state=initial_state,
        states=list(states),
        actions={key: action.model_dump(by_alias=True) for key, action in actions.items()},
        summary_fields=summary_fields or [],
    )


_FINAL = {
    "finalize": _action("Finalize", ["draft"], "final"),
    "reopen": _action("Reopen", ["final"], "draft"),
}
DOCUMENT = type_of(
    "document",
    "Document",
    "A text of its own: a report, a letter, notes.",
    _object(["body"], body=_TEXT, format={"enum": ["markdown", "text", "html"]}),
    {**_FINAL, "archive": _action("Archive", ["draft", "final"], "archived")},
    summary_fields=["body"],
)
EMAIL_DRAFT = type_of(
    "email_draft",
    "Email draft",
    "An email that a person will look at before it is sent.",
    _object(["to", "subject", "body"], to=_PEOPLE, cc=_PEOPLE, bcc=_PEOPLE, subject=_LINE, body=_TEXT),
    {
        "send": _action("Send", ["draft", "scheduled"], "sent"),
        "schedule": _action("Schedule", ["draft"], "scheduled"),
        "cancel": _action("Cancel", ["draft", "scheduled"], "cancelled"),
    },
    summary_fields=["to", "subject", "body"],
)
TASK = type_of(
    "task",
    "Task",
    "Something somebody has to do.",
    _object(
        ["title"],
        title=_LINE,
        description=_TEXT,
        due={"type": "string", "maxLength": 40, "description": "ISO 8601 date or time"},
        assignee=_LINE,
        priority={"enum": ["low", "normal", "high"]},
    ),
    {
        "confirm": _action("Confirm", ["proposed"], "confirmed"),
        "complete": _action("Complete", ["proposed", "confirmed"], "completed"),
        "reopen": _action("Reopen", ["completed", "cancelled"], "confirmed"),
        "cancel": _action("Cancel", ["proposed", "confirmed"], "cancelled"),
    },
    initial_state="proposed",
    summary_fields=["title", "due", "assignee", "priority"],
    display="inline",
)
TABLE = type_of(
    "table",
    "Table",
    "Rows and columns.",
    _object(
        ["columns", "rows"],
        columns={"type": "array", "items": _LINE, "minItems": 1, "maxItems": 200},
        rows={
            "type": "array",
            "maxItems": 10_000,
            "items": {"type": "array", "items": {"type": ["string", "number", "boolean", "null"]}},
        },
    ),
    dict(_FINAL),
    summary_fields=["columns", "rows"],
)
BUILT_IN = {found.name: found for found in (DOCUMENT, EMAIL_DRAFT, TASK, TABLE)}
_FORMATS = {"markdown": ("text/markdown", "md"), "text": ("text/plain", "txt"), "html": ("text/html", "html")}


class File(NamedTuple):
    """An artifact as a file; `extension` without a dot."""

    media_type: str
    extension: str
    content: bytes


def file_of(type_name: str, title: str, content: dict[str, Any]) -> File:
    """A document as its text, an email as a message (RFC 5322), a table as CSV (RFC 4180), anything else as JSON."""
    if type_name == "document":
        media_type, extension = _FORMATS[content.get("format", "markdown")]
        return File(f"{media_type}; charset=utf-8", extension, content["body"].encode())
    if type_name == "email_draft":
        return File("message/rfc822", "eml", _email(content))
    if type_name == "table":
        text = io.StringIO()
        csv.writer(text).writerows([content["columns"], *([_cell(cell) for cell in row] for row in content["rows"])])
        return File("text/csv; charset=utf-8", "csv", text.getvalue().encode())
    return File("application/json", "json", json.dumps(content, ensure_ascii=False, indent=2).encode())


def _email(content: dict[str, Any]) -> bytes:
    message = EmailMessage()
    for header in ("to", "cc", "bcc"):
        if people := cast("list[str]", content.get(header, [])):
            message[header.title()] = ", ".join(_one_line(person) for person in people)
    message["Subject"] = _one_line(content["subject"])
    message.set_content(content["body"])
    return message.as_bytes()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(value: Any) -> Any:
    """A cell that a spreadsheet does not take for a formula (OWASP, "CSV Injection")."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
