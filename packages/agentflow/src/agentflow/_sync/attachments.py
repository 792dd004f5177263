"""Generated from agentflow/resources/attachments.py by tools/sync_generator.py: do not edit.

`client.attachments`: files that runs can be given."""

from agentflow._sync.downloads import Download
from agentflow._sync.pages import Page
from agentflow._sync.runs import segment
from agentflow._sync.streams import new_id
from agentflow.transport.drivers import SyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.transport.uploads import FilePart, FileSource, Multipart, Progress
from agentflow.types.attachments import Attachment, AttachmentPage


class Attachments:
    """The caller's files."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def upload(
        self,
        file: FileSource,
        *,
        name: str | None = None,
        media_type: str | None = None,
        progress: Progress | None = None,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
    ) -> Attachment:
        """Upload a file, read and sent in pieces.

        Args:
            file: bytes, a path, or a file that is open for reading bytes. name, media_type: by default from the path.
            progress: called with the bytes sent so far, and with how many there are (None if that is not known).

        Raises:
            PayloadTooLargeError: it is larger than the server takes. UnsupportedMediaTypeError: its type is not taken,
            or its content is not of the declared type. ValidationError: it is damaged, or would burst when unpacked.
            OSError: the path cannot be read.
        """
        upload = self._transport.blocking(Multipart, [FilePart("file", file, name, media_type)], None, progress)
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        request = Request(
            "POST", "/api/v1/attachments", headers=headers, repeatable=True, timeout=timeout, upload=upload
        )
        return self._transport.call(request, Attachment)

    def list(self, *, limit: int = 50, offset: int = 0) -> Page[Attachment]:
        """A page of the caller's files, newest first; iterating it walks on through all.

        Args:
            limit: 1 to 100.
        """
        query = {"limit": limit, "offset": offset}
        data = self._transport.call(Request("GET", "/api/v1/attachments", query, repeatable=True), AttachmentPage)

        def fetch(start: int) -> Page[Attachment]:
            return self.list(limit=limit, offset=start)

        return Page(data, "attachments", fetch)

    def retrieve(self, attachment_id: str) -> Attachment:
        """What is known of a file.

        Raises:
            NotFoundError: the caller has no such file.
        """
        return self._transport.call(Request("GET", _path(attachment_id), repeatable=True), Attachment)

    def download(self, attachment_id: str) -> Download:
        """A file's bytes: `.read()` them, `.save(path)` them, or iterate. A broken connection is taken up again.

        Raises:
            NotFoundError: the caller has no such file; raised when it is read.
        """
        return Download(self._transport, _path(attachment_id, "/content"))

    def delete(self, attachment_id: str) -> None:
        """Remove a file. Conversations keep a document's text, not an image.

        Raises:
            NotFoundError: the caller has no such file.
        """
        self._transport.raw(Request("DELETE", _path(attachment_id)))


def _path(attachment_id: str, rest: str = "") -> str:
    return f"/api/v1/attachments/{segment(attachment_id)}{rest}"
