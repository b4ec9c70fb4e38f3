"""The uploads bucket in a dictionary: versioned, and with an S3 event record for every change."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from edda.errors import DocumentTooLarge, ObjectVanished, StorageUnavailable
from edda.models import ListedObject, ObjectListing, PresignedPost, StoredObject

MAX_KEY_BYTES = 1024  # S3's own


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object; a delete marker has no body."""

    version_id: str
    body: bytes | None
    content_type: str | None
    last_modified: datetime


@dataclass(slots=True)
class FakeObjectStore:
    """Passes the same contract suite as S3. `outage`: nothing answers. `events`: what S3 would have told of.

    `versioned`: keeps what was replaced.
    """

    outage: bool = False
    versioned: bool = True
    events: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[str, list[Version]] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _versions: "count[int]" = field(default_factory=lambda: count(1))

    async def head(self, key: str, version_id: str = "") -> StoredObject:
        version = self._find(key, version_id)
        assert version.body is not None
        return StoredObject(key, version.version_id, len(version.body), version.content_type, version.last_modified)

    async def download(self, key: str, version_id: str, path: Path, max_bytes: int) -> bytes:
        body = self._find(key, version_id).body
        assert body is not None
        if len(body) > max_bytes:
            raise DocumentTooLarge
        path.write_bytes(body)  # noqa: ASYNC240 - a few bytes
        return sha256(body).digest()

    async def read(self, key: str, max_bytes: int) -> bytes | None:
        try:
            body = self._find(key, "").body
        except ObjectVanished:
            return None
        if body is not None and len(body) > max_bytes:
            raise DocumentTooLarge
        return body

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        self._check()
        if len(key.encode()) > MAX_KEY_BYTES:
            raise StorageUnavailable("S3 answered KeyTooLongError.")
        self._add("ObjectCreated:Put", key, body, content_type)

    async def delete(self, key: str) -> None:
        self._check()
        self._add("ObjectRemoved:DeleteMarkerCreated", key, None, None)

    async def page(self, prefix: str, after_key: str, limit: int) -> ObjectListing:
        self._check()
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after_key)
        newest = [(key, self.objects[key][-1]) for key in keys[:limit]]
        return ObjectListing(
            [ListedObject(key, one.version_id, one.body is None, one.last_modified) for key, one in newest],
            keys[limit - 1] if len(keys) > limit else None,
        )

    async def deleted_since(self, key: str, version_id: str, modified_at: datetime) -> bool:
        self._check()
        for version in reversed(self.objects.get(key, [])):
            if version.version_id == version_id or version.last_modified < modified_at:
                return False
            if version.body is None:
                return True
        return False

    async def presign_post(self, key: str, content_type: str | None, max_bytes: int, expires_s: int) -> PresignedPost:
        fields = {"key": key, "policy": f"at most {max_bytes} bytes"}
        if content_type is not None:
            fields["Content-Type"] = content_type
        return PresignedPost("https://uploads.invalid/", fields, datetime.now(UTC) + timedelta(seconds=expires_s))

    def restore(self, key: str) -> None:
        """Delete the newest version or delete marker for good: what was before is there again."""
        gone = self.objects[key].pop()
        if not self.objects[key]:
            del self.objects[key]
        self._tell("ObjectRemoved:Delete", key, gone)

    def erase(self, key: str) -> None:
        """Every version is gone, as after a lifecycle rule, and no event tells of it."""
        self.objects.pop(key, None)

    def _find(self, key: str, version_id: str) -> Version:
        self._check()
        versions = self.objects.get(key, [])
        if version_id:
            versions = [version for version in versions if version.version_id == version_id]
        if not versions or versions[-1].body is None:
            raise ObjectVanished
        return versions[-1]

    def _add(self, event: str, key: str, body: bytes | None, content_type: str | None) -> None:
        version_id = f"version-{next(self._versions)}" if self.versioned else ""
        version = Version(version_id, body, content_type, datetime.now(UTC))
        if self.versioned:
            self.objects.setdefault(key, []).append(version)
        elif body is None:
            self.objects.pop(key, None)
            event = "ObjectRemoved:Delete"
        else:
            self.objects[key] = [version]
        self._tell(event, key, version)

    def _tell(self, event: str, key: str, version: Version) -> None:
        entry = {
            "key": quote_plus(key, safe="/"),
            "versionId": version.version_id,
            "sequencer": f"{next(self._numbers):018X}",
        }
        if version.body is not None:
            entry["size"] = str(len(version.body))
        self.events.append(
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "eventTime": datetime.now(UTC).isoformat(),
                "eventName": event,
                "s3": {"bucket": {"name": "uploads"}, "object": entry},
            }
        )

    def _check(self) -> None:
        if self.outage:
            raise StorageUnavailable
