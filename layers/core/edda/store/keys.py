"""Tenants and their API keys. A key is `edda_<prefix>_<secret>`; only the SHA-256 of the whole is stored."""

import re
import secrets
from hashlib import sha256

from psycopg import AsyncConnection

from edda.errors import NotFound, Unauthorized
from edda.models import Tenant
from edda.store.database import Database

KEY = re.compile(r"edda_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")
SECRET_BYTES = 32  # 256 bits: nothing to guess, so a plain hash is enough


class KeyStore:
    """Looks tenants up. Knows no tenant's rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def authenticate(self, key: str) -> Tenant:
        """Whose key it is. Raises Unauthorized for a key that is malformed, unknown or revoked."""
        if KEY.fullmatch(key) is None:
            raise Unauthorized
        async with self._database.transaction(None) as cursor:
            await cursor.execute(
                "SELECT tenant_id, slug FROM authenticate(%s, %s)", [key.split("_")[1], sha256(key.encode()).digest()]
            )
            row = await cursor.fetchone()
        if row is None:
            raise Unauthorized
        return Tenant(**row)

    async def tenant_of_slug(self, slug: str) -> Tenant | None:
        """The tenant whose folder in the bucket this is."""
        async with self._database.transaction(None) as cursor:
            await cursor.execute("SELECT tenant_id, slug FROM tenant_of_slug(%s)", [slug])
            row = await cursor.fetchone()
        return None if row is None else Tenant(**row)

    async def all_tenants(self) -> list[Tenant]:
        """Every tenant, for the sweep."""
        async with self._database.transaction(None) as cursor:
            await cursor.execute("SELECT tenant_id, slug FROM all_tenants()")
            return [Tenant(**row) for row in await cursor.fetchall()]


async def create_tenant(owner_conninfo: str, slug: str) -> Tenant:
    """The tenant of this slug, made if it is new. Runs as the schema's owner."""
    async with await AsyncConnection.connect(owner_conninfo, autocommit=True) as connection:
        await connection.execute("INSERT INTO tenants (slug) VALUES (%s) ON CONFLICT DO NOTHING", [slug])
        cursor = await connection.execute("SELECT tenant_id, slug FROM tenants WHERE slug = %s", [slug])
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - it was just made
        return Tenant(*row)


async def find_tenant(owner_conninfo: str, slug: str) -> Tenant:
    """The tenant of this slug. Raises NotFound. Runs as the schema's owner."""
    async with await AsyncConnection.connect(owner_conninfo, autocommit=True) as connection:
        cursor = await connection.execute("SELECT tenant_id, slug FROM tenants WHERE slug = %s", [slug])
        row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no tenant {slug}.")
    return Tenant(*row)


async def create_key(owner_conninfo: str, tenant: Tenant, name: str) -> str:
    """A new API key: shown once, stored only as a hash. Runs as the schema's owner."""
    prefix = secrets.token_hex(6)
    key = f"edda_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    async with await AsyncConnection.connect(owner_conninfo, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO api_keys (prefix, key_sha256, tenant_id, name) VALUES (%s, %s, %s, %s)",
            [prefix, sha256(key.encode()).digest(), tenant.tenant_id, name],
        )
    return key


async def revoke_key(owner_conninfo: str, prefix: str) -> bool:
    """Revoke a key by its prefix. False when there is no such key in use."""
    async with await AsyncConnection.connect(owner_conninfo, autocommit=True) as connection:
        cursor = await connection.execute(
            "UPDATE api_keys SET revoked_at = now() WHERE prefix = %s AND revoked_at IS NULL", [prefix]
        )
        return cursor.rowcount == 1
