"""Terms of what is stored, made anew: the document's title changed, or an earlier release stored it."""

from uuid import UUID

from edda.models import Chunk
from edda.store.database import Database, fetch_all, fetch_one
from edda.store.lexical import insert_terms, term_rows
from edda.store.queries import queries

SQL, PIPELINE = queries("search"), queries("pipeline")
AT_ONCE = 256  # chunks, of no more than
CHARACTERS = 300_000  # in all: a quarter of a second of a whole CPU, two where no word came before


async def make_terms_anew(database: Database, tenant_id: UUID, version_id: UUID) -> int:
    """Of the next chunks of a version, if search sees it; how many. 0: nothing is left, or somebody else does it.

    May be repeated, and done twice at once.
    """
    values = {"version_id": version_id, "limit": AT_ONCE, "characters": CHARACTERS}
    async with database.transaction(tenant_id) as cursor:
        version = await fetch_one(cursor, SQL["terms_to_make"], values)
        if version is None:
            return 0
        values |= version
        rows = await fetch_all(cursor, SQL["chunks_without_terms"], values)
    chunks = [Chunk(**row | {"heading_path": tuple(row["heading_path"])}) for row in rows]
    terms = await term_rows(tenant_id, chunks, version["title"])
    below = chunks[-1].ordinal + 1 if chunks else 0
    values["next"] = below if chunks and below < version["planned_chunks"] else None
    async with database.transaction(tenant_id) as cursor:
        await cursor.execute(PIPELINE["lock_document"], version)
        if await fetch_one(cursor, SQL["terms_are_made"], values) is None:
            return 0  # overtaken, by another title, say
        if chunks:
            await cursor.execute(PIPELINE["delete_chunk_terms"], values | {"lowest": chunks[0].ordinal, "below": below})
            await insert_terms(cursor, tenant_id, version_id, terms)
    return len(chunks)
