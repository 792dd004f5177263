"""The catalogue of models as a tenant sees it, the policy behind it, and users' own choices. Called by routes."""

from collections.abc import Mapping
from typing import Any

from agentflow.errors import APIError, ConflictError, ModelError, NotFoundError, PermissionDeniedError, ValidationError
from agentflow.types.models import (
    Model,
    ModelCapabilities,
    ModelList,
    ModelPolicy,
    ModelPolicyUpdate,
    ModelPricing,
    ModelSetting,
    ModelSettingUpdate,
    ProviderKey,
    ProviderKeyList,
    ProviderKeyUpdate,
)

from agentflow_server.gateway import Gateway
from agentflow_server.gateway.catalogue import ModelInfo, prices
from agentflow_server.gateway.probe import probe
from agentflow_server.gateway.settings import keyed_providers, own_endpoint
from agentflow_server.http.identity import Caller
from agentflow_server.kit.clock import Clock, to_datetime
from agentflow_server.kit.outbound import ForbiddenAddressError, address_problem
from agentflow_server.kit.secrets import Secrets
from agentflow_server.resources.models import store
from agentflow_server.resources.models.policy import PURPOSE, TenantPolicy, may_use
from agentflow_server.resources.models.store import KeyRecord, Rules
from agentflow_server.storage import Database, Tx

_SHOWN_FROM = 12


