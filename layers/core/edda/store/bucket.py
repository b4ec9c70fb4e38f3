"""What is known of the objects in the bucket, and in which order it happened.

Every change of an object has a place in one order, a sequencer. An event brings its own; what is merely seen in the
bucket, by the sweep or because the bucket has moved on since an event, gets the place just after all that was known
before looking. S3 answers with the latest state, so that place is never too late; and a sighting is only written down
if nothing else has become known meanwhile, so it is never too early either.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from edda.models import StoredObject
from edda.s3_events import just_after
from edda.store.database import Cursor, Database, Row, fetch_all, fetch_one
from edda.store.finishing import forget_versions, hold_vectors
from edda.store.queries import queries

SQL = queries("bucket")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeleteBrake:
    """Stops a mass delete in the bucket: over `percent` of a tenant's documents, and over `minimum` of them, in a
    window of time. What is above is held until an operator says what to do. 100 percent: never.
    """

    percent: int = 20
    minimum: int = 100
    window_s: float = 3600


class Outcome(StrEnum):
    """What a sighting led to."""

    KNOWN = "known"
    TAKEN_IN = "taken_in"
    DELETED = "deleted"
    HELD = "held"  # it would have been deleted, but for the brake
    UNWANTED = "unwanted"  # the object of a document that was deleted for good
    OVERTAKEN = "overtaken"  # something else became known meanwhile: look again


@dataclass(frozen=True, slots=True)
class VisibleVersion:
    """The version of a document that search sees."""

    version_id: UUID
    s3_version_id: str
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class LastKnown:
    """The place of the last thing known to have happened to an object, and the version of it that search sees."""

    sequencer: str = ""
    visible: VisibleVersion | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of an object. `last_known` was read before looking, and `sequencer` is that of the event which
    made us look ('' without one); `exact`: what was seen is just what that event told of. `visible_is_deleted`: what
    search sees is not what is there, and was deleted before that was put.
    """

    object_key: str
    name: str
    last_known: LastKnown
    sequencer: str = ""
    exact: bool = False
    visible_is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Noted:
    """What became of a sighting. `version_id`: the object's version, where it is not finished yet."""

    outcome: Outcome
    version_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class KnownObject:
    """A document as the bucket should show it. `s3_version_id` is None for an upload that has not come yet."""

    object_key: str
    deleted: bool
    hold: str | None
    s3_version_id: str | None


@dataclass(frozen=True, slots=True)
class Walk:
    """A place in the comparison of a tenant's folder with its documents."""

    after_key: str
    began_at: datetime
    ended_at: datetime | None


