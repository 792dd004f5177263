"""Artifacts on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from agentflow.types.base import Page, RequestModel, ResponseModel

TypeName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*$")]


class ArtifactAction(RequestModel):
    """A way from some states of an artifact to another.

    Attributes:
        from_: names of states, `from` on the wire. to: the state it leads to.
    """

    label: str | None = Field(default=None, max_length=200)
    from_: list[str] = Field(alias="from", min_length=1, max_length=50)
    to: str = Field(min_length=1, max_length=64)


class ArtifactTypeDefinition(RequestModel):
    """What a type of artifact is.

    Attributes:
        content_schema: JSON Schema (draft 2020-12) every content must fit.
        initial_state: where a new artifact begins. actions: by name; they are what leads from state to state.
        summary_fields: fields of the content that a summary for the model shows; the first few by default.
        display: how a user interface shows it.
    """

    label: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=4_000)
    icon: str | None = Field(default=None, max_length=200)
    display: Literal["panel", "inline"] = "panel"
    content_schema: dict[str, Any]
    initial_state: str = Field(default="draft", min_length=1, max_length=64)
    actions: dict[str, ArtifactAction] = Field(default_factory=dict[str, ArtifactAction], max_length=50)
    summary_fields: list[str] = Field(default_factory=list[str], max_length=50)


class ArtifactType(ResponseModel):
    """A type of artifact. `source`: `built_in`, `code` (the server's own folder) or `tenant`."""

    name: str
    source: str = "built_in"
    label: str
    description: str = ""
    icon: str | None = None
    display: str = "panel"
    content_schema: dict[str, Any] = Field(default_factory=dict[str, Any])
    initial_state: str = "draft"
    states: list[str] = Field(default_factory=list[str])
    actions: dict[str, Any] = Field(default_factory=dict[str, Any])
    summary_fields: list[str] = Field(default_factory=list[str])


class ArtifactTypes(ResponseModel):
    """Every type there is."""

    types: list[ArtifactType]


class Artifact(ResponseModel):
    """Something an agent made that has a form of its own.

    Attributes:
        state: `status` is the name of the state; the rest is free. version: counts every change, from 1.
        actions: names of those that its state allows.
    """

    id: str
    artifact_type: str
    title: str
    conversation_id: str
    run_id: str | None = None
    content: dict[str, Any]
    state: dict[str, Any]
    version: int
    actions: list[str] = Field(default_factory=list[str])
    created_at: datetime | None = None
    updated_at: datetime | None = None


class ArtifactPage(Page):
    """A page of artifacts."""

    artifacts: list[Artifact]


class ArtifactVersion(ResponseModel):
    """How an artifact stood after a change.

    Attributes:
        author: `agent` or `user`. change: `created`, `content`, `state`, or an action's name.
    """

    artifact_id: str
    version: int
    author: str
    change: str
    title: str
    content: dict[str, Any]
    state: dict[str, Any]
    created_at: datetime | None = None


class ArtifactVersionPage(Page):
    """A page of versions."""

    versions: list[ArtifactVersion]


class _Change(RequestModel):
    expected_version: int | None = Field(default=None, ge=1, description="409 if the artifact has another one")


class ArtifactContentUpdate(_Change):
    """A change of the content: a JSON merge patch (RFC 7396); null removes a field."""

    content: dict[str, Any] = Field(default_factory=dict[str, Any])
    title: str | None = Field(default=None, min_length=1, max_length=500)


class ArtifactStateUpdate(_Change):
    """A change of the state: a JSON merge patch; `status` must be one that an action leads to from here."""

    state: dict[str, Any]


class ArtifactActionRequest(_Change):
    """An action; `data` is merged into the state."""

    data: dict[str, Any] = Field(default_factory=dict[str, Any])