class ModelsService:
    """The models room."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        gateway: Gateway,
        policy: TenantPolicy,
        secrets: Secrets,
        *,
        allow_private: bool,
    ) -> None:
        self._db = db
        self._clock = clock
        self._gateway = gateway
        self._policy = policy
        self._secrets = secrets
        self._allow_private = allow_private

    async def list(self, caller: Caller) -> ModelList:
        """The models the caller may use, and the one that is used by default."""
        found = await self._visible(caller)
        try:
            default = await self._gateway.choose(caller.tenant, caller.user_id)
        except (PermissionDeniedError, NotFoundError, ValidationError):
            default = None
        return ModelList(models=[_model(info) for info in found], default=default)

    async def retrieve(self, caller: Caller, model_id: str) -> Model:
        """One model.

        Raises:
            NotFoundError: there is no such model, or the tenant may not use it.
        """
        for info in await self._visible(caller):
            if info.id == model_id:
                return _model(info)
        raise NotFoundError(f"there is no model {model_id!r}: GET /api/v1/models lists those there are")

    async def _visible(self, caller: Caller) -> "list[ModelInfo]":
        rules, keys = await self._db.tenant(caller.tenant).read(lambda tx: (store.rules(tx), store.keys(tx)))
        found = await self._gateway.catalogue()
        known = {info.id for info in found}
        extra = [entry for entry in rules.allowed or () if not entry.endswith("*") and entry not in known]
        found = [*found, *(ModelInfo(entry, entry.split("/", 1)[1]) for entry in extra)]
        if rules.mode == "byo":
            own = {key.provider for key in keys} | ({"agentflow"} if rules.allowed is not None else set[str]())
            found = [info._replace(available=True) for info in found if info.provider in own]
        return [info for info in found if may_use(rules, info.id)]

    async def setting(self, caller: Caller) -> ModelSetting:
        """The model the caller has chosen for itself."""
        chosen = await self._db.tenant(caller.tenant).read(lambda tx: store.user_model(tx, caller.user_id))
        return ModelSetting(model=chosen)

    async def set_setting(self, caller: Caller, wanted: ModelSettingUpdate) -> ModelSetting:
        """Keep the caller's choice; it goes before what agents are configured with.

        Raises:
            ValidationError: there is no such model. PermissionDeniedError: the tenant may not use it.
        """
        if wanted.model is not None:
            try:
                await self._gateway.admit(caller.tenant, wanted.model)
            except NotFoundError as error:
                raise _invalid("model", error.message) from None
        now = self._clock.micros()
        await self._db.tenant(caller.tenant).write(
            lambda tx: store.set_user_model(tx, caller.user_id, wanted.model, now)
        )
        return ModelSetting(model=wanted.model)

    async def policy(self, caller: Caller) -> ModelPolicy:
        """The tenant's policy."""
        return _policy(await self._db.tenant(caller.tenant).read(store.rules))

    async def set_policy(self, caller: Caller, changes: ModelPolicyUpdate) -> ModelPolicy:
        """Change the policy; what is left out stays.

        Raises:
            ValidationError: a model that does not exist or may not be used, a mode without keys.
        """
        fields = changes.model_dump(exclude_unset=True)
        now = self._clock.micros()

        def unit(tx: Tx) -> Rules:
            before = store.rules(tx)
            allowed = fields.get("allowed_models", before.allowed)
            rules = Rules(
                fields.get("mode") or before.mode,
                None if allowed is None else tuple(dict.fromkeys(allowed)),
                {**before.defaults, **(fields.get("defaults") or {})},
                now,
                caller.user_id,
            )
            rules = rules._replace(defaults={name: model for name, model in rules.defaults.items() if model})
            self._check(rules, {key.provider for key in store.keys(tx)})
            store.set_rules(tx, rules)
            return rules

        return _policy(await self._db.tenant(caller.tenant).write(unit))

    def _check(self, rules: Rules, own: set[str]) -> None:
        if rules.mode == "byo" and not own:
            raise _invalid("mode", "byo needs a provider key: add one first")
        for entry in rules.allowed or ():
            provider, _, name = entry.partition("/")
            if not name or not self._gateway.knows(provider):
                raise _invalid("allowed_models", f"{entry!r} names no model: write provider/model or provider/*")
        for use_case, model in rules.defaults.items():
            try:
                self._gateway.model(model)
            except NotFoundError as error:
                raise _invalid(f"defaults.{use_case}", error.message) from None
            if not may_use(rules, model):
                raise _invalid(f"defaults.{use_case}", f"{model} is not among allowed_models")
            if rules.mode == "byo" and model.partition("/")[0] not in own | {"agentflow"}:
                raise _invalid(f"defaults.{use_case}", f"there is no key for the provider of {model}")

    async def keys(self, caller: Caller) -> ProviderKeyList:
        """The tenant's keys, without what they are."""
        found = await self._db.tenant(caller.tenant).read(store.keys)
        return ProviderKeyList(keys=[_shown(key) for key in found], providers=[*keyed_providers()])

    async def set_key(self, caller: Caller, provider: str, wanted: ProviderKeyUpdate) -> ProviderKey:
        """Keep a key in place of the one before. It is tried first, and never shown again.

        Raises:
            ValidationError: the provider does not accept it, cannot be reached, or the address may not be called.
        """
        if provider not in keyed_providers():
            told = f"must be one of {', '.join(keyed_providers())}, not {provider!r}"
            raise _invalid("provider", told)
        if provider == "azure" and not wanted.base_url:
            raise _invalid("base_url", "azure needs the address of the resource")
        await self._check_address(wanted.base_url)
        now = self._clock.micros()
        checked = now if wanted.test and await self._accepted(provider, wanted) else None
        settings = {name: getattr(wanted, name) for name in ("base_url", "api_version") if getattr(wanted, name)}
        sealed = self._secrets.seal(caller.tenant, f"{PURPOSE}:{provider}", wanted.api_key)
        last = wanted.api_key[-4:] if len(wanted.api_key) >= _SHOWN_FROM else ""
        record = KeyRecord(provider, sealed, last, settings, checked, now, now, caller.user_id)

        def unit(tx: Tx) -> KeyRecord:
            store.set_key(tx, record)
            return store.key(tx, provider) or record

        return _shown(await self._db.tenant(caller.tenant).write(unit))

    async def _check_address(self, base_url: str | None) -> None:
        if base_url is None:
            return
        try:
            problem = await address_problem(base_url, allow_private=self._allow_private)
        except ForbiddenAddressError as error:
            problem = str(error)
        if problem:
            raise _invalid("base_url", problem)

    async def _accepted(self, provider: str, wanted: ProviderKeyUpdate) -> bool:
        endpoint = own_endpoint(
            provider,
            wanted.api_key,
            base_url=wanted.base_url,
            api_version=wanted.api_version,
            allow_private=self._allow_private,
        )
        try:
            return await probe(provider, endpoint)
        except ModelError as error:
            raise _invalid("api_key", f"{error.message}; `test: false` keeps it without trying it") from None

    async def test_key(self, caller: Caller, provider: str) -> ProviderKey:
        """Try a stored key, and seal it anew with the server's newest master key.

        Raises:
            NotFoundError: there is none. ModelAuthError: the provider does not accept it any more.
        """
        key = await self._db.tenant(caller.tenant).read(lambda tx: store.key(tx, provider))
        if key is None:
            raise _no_key(provider)
        endpoint = self._policy.opened(caller.tenant, key)
        checked = self._clock.micros() if await probe(provider, endpoint) else key.checked_at
        assert endpoint.api_key is not None
        sealed = self._secrets.seal(caller.tenant, f"{PURPOSE}:{provider}", endpoint.api_key.get_secret_value())
        record = key._replace(sealed=sealed, checked_at=checked)
        await self._db.tenant(caller.tenant).write(lambda tx: store.set_key(tx, record))
        return _shown(record)

    async def delete_key(self, caller: Caller, provider: str) -> None:
        """Remove a key.

        Raises:
            NotFoundError: there is none. ConflictError: it is the last one, and the policy needs one.
        """

        def unit(tx: Tx) -> APIError | None:
            if not store.delete_key(tx, provider):
                return _no_key(provider)
            if store.rules(tx).mode == "byo" and not store.keys(tx):
                raise ConflictError(
                    f"{provider} is the last key, and the policy's mode is byo: change the mode to platform first"
                )
            return None

        if (error := await self._db.tenant(caller.tenant).write(unit)) is not None:
            raise error


