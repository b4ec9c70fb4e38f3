"""From a look at the bucket to what the database knows of it: the same for an event as for the sweep.

An event is taken as a hint to look. What counts is what the bucket shows then: an event that is late, doubled or lost
cannot bring back what was replaced or deleted since.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from edda.errors import DocumentTooLarge, InvalidMetadata, ObjectVanished, RetryableError
from edda.models import StoredObject
from edda.object_metadata import MAX_FILE_BYTES, parse_object_metadata
from edda.ports import ObjectStore
from edda.s3_events import METADATA_SUFFIX, ObjectChange
from edda.store.bucket import BucketStore, Noted, Outcome, Sighting, VisibleVersion

UNVERSIONED = "unversioned"  # a file is there, and its bucket does not say which version of it
LOOKS = 5  # at an object that changes while it is looked at


@dataclass(frozen=True, slots=True)
class Observing:
    """Looks at objects and has it written down."""

    store: BucketStore
    objects: ObjectStore

    async def observe(self, tenant_id: UUID, key: str, change: ObjectChange | None = None) -> Noted:
        """Bring what is known of one object into line with the bucket. May be repeated.

        Raises RetryableError when it must be tried again.
        """
        for _ in range(LOOKS):
            last_known = await self.store.last_known(tenant_id, key)
            try:
                stored = await self.objects.head(key)
            except ObjectVanished:
                stored = None
            sighting = Sighting(
                object_key=key,
                name=PurePosixPath(key).name,
                last_known=last_known,
                sequencer=change.sequencer if change else "",
                exact=change is not None and _tells_of(change, stored),
                visible_is_deleted=await self._is_deleted(key, last_known.visible, stored),
            )
            if stored is None:
                noted = await self.store.object_is_gone(tenant_id, sighting)
            else:
                noted = await self.store.object_is_there(tenant_id, sighting, stored)
            if noted.outcome != Outcome.OVERTAKEN:
                return noted
        raise RetryableError("The object changes faster than it can be looked at.")

    async def _is_deleted(self, key: str, visible: VisibleVersion | None, stored: StoredObject | None) -> bool:
        """Was what search sees deleted before what is there now was put? Its delete may be known to nobody: events come
        late and get lost, and what was put since may never be readable, and so never take its place.
        """
        if visible is None or stored is None or visible.s3_version_id in ("", stored.version_id):
            return False
        if visible.modified_at > stored.last_modified:  # it was the newest, and was erased for good
            return True
        return await self.objects.deleted_since(key, visible.s3_version_id, visible.modified_at)

    async def read_metadata(self, tenant_id: UUID, document_key: str) -> None:
        """Take over the metadata file beside an object; what is wrong with it becomes a warning on the document.

        Without such a file a document that never had one keeps what it was given otherwise.
        """
        key, version_id = document_key + METADATA_SUFFIX, ""
        metadata: dict[str, Any] = {}
        problem = None
        try:
            # The version first: a newer file that is read under an older one's name is read again by the sweep.
            version_id = (await self.objects.head(key)).version_id or UNVERSIONED
            metadata = parse_object_metadata(await self.objects.read(key, MAX_FILE_BYTES) or b"")
        except ObjectVanished:
            pass
        except DocumentTooLarge:
            problem = f"The metadata file is larger than {MAX_FILE_BYTES} bytes."
        except InvalidMetadata as error:
            problem = error.message
        await self.store.set_metadata(tenant_id, document_key, metadata, problem, version_id)


def _tells_of(change: ObjectChange, stored: StoredObject | None) -> bool:
    """Is what was seen just what the event told of, or has the bucket moved on?"""
    if stored is None:
        return change.removed
    return not change.removed and change.version_id == stored.version_id
