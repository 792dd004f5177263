"""Models on the wire. Names of capabilities are camelCase, as the catalogue's clients know them."""

from pydantic import Field

from agentflow.types.base import ResponseModel


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
    """The catalogue."""

    models: list[Model]
    default: str