def _policy(rules: Rules) -> ModelPolicy:
    return ModelPolicy(
        mode=rules.mode,
        allowed_models=None if rules.allowed is None else list(rules.allowed),
        defaults=dict(rules.defaults),
        updated_at=None if rules.updated_at is None else to_datetime(rules.updated_at),
        updated_by=rules.updated_by,
    )


def _shown(key: KeyRecord) -> ProviderKey:
    settings: Mapping[str, Any] = key.settings
    return ProviderKey(
        provider=key.provider,
        last_four=key.last_four,
        base_url=settings.get("base_url"),
        api_version=settings.get("api_version"),
        checked_at=None if key.checked_at is None else to_datetime(key.checked_at),
        created_at=to_datetime(key.created_at),
        updated_at=to_datetime(key.updated_at),
        updated_by=key.updated_by,
    )


def _no_key(provider: str) -> NotFoundError:
    return NotFoundError(f"there is no key for {provider!r}")


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError(f"{field}: {message}", details=[{"field": field, "message": message}])


def _model(info: ModelInfo) -> Model:
    price = prices(info.id)
    return Model(
        id=info.id,
        name=info.name,
        provider=info.provider,
        description=info.description,
        available=info.available,
        capabilities=ModelCapabilities(
            contextWindow=info.context_window,
            maxOutputTokens=info.max_output,
            supportsVision=info.vision,
            supportsTools=info.tools,
            supportsReasoning=bool(info.reasoning_efforts),
            supportsStructuredOutput=info.structured_output,
        ),
        supportedReasoningEfforts=list(info.reasoning_efforts),
        pricing=ModelPricing(
            input_per_million=price.input,
            cached_input_per_million=price.cached_input,
            output_per_million=price.output,
        )
        if price
        else None,
    )
