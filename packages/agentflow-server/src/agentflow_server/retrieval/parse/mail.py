"""E-mail (RFC 5322): who wrote to whom, and what. Attachments are named, not read."""

import contextlib
import email
import email.policy
from email.message import EmailMessage, MIMEPart
from pathlib import Path

from agentflow_server.retrieval.parse.document import Collector, Document
from agentflow_server.retrieval.parse.markup import add_html
from agentflow_server.retrieval.parse.text import decode


def read_mail(path: Path, out: Collector) -> Document:
    """A message: its head in words, its text with headings and tables, the names of what is attached."""
    with path.open("rb") as file:
        message = email.message_from_binary_file(file, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    heads = {name: str(message[name]) for name in ("From", "To", "Cc", "Date") if message[name]}
    out.add("text", "\n".join(f"{name}: {value}" for name, value in heads.items()))
    plain, page = (message.get_body((kind,)) for kind in ("plain", "html"))
    told = "" if plain is None else _text_of(plain).replace("\r\n", "\n")
    shown = out.another()
    if page is not None:
        add_html(_text_of(page), shown)
    if shown.chars * 2 > len(told):  # it has the headings and the tables, and is all of it
        out.extend(shown.blocks)
    else:
        out.add("text", told)
    attached = [part.get_filename() or part.get_content_type() for part in message.iter_attachments()]
    warnings = [f"attachments are not read: {', '.join(attached)}"] if attached else []
    if attached:
        out.add("text", f"Attachments: {', '.join(attached)}")
    metadata = {name.lower(): value for name, value in heads.items()}
    return Document("message/rfc822", out.blocks, title=str(message["Subject"] or "") or None, metadata=metadata,
                    warnings=warnings)  # fmt: skip


def _text_of(part: MIMEPart) -> str:
    """The text of a part, in the encoding that it names if it holds."""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    charset = part.get_content_charset()
    if charset:
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            return payload.decode(charset)
    return decode(payload)
