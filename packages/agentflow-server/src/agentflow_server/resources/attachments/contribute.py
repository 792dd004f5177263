"""What attachments add to a run: images for models that see, the text of documents."""

import asyncio

from agentflow.errors import ValidationError

from agentflow_server.gateway import catalogue
from agentflow_server.gateway.messages import DocumentPart, ImagePart, Part
from agentflow_server.resources.attachments.service import REF, AttachmentsService
from agentflow_server.resources.attachments.store import AttachmentRecord
from agentflow_server.runtime.plan import Contribution, PlanAsk


class AttachmentsContributor:
    """Adds the files a request names.

    Args:
        per_run: how many there may be.
    """

    def __init__(self, attachments: AttachmentsService, per_run: int) -> None:
        self._attachments = attachments
        self._per_run = per_run

    async def contribute(self, ask: PlanAsk) -> Contribution:
        """The files of a run, in the order they were named.

        Raises:
            NotFoundError: the user has no such attachment. ValidationError: there are too many, or one is an image and
            the model is known not to see.
        """
        ids = list(dict.fromkeys(ask.options.attachment_ids or ()))
        if not ids:
            return Contribution()
        if len(ids) > self._per_run:
            raise _invalid(f"{len(ids)} are too many: a run takes at most {self._per_run}")
        found = self._attachments.record
        records = [await found(ask.tenant, ask.user_id, attachment_id) for attachment_id in ids]
        known = catalogue.BY_ID.get(ask.model)
        for record in records:
            if record.kind == "image" and known is not None and not known.vision:
                raise _invalid(f"{record.name} is an image, and {ask.model} cannot see: choose another model")
        return Contribution(parts=tuple(await asyncio.gather(*(self._part(ask, record) for record in records))))

    async def _part(self, ask: PlanAsk, record: AttachmentRecord) -> Part:
        if record.kind == "image":
            detail = ask.options.image_detail or "auto"
            return ImagePart(media_type=record.media_type, url=f"{REF}{record.id}", detail=detail)
        return DocumentPart(name=record.name, text=await self._attachments.text(ask.tenant, record))


def _invalid(message: str) -> ValidationError:
    return ValidationError(f"attachment_ids: {message}", details=[{"field": "attachment_ids", "message": message}])
