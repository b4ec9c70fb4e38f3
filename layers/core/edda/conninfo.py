"""How Postgres is connected to: by an address in the settings, or by a secret with user and password."""

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from edda.ports import Secrets
from edda.settings import Settings


async def app_conninfo(settings: Settings, secrets: Secrets) -> str:
    """As the application, under row-level security."""
    if settings.database_url:
        return _checked_address("EDDA_DATABASE_URL", settings.database_url)
    return await _conninfo_from_secret(settings, secrets, settings.database_secret_arn)


async def owner_conninfo(settings: Settings, secrets: Secrets) -> str:
    """As the owner of the schema."""
    if settings.database_owner_url:
        return _checked_address("EDDA_DATABASE_OWNER_URL", settings.database_owner_url)
    return await _conninfo_from_secret(settings, secrets, settings.database_owner_secret_arn)


def _checked_address(name: str, address: str) -> str:
    """The address. What is wrong with it is not told: psycopg would quote the part that may be the password."""
    try:
        conninfo_to_dict(address)
    except ProgrammingError:
        raise ValueError(f"{name} is no address of a Postgres database.") from None
    return address


async def _conninfo_from_secret(settings: Settings, secrets: Secrets, arn: str) -> str:
    secret = await secrets.read(arn)
    return make_conninfo(
        host=settings.database_host,
        dbname=settings.database_name,
        user=secret["username"],
        password=secret["password"],
        sslmode="require",
    )
