"""The uploads bucket over aioboto3."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from aiohttp import ClientPayloadError
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from edda.adapters.aws import AwsClients
from edda.errors import DocumentTooLarge, ObjectVanished, StorageUnavailable
from edda.models import ListedObject, ObjectListing, PresignedPost, StoredObject

PIECE_BYTES = 1024 * 1024
# 405: the version is a delete marker. A key that is too long, as a metadata file's may be, can have no object.
GONE = {"404", "NoSuchKey", "NoSuchVersion", "405", "MethodNotAllowed", "KeyTooLongError"}


class S3ObjectStore:
    """One bucket."""

    def __init__(self, clients: AwsClients, bucket: str) -> None:
        self._clients = clients
        self._bucket = bucket

    async def head(self, key: str, version_id: str = "") -> StoredObject:
        async with self._client() as client:
            found = await client.head_object(**self._object(key, version_id))
        return StoredObject(
            key=key,
            version_id=_version_id(found),
            size_bytes=found["ContentLength"],
            content_type=found.get("ContentType"),
            last_modified=found["LastModified"],
        )

    async def download(self, key: str, version_id: str, path: Path, max_bytes: int) -> bytes:
        digest, size = sha256(), 0
        async with self._client() as client:
            found = await client.get_object(**self._object(key, version_id))
            async with found["Body"]:  # what it enters is aiohttp's response, which cannot do what the body can
                with path.open("wb") as file:
                    async for piece in found["Body"].iter_chunks(PIECE_BYTES):
                        size += len(piece)
                        if size > max_bytes:
                            raise DocumentTooLarge
                        digest.update(piece)
                        file.write(piece)
        return digest.digest()

    async def read(self, key: str, max_bytes: int) -> bytes | None:
        try:
            async with self._client() as client:
                found = await client.get_object(**self._object(key))
                data = bytearray()
                async with found["Body"]:  # `read(n)` would give what has arrived so far
                    async for piece in found["Body"].iter_chunks(PIECE_BYTES):
                        data += piece
                        if len(data) > max_bytes:
                            raise DocumentTooLarge
        except ObjectVanished:
            return None
        return bytes(data)

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        async with self._client() as client:
            await client.put_object(**self._object(key), Body=body, ContentType=content_type)

    async def delete(self, key: str) -> None:
        async with self._client() as client:
            await client.delete_object(**self._object(key))

    async def page(self, prefix: str, after_key: str, limit: int) -> ObjectListing:
        # A key may have more versions than a page holds: then the next page has nothing new, and it is the one after
        # that counts.
        markers = {"KeyMarker": after_key} if after_key else {}
        async with self._client() as client:
            while True:
                answer = await client.list_object_versions(Bucket=self._bucket, Prefix=prefix, MaxKeys=limit, **markers)
                entries = [*answer.get("Versions", []), *answer.get("DeleteMarkers", [])]
                newest = [_listed(entry) for entry in entries if entry["IsLatest"] and entry["Key"] > after_key]
                if newest or not answer["IsTruncated"]:
                    break
                markers = {"KeyMarker": answer["NextKeyMarker"], "VersionIdMarker": answer["NextVersionIdMarker"]}
        newest.sort(key=lambda listed: listed.key)  # of code points: the same order as that of UTF-8's bytes
        return ObjectListing(newest, newest[-1].key if answer["IsTruncated"] else None)

    async def deleted_since(self, key: str, version_id: str, modified_at: datetime) -> bool:
        # Back from the newest, one by one: of two entries with the same time, which is to the second, only their order
        # in the listing tells which came first, and only a page of one shows that.
        markers: dict[str, str] = {}
        async with self._client() as client:
            while True:
                answer = await client.list_object_versions(Bucket=self._bucket, Prefix=key, MaxKeys=1, **markers)
                for entry in (*answer.get("Versions", []), *answer.get("DeleteMarkers", [])):
                    listed = _listed(entry)
                    if (listed.key, listed.version_id) == (key, version_id) or listed.last_modified < modified_at:
                        return False
                    if listed.key != key or listed.removed:
                        return listed.key == key
                if not answer["IsTruncated"]:
                    return False
                markers = {"KeyMarker": answer["NextKeyMarker"], "VersionIdMarker": answer["NextVersionIdMarker"]}

    async def presign_post(self, key: str, content_type: str | None, max_bytes: int, expires_s: int) -> PresignedPost:
        fields = {} if content_type is None else {"Content-Type": content_type}
        conditions: list[Any] = [["content-length-range", 1, max_bytes], *({name: fields[name]} for name in fields)]
        async with self._client() as client:
            form = await client.generate_presigned_post(
                self._bucket, key, Fields=fields, Conditions=conditions, ExpiresIn=expires_s
            )
        return PresignedPost(form["url"], form["fields"], datetime.now(UTC) + timedelta(seconds=expires_s))

    def _object(self, key: str, version_id: str = "") -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": key} | ({"VersionId": version_id} if version_id else {})

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """The client, with its errors as ours."""
        try:
            yield await self._clients.get("s3")
        except ClientError as error:
            if error.response["Error"]["Code"] in GONE:
                raise ObjectVanished from error
            raise StorageUnavailable(f"S3 answered {error.response['Error']['Code']}.") from error
        except (BotoCoreError, HTTPClientError, ClientPayloadError) as error:  # the last: a body that was cut off
            raise StorageUnavailable from error


def _version_id(entry: dict[str, Any]) -> str:
    """S3 calls it null where there was no versioning yet, or says nothing."""
    version_id = str(entry.get("VersionId") or "null")
    return "" if version_id == "null" else version_id


def _listed(entry: dict[str, Any]) -> ListedObject:
    return ListedObject(entry["Key"], _version_id(entry), "Size" not in entry, entry["LastModified"])
