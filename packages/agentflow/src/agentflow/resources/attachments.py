"""`client.attachments`: files that runs can be given."""

from agentflow.resources.downloads import AsyncDownload
from agentflow.resources.pages import AsyncPage
from agentflow.resources.runs import segment
from agentflow.resources.streams import new_id
from agentflow.transport.drivers import AsyncTransport
from agentflow.transport.request import Request, Timeout
from agentflow.transport.uploads import FilePart, FileSource, Multipart, Progress
from agentflow.types.attachments import Attachment, AttachmentPage


class AsyncAttachments:
    """The caller's files."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def upload(
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
        upload = await self._transport.blocking(Multipart, [FilePart("file", file, name, media_type)], None, progress)
        headers = {"Idempotency-Key": idempotency_key or new_id()}
        request = Request(
            "POST", "/api/v1/attachments", headers=headers, repeatable=True, timeout=timeout, upload=upload
        )
        return await self._transport.call(request, Attachment)

    async def list(self, *, limit: int = 50, offset: int = 0) -> AsyncPage[Attachment]:
        """A page of the caller's files, newest first; iterating it walks on through all.

        Args:
            limit: 1 to 100.
        """
        query = {"limit": limit, "offset": offset}
        data = await self._transport.call(Request("GET", "/api/v1/attachments", query, repeatable=True), AttachmentPage)

        async def fetch(start: int) -> AsyncPage[Attachment]:
            return await self.list(limit=limit, offset=start)

        return AsyncPage(data, "attachments", fetch)

    async def retrieve(self, attachment_id: str) -> Attachment:
        """What is known of a file.

        Raises:
            NotFoundError: the caller has no such file.
        """
        return await self._transport.call(Request("GET", _path(attachment_id), repeatable=True), Attachment)

    def download(self, attachment_id: str) -> AsyncDownload:
        """A file's bytes: `.read()` them, `.save(path)` them, or iterate. A broken connection is taken up again.

        Raises:
            NotFoundError: the caller has no such file; raised when it is read.
        """
        return AsyncDownload(self._transport, _path(attachment_id, "/content"))

    async def delete(self, attachment_id: str) -> None:
        """Remove a file. Conversations keep a document's text, not an image.

        Raises:
            NotFoundError: the caller has no such file.
        """
        await self._transport.raw(Request("DELETE", _path(attachment_id)))


def _path(attachment_id: str, rest: str = "") -> str:
    return f"/api/v1/attachments/{segment(attachment_id)}{rest}"
