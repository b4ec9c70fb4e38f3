"""What is done as the schema's owner: by functions/migrate, which alone reaches a database in a VPC, or from a shell by
`python -m edda.admin`."""

from typing import Any

from pydantic import ValidationError

from edda.adapters.aws import AwsClients
from edda.concurrency import Deadline
from edda.conninfo import owner_conninfo
from edda.errors import InvalidRequest, NotFound
from edda.providers import model_name
from edda.settings import MEGABYTE, Settings


async def migrate(*, dry_run: bool = False) -> dict[str, Any]:
    """For functions/migrate: schema, embedding model, first tenant. What was done."""
    from edda.adapters.secrets import SecretsManager
    from edda.store import keys, migrations

    settings, clients = Settings.from_environment(), AwsClients()
    async with clients:
        secrets = SecretsManager(clients)
        owner = await owner_conninfo(settings, secrets)
        password = None
        if settings.database_secret_arn:
            password = (await secrets.read(settings.database_secret_arn))["password"]
    applied = await migrations.migrate(owner, app_password=password, dry_run=dry_run)
    done: dict[str, Any] = {"applied": applied, "dry_run": dry_run}
    if not dry_run:
        model = await migrations.register_model(
            owner,
            model_name(settings),
            settings.embedding_dimensions,
            price_per_million_tokens=settings.embedding_price_per_million_tokens,
        )
        done["model"] = model.name
        if settings.first_tenant:
            done["tenant"] = (await keys.create_tenant(owner, settings.first_tenant)).slug
    return done


async def index(until: Deadline) -> dict[str, int]:
    """For functions/migrate, by schedule: build the HNSW indexes that are due. What was done."""
    from edda.index_ranges import Policy
    from edda.indexing import Indexing
    from edda.store.indexing import IndexStore

    policy = Policy(memory_bytes=Settings.from_environment().index_megabytes * MEGABYTE)
    return await Indexing(IndexStore(_owner), policy).index(until)


async def create_key(tenant: str, name: str = "created by hand") -> dict[str, Any]:
    """A key, and its tenant if new."""
    from edda.store import keys

    owner = await _owner()
    return {"key": await keys.create_key(owner, await keys.create_tenant(owner, tenant), name)}


async def revoke_key(prefix: str) -> dict[str, Any]:
    """A key stops working at once. Raises NotFound when no key in use has this prefix."""
    from edda.store import keys

    if not await keys.revoke_key(await _owner(), prefix):
        raise NotFound(f"No key in use has the prefix {prefix}.")
    return {"revoked": prefix}


async def set_caps(tenant: str, **caps: Any) -> dict[str, Any]:
    """What a tenant may use; a cap that is not given is lifted. Raises NotFound, InvalidRequest."""
    from edda.store import keys, usage

    try:
        checked = usage.Caps(**caps)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidRequest("; ".join(problems)) from None
    owner = await _owner()
    await usage.set_caps(owner, await keys.find_tenant(owner, tenant), checked)
    return {"caps": caps}


async def set_webhook(tenant: str, url: str, secret: str | None = None) -> dict[str, Any]:
    """Where a tenant's events go, and the secret to check them with, a new one if none is given.

    Raises NotFound, and InvalidRequest; whether the address is a public one shows in use.
    """
    from edda.signing import is_secret, new_secret
    from edda.store import events, keys

    if not url.startswith("https://") and not Settings.from_environment().webhook_allow_private:
        raise InvalidRequest(
            "A webhook's address begins with https:// (EDDA_WEBHOOK_ALLOW_PRIVATE=true allows others, for tests)."
        )
    if secret is not None and not is_secret(secret):
        raise InvalidRequest("A webhook's secret is whsec_ and 24 to 64 bytes of base64.")
    owner, secret = await _owner(), secret or new_secret()
    await events.set_webhook(owner, await keys.find_tenant(owner, tenant), url, secret)
    return {"secret": secret}


async def remove_webhook(tenant: str) -> dict[str, Any]:
    """A tenant's events go nowhere any more. Raises NotFound."""
    from edda.store import events, keys

    owner = await _owner()
    await events.remove_webhook(owner, await keys.find_tenant(owner, tenant))
    return {}


async def _owner() -> str:
    from edda.adapters.secrets import SecretsManager

    async with AwsClients() as clients:
        return await owner_conninfo(Settings.from_environment(), SecretsManager(clients))
