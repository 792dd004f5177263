"""The gateway's policy: which models a tenant may use, with whose keys, and what is used when nobody asks for one.

Read from the database at every call, so that a change holds at once and in every process.
"""

from agentflow.errors import PermissionDeniedError

from agentflow_server.gateway import catalogue
from agentflow_server.gateway.ports import Preferred, UseCase
from agentflow_server.gateway.settings import Endpoint, own_endpoint
from agentflow_server.kit.secrets import Secrets
from agentflow_server.resources.models import store
from agentflow_server.resources.models.store import KeyRecord, Rules
from agentflow_server.storage import Database, Tx

PURPOSE = "provider_key"


class TenantPolicy:
    """Applies the tenants' policies.

    Args:
        allow_private: an operator's leave to let tenants name private addresses.
    """

    def __init__(self, db: Database, secrets: Secrets, *, allow_private: bool) -> None:
        self._db = db
        self._secrets = secrets
        self._allow_private = allow_private

    async def endpoint(self, tenant: str, model_id: str) -> Endpoint | None:
        """The tenant's own way to a model; see `Policy.endpoint`."""
        provider = model_id.partition("/")[0]

        def look(tx: Tx) -> tuple[Rules, KeyRecord | None]:
            rules = store.rules(tx)
            return rules, store.key(tx, provider) if rules.mode == "byo" else None

        rules, key = await self._db.tenant(tenant).read(look)
        if not may_use(rules, model_id):
            raise PermissionDeniedError(
                f"the model {model_id} is not among those your organisation allows",
                details={"model": model_id, "allowed_models": list(rules.allowed or ())},
                hint="GET /api/v1/models lists those that may be used.",
            )
        if rules.mode != "byo" or (model_id == catalogue.SCRIPTED and rules.allowed is not None):
            return None
        if key is None:
            raise PermissionDeniedError(
                f"your organisation uses its own provider keys, and has none for {provider}",
                details={"model": model_id},
                hint="An admin can add one, or choose a model of another provider.",
            )
        return self.opened(tenant, key)

    def opened(self, tenant: str, key: KeyRecord) -> Endpoint:
        """The endpoint a stored key is for."""
        return own_endpoint(
            key.provider,
            self._secrets.open(tenant, f"{PURPOSE}:{key.provider}", key.sealed),
            base_url=key.settings.get("base_url"),
            api_version=key.settings.get("api_version"),
            allow_private=self._allow_private,
        )

    async def preferred(self, tenant: str, user_id: str, use_case: UseCase, default: str) -> Preferred:
        """The user's choice, and the tenant's default; see `Policy.preferred`."""

        def look(tx: Tx) -> Preferred:
            rules = store.rules(tx)
            own = {key.provider for key in store.keys(tx)} if rules.mode == "byo" else None
            chosen = rules.defaults.get(use_case) or remapped(rules, own, default)
            return Preferred(store.user_model(tx, user_id), chosen)

        return await self._db.tenant(tenant).read(look)


def may_use(rules: Rules, model_id: str) -> bool:
    """Whether the list of allowed models, if there is one, has the model. `openai/*` allows all of a provider."""
    return rules.allowed is None or any(
        entry == model_id or (entry.endswith("*") and model_id.startswith(entry[:-1])) for entry in rules.allowed
    )


def remapped(rules: Rules, own: set[str] | None, default: str) -> str | None:
    """What stands in for the server's default where the tenant cannot use that one; None if it can, or nothing does.

    Args:
        own: providers the tenant has keys for; None if it uses the server's.
    """

    def usable(model_id: str) -> bool:
        provider = model_id.partition("/")[0]
        return may_use(rules, model_id) and (own is None or provider in own or model_id == catalogue.SCRIPTED)

    if (own is None or default != catalogue.SCRIPTED) and usable(default):
        return None
    named = [entry for entry in rules.allowed or () if not entry.endswith("*")]
    best = [model for provider, model in catalogue.PREFERRED.items() if own is None or provider in own]
    return next((model for model in (*named, *best) if usable(model)), None)
