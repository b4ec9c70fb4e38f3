"""What the verbs may expect of a bucket: the fake and S3 alike."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
from botocore.config import Config
from edda.adapters.aws import AwsClients
from edda.adapters.s3 import PIECE_BYTES, S3ObjectStore
from edda.errors import DocumentTooLarge, ObjectVanished, StorageUnavailable
from edda.models import ObjectListing
from edda.ports import ObjectStore

from tests.aws import client
from tests.fakes.objects import FakeObjectStore

# Trying again is botocore's, and takes seconds.
QUICK = Config(retries={"mode": "standard", "total_max_attempts": 1})
NASTY_KEYS = [
    "acme/plain.txt",
    "acme/deep/er/still.txt",
    "acme/with space.txt",
    "acme/a+b.txt",
    "acme/100%.txt",
    "acme/%2e%2e%2f.txt",
    "acme/line\nbreak.txt",
    "acme/\U0001f600ü.txt",
    'acme/it\'s ("quoted") & more?.txt',
    "acme/" + "x" * 1000,
]


@pytest.fixture(params=["fake", "s3"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    if request.param == "fake":
        yield FakeObjectStore()
        return
    bucket = request.getfixturevalue("bucket")
    async with AwsClients() as clients:
        yield S3ObjectStore(clients, bucket)


@pytest.mark.parametrize("key", NASTY_KEYS)
async def test_what_was_put_under_any_key_is_found_under_it(store: ObjectStore, tmp_path: Path, key: str) -> None:
    if "\n" in key and isinstance(store, S3ObjectStore):
        pytest.skip("the emulator's routes know no newline; S3 does")
    await store.put(key, b"hello", "text/plain")
    found = await store.head(key)
    assert (found.key, found.size_bytes, found.content_type) == (key, 5, "text/plain")
    assert await store.download(key, "", tmp_path / "file", 5) == sha256(b"hello").digest()
    assert await store.read(key, 5) == b"hello"
    assert (tmp_path / "file").read_bytes() == b"hello"
    assert abs(found.last_modified - datetime.now(UTC)) < timedelta(minutes=1)


async def test_an_empty_object_is_an_object(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", b"", "text/plain")
    assert (await store.head("a")).size_bytes == 0
    assert await store.read("a", 10) == b""
    assert await store.download("a", "", tmp_path / "file", 10) == sha256(b"").digest()


async def test_every_version_keeps_its_own_bytes(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", b"first", "text/plain")
    first = await store.head("a")
    await store.put("a", b"the second", "text/html")
    second = await store.head("a")
    assert first.version_id != second.version_id
    assert (await store.head("a", first.version_id)).size_bytes == 5
    for version, body in ((first, b"first"), (second, b"the second")):
        await store.download("a", version.version_id, tmp_path / "file", 100)
        assert (tmp_path / "file").read_bytes() == body


async def test_an_object_that_never_was_has_vanished(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectVanished):
        await store.head("nothing")
    with pytest.raises(ObjectVanished):
        await store.download("nothing", "", tmp_path / "file", 10)
    assert await store.read("nothing", 10) is None


async def test_a_deleted_object_has_vanished_and_its_versions_have_not(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", b"hello", "text/plain")
    version_id = (await store.head("a")).version_id
    await store.delete("a")
    with pytest.raises(ObjectVanished):
        await store.head("a")
    assert await store.read("a", 10) is None
    assert (await store.head("a", version_id)).size_bytes == 5
    await store.download("a", version_id, tmp_path / "file", 10)


async def test_a_version_that_never_was_has_vanished(store: ObjectStore) -> None:
    await store.put("a", b"hello", "text/plain")
    with pytest.raises(ObjectVanished):
        await store.head("a", str(uuid4()))


async def test_deleting_twice_or_what_never_was_is_no_error(store: ObjectStore) -> None:
    await store.delete("nothing")
    await store.put("a", b"hello", "text/plain")
    await store.delete("a")
    await store.delete("a")
    assert await store.read("a", 10) is None


async def test_a_delete_is_remembered_though_the_key_was_put_again(store: ObjectStore) -> None:
    await store.put("a/longer", b"another key", "text/plain")
    for body in (b"first", b"second"):
        await store.put("a", body, "text/plain")
    second = await store.head("a")
    assert not await store.deleted_since("a", second.version_id, second.last_modified)
    await store.put("a", b"third", "text/plain")
    assert not await store.deleted_since("a", second.version_id, second.last_modified)
    await store.delete("a")
    await store.put("a", b"fourth", "text/plain")
    fourth = await store.head("a")
    await store.put("a", b"fifth", "text/plain")
    await store.delete("a/longer")
    assert await store.deleted_since("a", second.version_id, second.last_modified)
    assert not await store.deleted_since("a", fourth.version_id, fourth.last_modified)
    assert not await store.deleted_since("nothing", fourth.version_id, fourth.last_modified)


async def test_a_version_that_was_erased_was_not_deleted_but_by_a_marker_after_it(store: ObjectStore) -> None:
    await store.put("a", b"first", "text/plain")
    await store.delete("a")
    gone, now = str(uuid4()), datetime.now(UTC)
    assert not await store.deleted_since("a", gone, now + timedelta(minutes=1))
    assert await store.deleted_since("a", gone, now - timedelta(minutes=1))


async def test_an_object_larger_than_allowed_is_not_taken(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", b"123456", "text/plain")
    with pytest.raises(DocumentTooLarge):
        await store.download("a", "", tmp_path / "file", 5)
    with pytest.raises(DocumentTooLarge):
        await store.read("a", 5)
    assert await store.read("a", 6) == b"123456"


async def test_an_object_of_many_pieces_comes_whole(store: ObjectStore, tmp_path: Path) -> None:
    body = bytes(range(256)) * (3 * PIECE_BYTES // 256) + b"end"
    await store.put("a", body, "text/plain")
    assert await store.download("a", "", tmp_path / "file", len(body)) == sha256(body).digest()
    assert await store.read("a", len(body)) == body


async def test_a_key_longer_than_s3_allows_has_no_object(store: ObjectStore) -> None:
    """A metadata file beside a key of 1,020 bytes cannot exist: that is no failure of storage."""
    assert await store.read("x" * 1020 + ".metadata.json", 10) is None


async def test_a_form_uploads_to_one_key_until_it_expires(store: ObjectStore) -> None:
    form = await store.presign_post("acme/.edda/1", "text/plain", 10, 60)
    assert form.fields["key"] == "acme/.edda/1"
    assert form.fields["Content-Type"] == "text/plain"
    assert "policy" in form.fields
    assert form.url.startswith("http")
    assert abs(form.expires_at - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=10)


async def test_a_listing_tells_the_newest_version_of_every_key_in_the_order_of_its_bytes(store: ObjectStore) -> None:
    for key in ("acme/b", "acme/ü", "acme/a b+c%.txt", "acme/Z", "acme/\U0001f600", "acme/\ufffd", "acme-2/x"):
        await store.put(key, b"first", "text/plain")
    await store.put("acme/b", b"second", "text/plain")
    await store.put("acme/gone", b"x", "text/plain")
    await store.delete("acme/gone")
    listing = await store.page("acme/", "", 1000)
    keys = [listed.key for listed in listing.objects]
    assert keys == sorted(keys, key=str.encode)
    assert len(keys) == 7
    assert [listed.key for listed in listing.objects if listed.removed] == ["acme/gone"]
    assert listing.until is None
    for listed in listing.objects:
        assert abs(listed.last_modified - datetime.now(UTC)) < timedelta(minutes=1)
        if not listed.removed:
            assert (await store.head(listed.key)).version_id == listed.version_id


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_follow_each_other_without_a_gap_whatever_versions_a_key_has(
    store: ObjectStore, limit: int
) -> None:
    keys = [f"acme/{number}" for number in range(6)]
    for key in keys:
        await store.put(key, b"x", "text/plain")
    for _ in range(4):
        await store.put(keys[2], b"again", "text/plain")
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        listing = await store.page("acme/", after, limit)
        seen += [listed.key for listed in listing.objects]
        after = listing.until
    assert seen == keys


async def test_a_folder_without_objects_is_an_empty_listing(store: ObjectStore) -> None:
    assert await store.page("nobody/", "", 10) == ObjectListing([], None)


# S3 alone ---------------------------------------------------------------------------------------------------------


async def test_a_form_is_taken_by_s3(bucket: str) -> None:
    async with AwsClients() as clients:
        store = S3ObjectStore(clients, bucket)
        form = await store.presign_post("acme/.edda/1", None, 10, 60)
        boundary = uuid4().hex
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                 for name, value in form.fields.items()]  # fmt: skip
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhello\r\n')
        body = "".join([*parts, f"--{boundary}--\r\n"]).encode()
        kind = f"multipart/form-data; boundary={boundary}"
        request = urllib.request.Request(form.url, body, {"Content-Type": kind})
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as answer:
            assert answer.status in (200, 204)
        assert await store.read("acme/.edda/1", 10) == b"hello"


async def test_in_an_unversioned_bucket_the_version_is_empty(aws: str, bucket: str, tmp_path: Path) -> None:
    name = f"plain-{uuid4().hex}"
    client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    async with AwsClients() as clients:
        store = S3ObjectStore(clients, name)
        await store.put("a", b"hello", "text/plain")
        assert (await store.head("a", "")).version_id == ""
        await store.download("a", "", tmp_path / "file", 5)


async def test_a_bucket_that_does_not_exist_is_unavailable_not_empty(aws: str) -> None:
    """Otherwise a wrong setting would look like every document having been deleted."""
    async with AwsClients() as clients:
        store = S3ObjectStore(clients, f"missing-{uuid4().hex}")
        with pytest.raises(StorageUnavailable):
            await store.read("a", 10)


async def test_one_client_is_made_however_many_ask_at_once(aws: str) -> None:
    async with AwsClients() as clients:
        made = await asyncio.gather(*(clients.get("sqs") for _ in range(8)))
    assert len({id(one) for one in made}) == 1


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server that gives everyone the same bytes and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_body_that_is_cut_off_is_unavailable_not_shorter(
    aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: x\r\n\r\n" + b"x" * 500
    async with answering(answer) as url, AwsClients() as clients:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        store = S3ObjectStore(clients, "bucket")
        with pytest.raises(StorageUnavailable):
            await store.download("a", "", tmp_path / "file", 5000)
        with pytest.raises(StorageUnavailable):
            await store.read("a", 5000)


async def test_a_storage_that_refuses_connections_is_unavailable(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    async with AwsClients(QUICK) as clients:
        with pytest.raises(StorageUnavailable):
            await S3ObjectStore(clients, "bucket").head("a")


async def test_a_storage_that_answers_nonsense_is_unavailable(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
    async with answering(answer) as url, AwsClients(QUICK) as clients:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StorageUnavailable):
            await S3ObjectStore(clients, "bucket").read("a", 10)


async def test_a_presigned_form_is_signed_with_version_4_in_every_region(aws: str) -> None:
    async with AwsClients() as clients:
        form = await S3ObjectStore(clients, "uploads").presign_post("acme/a.txt", None, 100, 60)
    assert form.fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"
