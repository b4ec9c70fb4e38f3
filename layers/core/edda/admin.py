"""python -m edda.admin: what an operator does to the database by hand, as its owner (EDDA_DATABASE_OWNER_URL)."""

import argparse
import asyncio
import sys
from dataclasses import fields
from decimal import Decimal

from psycopg import Error

from edda import services
from edda.errors import EddaError
from edda.settings import Settings
from edda.store import events, keys, usage
from edda.store.migrations import MigrationError


def parser() -> argparse.ArgumentParser:
    """The commands."""
    root = argparse.ArgumentParser(prog="python -m edda.admin", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    migrate = commands.add_parser("migrate", help="apply pending migrations and register the embedding model")
    migrate.add_argument("--dry-run", action="store_true", help="only say what is pending")
    create = commands.add_parser("create-key", help="make an API key, and its tenant if that is new; prints the key")
    create.add_argument("--tenant", required=True, help="slug: a-z, 0-9 and -; also the tenant's folder in the bucket")
    create.add_argument("--name", default="key", help="what the key is for")
    revoke = commands.add_parser("revoke-key", help="a key stops working at once")
    revoke.add_argument("prefix", help="the twelve characters after edda_")
    caps = commands.add_parser("set-caps", help="what a tenant may use; a cap that is not given is lifted")
    caps.add_argument("--tenant", required=True, help="slug")
    caps.add_argument("--tokens-per-day", type=int)
    caps.add_argument("--tokens-per-month", type=int)
    caps.add_argument("--cost-per-day", type=Decimal, help="dollars")
    caps.add_argument("--cost-per-month", type=Decimal, help="dollars")
    hook = commands.add_parser("set-webhook", help="where a tenant's events go; prints the secret that signs them")
    hook.add_argument("--tenant", required=True, help="slug")
    hook.add_argument("--url", required=True, help="https://...")
    hook.add_argument("--secret", help="whsec_ and 24 to 64 bytes of base64; a new one by default")
    unhook = commands.add_parser("remove-webhook", help="a tenant's events go nowhere any more")
    unhook.add_argument("--tenant", required=True, help="slug")
    return root


async def execute(options: argparse.Namespace, owner_url: str) -> int:
    """Run one command. The process's exit code."""
    if options.command == "migrate":
        print(await services.migrate(dry_run=options.dry_run))
    elif options.command == "create-key":
        tenant = await keys.create_tenant(owner_url, options.tenant)
        print(await keys.create_key(owner_url, tenant, options.name))
    elif options.command == "set-caps":
        limits = {field.name: getattr(options, field.name) for field in fields(usage.Caps)}
        await usage.set_caps(owner_url, await keys.find_tenant(owner_url, options.tenant), usage.Caps(**limits))
    elif options.command == "set-webhook":
        url, secret = services.checked_webhook(options.url, options.secret)
        await events.set_webhook(owner_url, await keys.find_tenant(owner_url, options.tenant), url, secret)
        print(secret)
    elif options.command == "remove-webhook":
        await events.remove_webhook(owner_url, await keys.find_tenant(owner_url, options.tenant))
    elif not await keys.revoke_key(owner_url, options.prefix):
        print("no key in use has this prefix", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Entry point."""
    options = parser().parse_args()
    owner_url = Settings.from_environment().database_owner_url
    if not owner_url:
        print("set EDDA_DATABASE_OWNER_URL to a Postgres URL of the schema's owner", file=sys.stderr)
        return 2
    try:
        return asyncio.run(execute(options, owner_url))
    except (EddaError, MigrationError, Error) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
