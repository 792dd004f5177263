"""What all wire models share: requests are strict, answers keep what a newer server adds."""

from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr


class RequestModel(BaseModel):
    """A request body: a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")

    def wire(self) -> dict[str, Any]:
        """The body as it is sent: only what was set."""
        return self.model_dump(mode="json", exclude_unset=True)


class ResponseModel(BaseModel):
    """An answer: fields of a newer server are kept."""

    model_config = ConfigDict(extra="allow", defer_build=True)
    _response: Any = PrivateAttr(default=None)

    @property
    def response(self) -> Any:
        """The `RawResponse` this was read from (status, headers, request id, attempts); None inside another answer."""
        return self._response


class Page(ResponseModel):
    """What every listing has in common."""

    total: int
    limit: int
    offset: int