class BucketStore:
    """Keeps the documents in line with the bucket."""

    def __init__(self, database: Database, brake: DeleteBrake) -> None:
        self._database = database
        self._brake = brake

    async def last_known(self, tenant_id: UUID, object_key: str) -> LastKnown:
        """What is known of this object. Ask before looking at the bucket."""
        async with self._database.transaction(tenant_id) as cursor:
            row = await fetch_one(cursor, SQL["last_known"], {"object_key": object_key})
        if row is None:
            return LastKnown()
        visible = VisibleVersion(row["visible_id"], row["visible_s3_version_id"], row["visible_modified_at"])
        return LastKnown(row["sequencer"], visible if visible.version_id else None)

    async def object_is_there(self, tenant_id: UUID, sighting: Sighting, stored: StoredObject) -> Noted:
        """This version of the object is the latest: the version that shall be built, registered if it is new."""
        async with self._database.transaction(tenant_id) as cursor:
            values: dict[str, Any] = {
                "tenant_id": tenant_id,
                "object_key": sighting.object_key,
                "name": sighting.name,
                "s3_version_id": stored.version_id,
                "size_bytes": stored.size_bytes,
                "media_type": stored.content_type,
                "modified_at": stored.last_modified,
            }
            await cursor.execute(SQL["upsert_document"], values)
            state = await object_state(cursor, values)
            is_event = sighting.exact and sighting.sequencer > state["last_known"]
            if state["deleted"] and (state["announced"] or (state["object_to_delete"] and not is_event)):
                return Noted(Outcome.UNWANTED)
            visible = sighting.last_known.visible
            if state["visible_id"] != (visible and visible.version_id):
                return Noted(Outcome.OVERTAKEN)
            if sighting.visible_is_deleted:
                await cursor.execute(SQL["hide_version"], state)
                await cursor.execute(SQL["supersede_version"], state)
            # In an unversioned bucket every version is '': there only a newer event tells that it is another one.
            same = state["s3_version_id"] == stored.version_id and bool(stored.version_id or not is_event)
            unfinished = None if state["finished"] else state["version_id"]
            if same and state["hold"] is None and not is_event:
                return Noted(Outcome.KNOWN, unfinished)
            sequencer = _place(sighting, state, is_event=is_event)
            if sequencer is None:
                return Noted(Outcome.OVERTAKEN)
            values |= {"document_id": state["document_id"], "sequencer": sequencer}
            await cursor.execute(SQL["document_is_there"], values)
            if same:
                await cursor.execute(SQL["renumber_version"], values | {"version_id": state["version_id"]})
                return Noted(Outcome.KNOWN, unfinished)
            return Noted(Outcome.TAKEN_IN, await begin_version(cursor, values))

    async def object_is_gone(self, tenant_id: UUID, sighting: Sighting) -> Noted:
        """The object is no more: so is everything that was made of it, unless the brake holds it.

        The event of a delete that comes before its put's leaves a tombstone of a document nobody has seen.
        """
        async with self._database.transaction(tenant_id) as cursor:
            await hold_vectors(cursor, tenant_id, to_delete=True)
            values: dict[str, Any] = {
                "tenant_id": tenant_id,
                "object_key": sighting.object_key,
                "name": sighting.name,
            }
            if sighting.exact and sighting.sequencer:
                await cursor.execute(SQL["upsert_document"], values)
            elif await fetch_one(cursor, SQL["lock_object"], values) is None:
                return Noted(Outcome.KNOWN)
            state = await object_state(cursor, values)
            is_event = sighting.exact and sighting.sequencer > state["last_known"]
            if not is_event and (state["deleted"] or state["hold"] is not None):
                return Noted(Outcome.KNOWN)
            sequencer = _place(sighting, state, is_event=is_event)
            if sequencer is None:
                return Noted(Outcome.OVERTAKEN)
            values |= {"document_id": state["document_id"], "sequencer": sequencer}
            if state["deleted"] or state["hold"] == "held":
                await cursor.execute(SQL["move_tombstone"], values)
                return Noted(Outcome.KNOWN)
            if state["version_id"] is not None and not await self._may_delete(cursor, tenant_id):
                await cursor.execute(SQL["hold_document"], values)
                return Noted(Outcome.HELD)
            await forget_versions(cursor, tenant_id, state["document_id"], sequencer)
            return Noted(Outcome.DELETED)

    async def _may_delete(self, cursor: Cursor, tenant_id: UUID) -> bool:
        """Count one more delete, unless it is one too many. Deletes of a tenant take turns, by hold_vectors."""
        values = {"tenant_id": tenant_id, "window_s": self._brake.window_s}
        window = await fetch_one(cursor, SQL["current_window"], values)
        if window is None:
            window = await fetch_one(cursor, SQL["begin_window"], values)
        assert window is not None  # noqa: S101 - an upsert returns its row
        limit = None
        if window["documents"] is not None and self._brake.percent < 100:
            limit = max(self._brake.minimum, window["documents"] * self._brake.percent // 100)
        if not window["tripped"] and (limit is None or window["deleted"] < limit):
            await cursor.execute(SQL["count_delete"])
            return True
        if tripped := await fetch_one(cursor, SQL["trip_brake"], {}):
            logger.error("delete brake is on: deletes are held", extra={"tenant_id": str(tenant_id), **tripped})
        return False

    # Held deletes -------------------------------------------------------------------------------------------------

    async def count_held(self, tenant_id: UUID) -> int:
        """Documents whose object is gone and that wait for an operator."""
        async with self._database.transaction(tenant_id) as cursor:
            row = await fetch_one(cursor, SQL["count_held"], {})
        return row["held"] if row else 0

    async def confirm_some(self, tenant_id: UUID, limit: int = 100) -> int:
        """Delete some of what is held, each in its own transaction. How many; 0: there are none left."""
        async with self._database.transaction(tenant_id) as cursor:
            held = await fetch_all(cursor, SQL["held_documents"], {"limit": limit})
        for row in held:
            async with self._database.transaction(tenant_id) as cursor:
                await hold_vectors(cursor, tenant_id, to_delete=True)
                if await fetch_one(cursor, SQL["still_held"], row) is not None:  # it may have been put again
                    await forget_versions(cursor, tenant_id, row["document_id"], row["sequencer"])
        return len(held)

    async def keep_held(self, tenant_id: UUID) -> int:
        """Keep what is held: it goes on answering without an object. How many."""
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(SQL["keep_held"])
            return cursor.rowcount

    async def release_brake(self, tenant_id: UUID, *, confirmed: bool) -> None:
        """The brake is off; where deletes were confirmed, it stays so for one window."""
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(SQL["release_brake"], {"confirmed": confirmed})

    # The sweep's walk through the bucket ----------------------------------------------------------------------------

    async def walk(self, tenant_id: UUID, interval_s: float) -> Walk | None:
        """Where the comparison goes on. None: the last one began less than `interval_s` ago, and has ended."""
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(SQL["begin_first_walk"], {"tenant_id": tenant_id})
            row = await fetch_one(cursor, SQL["walk"], {"interval_s": interval_s})
        return Walk(**row) if row else None

    async def advance(self, tenant_id: UUID, walk: Walk, until: str | None) -> Walk | None:
        """The step up to `until` is done (None: to the end). None when that was the last, or somebody else's."""
        async with self._database.transaction(tenant_id) as cursor:
            values = {
                "began_at": walk.began_at,
                "ended_at": walk.ended_at,
                "after": walk.after_key,
                "until": until or "",
                "ended": until is None,
            }
            row = await fetch_one(cursor, SQL["advance_walk"], values)
        return None if row is None or until is None else Walk(until, row["began_at"], row["ended_at"])

    async def known_objects(self, tenant_id: UUID, after: str, until: str | None, limit: int) -> list[KnownObject]:
        """What is known of the objects after one key and up to another, deleted ones too, in S3's order."""
        async with self._database.transaction(tenant_id) as cursor:
            values = {"after": after, "until": until, "limit": limit}
            return [KnownObject(**row) for row in await fetch_all(cursor, SQL["known_objects"], values)]

    async def set_metadata(
        self, tenant_id: UUID, object_key: str, metadata: dict[str, Any], problem: str | None, version_id: str
    ) -> None:
        """From the version of the metadata file beside the object ('': there is none), or why it was not taken."""
        async with self._database.transaction(tenant_id) as cursor:
            values = {
                "object_key": object_key,
                "metadata": Jsonb(metadata),
                "problem": problem,
                "version_id": version_id,
            }
            await cursor.execute(SQL["set_metadata"], values)

    async def metadata_versions(self, tenant_id: UUID, object_keys: Sequence[str]) -> dict[str, str]:
        """Of the documents among these, which version of their metadata file was read last."""
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SQL["metadata_versions"], {"object_keys": list(object_keys)})
        return {row["object_key"]: row["metadata_version"] for row in rows}

    async def objects_to_delete(self, tenant_id: UUID, grace_s: float, limit: int) -> Sequence[tuple[UUID, str]]:
        """Documents deleted over HTTPS whose objects may still be there: id and key."""
        async with self._database.transaction(tenant_id) as cursor:
            rows = await fetch_all(cursor, SQL["objects_to_delete"], {"grace_s": grace_s, "limit": limit})
        return [(row["document_id"], row["object_key"]) for row in rows]

    async def object_is_deleted(self, tenant_id: UUID, document_id: UUID) -> None:
        """Its object is known to be gone."""
        async with self._database.transaction(tenant_id) as cursor:
            await cursor.execute(SQL["object_is_deleted"], {"document_id": document_id})


async def object_state(cursor: Cursor, values: dict[str, Any]) -> Row:
    """The document of a locked row, and its newest version."""
    state = await fetch_one(cursor, SQL["object_state"], values)
    assert state is not None  # noqa: S101 - the row is locked
    return state


def _place(sighting: Sighting, state: Row, *, is_event: bool) -> str | None:
    """The sighting's place in the order; None when it has none, for something else has become known since."""
    if state["last_known"] != sighting.last_known.sequencer:
        return None
    return sighting.sequencer if is_event else just_after(max(sighting.sequencer, state["last_known"]))


async def begin_version(cursor: Cursor, values: dict[str, Any]) -> UUID:
    """A new version, to be built; what came before it and is not visible is given up."""
    row = await fetch_one(cursor, SQL["insert_version"], values)
    assert row is not None  # noqa: S101 - an insert returns its row
    await cursor.execute(SQL["abandon_older"], values | {"version_id": row["version_id"]})
    version_id: UUID = row["version_id"]
    return version_id
