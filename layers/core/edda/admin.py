"""python -m edda.admin: what an operator does by hand.

Most as the schema's owner (EDDA_DATABASE_OWNER_URL); redrive and the decision about held deletes as the application
(EDDA_DATABASE_URL). Where the database is in a VPC, the migrate function does the same: see docs/operations.md.
"""

import argparse
import asyncio
import sys
from dataclasses import fields
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Error

from edda import owner, services
from edda.errors import EddaError
from edda.settings import Settings
from edda.store.migrations import MigrationError
from edda.store.usage import Caps

OWNERS_COMMANDS = {"migrate", "create-key", "revoke-key", "set-caps", "set-webhook", "remove-webhook"}


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
    redrive = commands.add_parser("redrive", help="begin failed and partial documents again, or move dead letters back")
    which = redrive.add_mutually_exclusive_group(required=True)
    which.add_argument("--document", type=UUID, metavar="ID", help="one document")
    which.add_argument("--tenant", metavar="SLUG", help="all failed and partial documents of a tenant")
    which.add_argument("--queue", choices=["ingest", "embed"], help="its dead letters, without those that are stale")
    for name, meaning in (("confirm", "carry held deletes out"), ("discard", "keep documents whose delete is held")):
        decide = commands.add_parser(f"{name}-deletes", help=f"{meaning}, and let go of the delete brake")
        decide.add_argument("--tenant", required=True, metavar="SLUG")
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


async def operate(options: argparse.Namespace) -> dict[str, int]:
    """Run one command that needs no owner. What it did."""
    try:
        if options.command == "redrive" and options.queue:
            return await services.redrive_queue(options.queue)
        operating = await services.operating()
        if options.command == "redrive":
            if options.document:
                return await operating.redrive_document(options.document)
            return await operating.redrive_tenant(options.tenant)
        if options.command == "confirm-deletes":
            return await operating.confirm_deletes(options.tenant)
        return await operating.discard_deletes(options.tenant)
    finally:
        await services.aclose()


async def execute(options: argparse.Namespace) -> Any:
    """Run one command of the owner's. What is to be printed."""
    match options.command:
        case "migrate":
            return await owner.migrate(dry_run=options.dry_run)
        case "create-key":
            return (await owner.create_key(options.tenant, options.name))["key"]
        case "revoke-key":
            return await owner.revoke_key(options.prefix)
        case "set-caps":
            return await owner.set_caps(
                options.tenant, **{cap.name: getattr(options, cap.name) for cap in fields(Caps)}
            )
        case "set-webhook":
            return (await owner.set_webhook(options.tenant, options.url, options.secret))["secret"]
        case "remove-webhook":
            return await owner.remove_webhook(options.tenant)
    raise ValueError(options.command)


def main() -> int:
    """Entry point."""
    options = parser().parse_args()
    settings = Settings.from_environment()
    as_owner = options.command in OWNERS_COMMANDS
    if as_owner and not (settings.database_owner_url or settings.database_owner_secret_arn):
        print("set EDDA_DATABASE_OWNER_URL to a Postgres URL of the schema's owner", file=sys.stderr)
        return 2
    if not as_owner and not (settings.database_url or settings.database_secret_arn):
        print("set EDDA_DATABASE_URL to a Postgres URL of the application's role", file=sys.stderr)
        return 2
    try:
        print(asyncio.run(execute(options) if as_owner else operate(options)))
    except (EddaError, MigrationError, Error, ValueError) as error:
        # What the driver says names hosts and users: not for callers of the API, but for an operator.
        reason = f" ({error.__cause__})" if error.__cause__ else ""
        print(f"{type(error).__name__}: {error}{reason}".replace("\n", " "), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
