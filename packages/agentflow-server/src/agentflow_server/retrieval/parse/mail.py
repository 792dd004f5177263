"""E-mail (RFC 5322): who wrote to whom, and what. Attachments are named, not read."""

import contextlib
import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

from agentflow_server.retrieval.parse.document import Collector, Document
from agentflow_server.retrieval.parse.markup import parse_html
from agentflow_server.retrieval.parse.text import decode


def read_mail(path: Path, out: Collector) -> Document:
    """A message: its head in words, its text, the names of what is attached."""
    with path.open("rb") as file:
        message = email.message_from_binary_file(file, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    heads = {name: str(message[name]) for name in ("From", "To", "Cc", "Date") if message[name]}
    out.add("text", "\n".join(f"{name}: {value}" for name, value in heads.items()))
    body = message.get_body(("plain", "html"))
    if body is not None:
        payload = body.get_payload(decode=True)
        text = decode(payload if isinstance(payload, bytes) else b"")
        charset = body.get_content_charset()
        if charset and isinstance(payload, bytes):
            with contextlib.suppress(LookupError, UnicodeDecodeError):
                text = payload.decode(charset)
        if body.get_content_subtype() == "html":
            parse_html(text, out)
        else:
            out.add("text", text.replace("\r\n", "\n"))
    attached = [part.get_filename() or part.get_content_type() for part in message.iter_attachments()]
    warnings = [f"attachments are not read: {', '.join(attached)}"] if attached else []
    if attached:
        out.add("text", f"Attachments: {', '.join(attached)}")
    metadata = {name.lower(): value for name, value in heads.items()}
    return Document("message/rfc822", out.blocks, title=str(message["Subject"] or "") or None, metadata=metadata,
                    warnings=warnings)  # fmt: skip
