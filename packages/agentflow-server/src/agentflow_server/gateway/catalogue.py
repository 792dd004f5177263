"""What is known of models before they are asked: windows, abilities, prices.

A provider may have more models than stand here; those are used as they are named, with careful assumptions.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from agentflow_server.gateway.messages import Usage


class ModelInfo(NamedTuple):
    """A model. `context_window` and `max_output` are in tokens."""

    id: str
    name: str
    context_window: int = 128_000
    max_output: int | None = None
    vision: bool = False
    tools: bool = True
    structured_output: bool = True
    reasoning_efforts: tuple[str, ...] = ()
    description: str | None = None
    available: bool = False

    @property
    def provider(self) -> str:
        return self.id.split("/", 1)[0]


_GPT5 = ("minimal", "low", "medium", "high")
_THINKING = ("low", "medium", "high")
_GPT51 = ("none", *_THINKING)
_MILLION = 1_000_000
SCRIPTED = "agentflow/scripted"
BUILT_IN: tuple[ModelInfo, ...] = (
    ModelInfo("openai/gpt-6.1-sol", "GPT-6.1 Sol", 1_050_000, 128_000, True, reasoning_efforts=_GPT51),
    ModelInfo("openai/gpt-6.1-terra", "GPT-6.1 Terra", 1_050_000, 128_000, True, reasoning_efforts=_GPT51),
    ModelInfo("openai/gpt-6-luna", "GPT-6 Luna", 1_050_000, 128_000, True, reasoning_efforts=_GPT51),
    ModelInfo("openai/gpt-5.4", "GPT-5.4", 1_050_000, 128_000, True, reasoning_efforts=_GPT51),
    ModelInfo("openai/gpt-5.4-mini", "GPT-5.4 mini", 400_000, 128_000, True, reasoning_efforts=_GPT51),
    ModelInfo("openai/gpt-5.4-nano", "GPT-5.4 nano", 400_000, 128_000, True, reasoning_efforts=_GPT51),
    ModelInfo("openai/gpt-5", "GPT-5", 400_000, 128_000, True, reasoning_efforts=_GPT5),
    ModelInfo("openai/gpt-5-mini", "GPT-5 mini", 400_000, 128_000, True, reasoning_efforts=_GPT5),
    ModelInfo("openai/gpt-4.1", "GPT-4.1", _MILLION, 32_768, True),
    ModelInfo("openai/gpt-4o", "GPT-4o", 128_000, 16_384, True),
    ModelInfo("openai/gpt-4o-mini", "GPT-4o mini", 128_000, 16_384, True),
    ModelInfo("anthropic/claude-opus-5-5", "Claude Opus 5.5", _MILLION, 64_000, True, reasoning_efforts=_THINKING),
    ModelInfo("anthropic/claude-sonnet-5-5", "Claude Sonnet 5.5", _MILLION, 64_000, True, reasoning_efforts=_THINKING),
    ModelInfo("anthropic/claude-haiku-5-5", "Claude Haiku 5.5", _MILLION, 64_000, True, reasoning_efforts=_THINKING),
    ModelInfo("anthropic/claude-haiku-4-5", "Claude Haiku 4.5", 200_000, 64_000, True, reasoning_efforts=_THINKING),
    ModelInfo("google/gemini-4-argon", "Gemini 4 Argon", 1_048_576, 65_536, True, reasoning_efforts=_THINKING),
    ModelInfo("google/gemini-3.8-flash", "Gemini 3.8 Flash", _MILLION, 65_536, True, reasoning_efforts=_THINKING),
    ModelInfo("google/gemini-3.5-flash-lite", "Gemini 3.5 Flash-Lite", _MILLION, 65_536, True),
    ModelInfo("google/gemini-2.5-flash", "Gemini 2.5 Flash", 1_048_576, 65_536, True, reasoning_efforts=_THINKING),
    ModelInfo("mistral/mistral-large-latest", "Mistral Large", 262_144, None, True),
    ModelInfo("mistral/mistral-small-latest", "Mistral Small", 262_144, None, True),
    ModelInfo("deepseek/deepseek-flash", "DeepSeek V4.1 Flash", _MILLION, None),
    ModelInfo("deepseek/deepseek-v4-pro", "DeepSeek V4 Pro", _MILLION, None),
    ModelInfo("groq/openai/gpt-oss-120b", "GPT OSS 120B", 131_072, None),
    ModelInfo("groq/qwen/qwen3.8-27b", "Qwen 3.8 27B", 131_072, None),
    ModelInfo(
        SCRIPTED,
        "Scripted",
        200_000,
        8_192,
        description="Deterministic stand-in for demos and tests: no language model, answers by documented rules.",
    ),
)
BY_ID = {model.id: model for model in BUILT_IN}
PREFERRED = {
    "openai": "openai/gpt-5.4-mini",
    "anthropic": "anthropic/claude-sonnet-5-5",
    "google": "google/gemini-3.8-flash",
    "mistral": "mistral/mistral-small-latest",
    "deepseek": "deepseek/deepseek-flash",
    "groq": "groq/openai/gpt-oss-120b",
}


class Prices(NamedTuple):
    """US dollars for a million tokens."""

    input: float
    cached_input: float
    output: float


def prices(model_id: str) -> Prices | None:
    """A model's prices, or None if they are not known. Offline (genai-prices)."""
    costs = [
        cost_of(model_id, usage)
        for usage in (
            Usage(input_tokens=1000),
            Usage(input_tokens=1000, cached_input_tokens=1000),
            Usage(output_tokens=1000),
        )
    ]
    known = [round(cost * 1000, 6) for cost in costs if cost is not None]
    return Prices(*known) if len(known) == len(costs) else None


def cost_of(model_id: str, usage: Usage) -> float | None:
    """What a call costs in US dollars, None if the price is not known."""
    if model_id == SCRIPTED:
        return 0.0
    entry = _priced_model(model_id)
    if entry is None:
        return None
    from genai_prices import Usage as PricedUsage

    counted = PricedUsage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
    )
    provider, model = entry
    try:
        return float(model.calc_price(counted, provider).total_price)
    except (LookupError, ValueError):
        return None


@lru_cache(maxsize=1024)
def _priced_model(model_id: str) -> Any:
    """The provider and the model in the price list, or None."""
    from genai_prices.data_snapshot import get_snapshot

    provider, _, name = model_id.partition("/")
    try:
        return get_snapshot().find_provider_model(name, None, provider, None)
    except (LookupError, ValueError):
        return None
