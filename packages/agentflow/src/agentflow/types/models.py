"""Models on the wire. Names of capabilities are camelCase, as the catalogue's clients know them."""

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from agentflow.types.base import RequestModel, ResponseModel


class ModelCapabilities(ResponseModel):
    """What a model can do."""

    contextWindow: int  # noqa: N815 - the wire's name
    maxOutputTokens: int | None = None  # noqa: N815
    supportsVision: bool = False  # noqa: N815
    supportsStreaming: bool = True  # noqa: N815
    supportsTools: bool = True  # noqa: N815
    supportsReasoning: bool = False  # noqa: N815
    supportsStructuredOutput: bool = True  # noqa: N815


class ModelPricing(ResponseModel):
    """US dollars for a million tokens."""

    input_per_million: float | None = None
    cached_input_per_million: float | None = None
    output_per_million: float | None = None


class Model(ResponseModel):
    """A model of the catalogue. `id` is what runs and agents name it by; `available`: its provider is configured."""

    id: str
    name: str
    provider: str
    description: str | None = None
    available: bool
    capabilities: ModelCapabilities
    supportedReasoningEfforts: list[str] = Field(default_factory=list[str])  # noqa: N815
    pricing: ModelPricing | None = None


class ModelList(ResponseModel):
    """The catalogue. `default` is what is used when nobody asks for a model; None if nothing may be used."""

    models: list[Model]
    default: str | None = None


UseCase = Literal["agent_chat", "completions", "titles"]


class ModelPolicy(ResponseModel):
    """A tenant's rules about models.

    Attributes:
        mode: `platform` uses the server's provider keys, `byo` only the tenant's own.
        allowed_models: ids, or `provider/*`; None allows every model.
        defaults: what is used for a use case (`agent_chat`, `completions`, `titles`) when nobody asks for a model.
    """

    mode: str = "platform"
    allowed_models: list[str] | None = None
    defaults: dict[str, str] = Field(default_factory=dict[str, str])
    updated_at: datetime | None = None
    updated_by: str | None = None


class ModelPolicyUpdate(RequestModel):
    """Changes to a policy; what is left out stays. A default set to null is forgotten."""

    mode: Literal["platform", "byo"] | None = None
    allowed_models: list[str] | None = Field(default=None, min_length=1, max_length=500)
    defaults: dict[UseCase, str | None] | None = None


class ProviderKeyUpdate(RequestModel):
    """A key of the tenant's own. It is written and never read again.

    Attributes:
        base_url: another address than the provider's usual one; required for `azure`. api_version: `azure` only.
        test: try it with a call that costs nothing before it is kept.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    api_key: str = Field(min_length=8, max_length=1000, pattern=r"^[\x21-\x7e]+$", repr=False)
    base_url: str | None = Field(default=None, max_length=2000)
    api_version: str | None = Field(default=None, max_length=100)
    test: bool = True


class ProviderKey(ResponseModel):
    """What is shown of a key. `checked_at`: when the provider last accepted it, None if it was not tried."""

    provider: str
    last_four: str
    base_url: str | None = None
    api_version: str | None = None
    checked_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    updated_by: str


class ProviderKeyList(ResponseModel):
    """The tenant's keys, and the providers a key can be kept for."""

    keys: list[ProviderKey]
    providers: list[str] = Field(default_factory=list[str])


class ModelSetting(ResponseModel):
    """The model a user has chosen for itself: it goes before what agents are configured with; None for no choice."""

    model: str | None = None


class ModelSettingUpdate(RequestModel):
    """A user's choice; null forgets it."""

    model: str | None = Field(min_length=1, max_length=300)
