"""S3, SQS and the event source mapping, as AWS documents them, with what they are allowed to do to us."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from botocore.exceptions import ClientError
from edda.errors import DocumentTooLarge, ObjectVanished, StorageUnavailable
from edda.models import ListedObject, ObjectListing, PresignedPost, StoredObject
from edda.s3_events import came_over_https

from tests.simulation.lambdas import Environment
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

Record = dict[str, Any]


# --- S3 --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object; a delete marker has no body."""

    version_id: str
    sequencer: str
    body: bytes | None
    at: datetime


@dataclass(slots=True)
class Bucket:
    """`history` holds what a key has shown, oldest first: its versions, some of them again when what came
    after was erased. `records` holds every event there was. Where it is not `versioned`, only we know of versions; then
    nothing is erased, and no event is lost, for nobody could ever find that out."""

    world: "World"
    versioned: bool = True
    history: dict[str, list[ObjectVersion]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)  # versions that are gone for good
    undone: set[str] = field(default_factory=set)  # of these, the ones that were the newest then
    events_on_the_way: int = 0

    def add(self, key: str, body: bytes | None) -> None:
        """A put or a delete, and its event."""
        number = len(self.records) + 1
        at = self.world.now()
        version = ObjectVersion(f"v{number}", _sequencer(number), body, at)
        self.history.setdefault(key, []).append(version)
        removed = "ObjectRemoved:DeleteMarkerCreated" if self.versioned else "ObjectRemoved:Delete"
        name = "ObjectCreated:Put" if body is not None else removed
        self._happened(name, key, version.version_id, version.sequencer)

    def erase_old_versions(self, key: str) -> None:
        """All but the newest are gone for good, as after a lifecycle rule."""
        history = self.history.get(key, []) if self.versioned else []
        for version in history[:-1]:
            if version.version_id not in self.erased | {history[-1].version_id}:
                self.erased.add(version.version_id)
                self._happened("ObjectRemoved:Delete", key, version.version_id, _sequencer(len(self.records) + 1))

    def erase_newest_version(self, key: str) -> None:
        """For good: the one before it is the newest again, be it a delete marker, or there is none."""
        history = self.history.get(key, [])
        if not self.versioned or not history or not history[-1].version_id:
            return
        newest = history[-1]
        self.erased.add(newest.version_id)
        self.undone.add(newest.version_id)
        left = [version for version in history if version.version_id not in self.erased and version.version_id]
        sequencer = _sequencer(len(self.records) + 1)
        history.append(left[-1] if left else ObjectVersion("", sequencer, None, self.world.now()))
        self._happened("ObjectRemoved:Delete", key, newest.version_id, sequencer)

    def _happened(self, name: str, key: str, version_id: str, sequencer: str) -> None:
        entry = {"key": quote_plus(key, safe="/"), "sequencer": sequencer}
        if self.versioned:
            entry["versionId"] = version_id
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventTime": self.world.now().isoformat(),
            "eventName": name,
            "s3": {"bucket": {"name": "uploads"}, "object": entry},
        }
        self.records.append(record)
        self.world.note(f"s3 {name} {key} {version_id}")
        fault = self.world.strike("event")
        if fault is not None and fault.kind == "event_lost" and self.versioned:
            return
        delay_s = self.world.random.uniform(0.1, 3)
        if fault is not None and fault.kind == "event_delayed":
            delay_s += fault.amount
        self._tell(record, delay_s)
        if fault is not None and fault.kind == "event_duplicated":
            self._tell(record, delay_s + self.world.random.choice((0.0, 30.0, 900.0)))

    def find(self, key: str, version_id: str) -> ObjectVersion:
        versions = [version for version in self.history.get(key, []) if version.version_id not in self.erased]
        if version_id:
            versions = [version for version in versions if version.version_id == version_id]
        if not versions or versions[-1].body is None:
            raise ObjectVanished
        return versions[-1]

    def _tell(self, record: Record, delay_s: float) -> None:
        self.events_on_the_way += 1

        def arrive() -> None:
            self.events_on_the_way -= 1
            self.world.ingest_queue.add(json.dumps({"Records": [record]}))

        self.world.loop.call_later(delay_s, arrive)


def _sequencer(number: int) -> str:
    """Hexadecimal, of no fixed length, rising when the shorter is padded with zeros on the right."""
    lengths = (16, 18, 22)
    text = f"{0x55AED6DCD90281E5 + number * 0x0F03:016X}".ljust(lengths[number % 3], "A")
    return text.lower() if number % 2 else text


class ObjectsOf:
    """The ObjectStore of one environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._bucket = environment.world.bucket

    async def head(self, key: str, version_id: str = "") -> StoredObject:
        await self._step()
        version = self._bucket.find(key, version_id)
        assert version.body is not None
        name = version.version_id if self._bucket.versioned else ""
        return StoredObject(key, name, len(version.body), "text/plain", version.at)

    async def download(self, key: str, version_id: str, path: Path, max_bytes: int) -> bytes:
        await self._step()
        body = self._bucket.find(key, version_id).body
        assert body is not None
        if len(body) > max_bytes:
            raise DocumentTooLarge
        path.write_bytes(body)  # noqa: ASYNC240 - a few bytes
        return sha256(body).digest()

    async def read(self, key: str, max_bytes: int) -> bytes | None:
        await self._step()
        try:
            return self._bucket.find(key, "").body
        except ObjectVanished:
            return None

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        await self._step()
        self._bucket.add(key, body)

    async def delete(self, key: str) -> None:
        await self._step()
        if not came_over_https(key):  # no operation of a schedule asks Edda to delete another
            self._environment.world.violate("N1 no loss", f"Edda deletes an object that nobody deleted: {key}")
        self._bucket.add(key, None)

    async def page(self, prefix: str, after_key: str, limit: int) -> ObjectListing:
        await self._step()
        keys = sorted(key for key in self._bucket.history if key.startswith(prefix) and key > after_key)
        newest = [(key, self._bucket.history[key][-1]) for key in keys[:limit]]
        versioned = self._bucket.versioned
        return ObjectListing(
            [
                ListedObject(key, one.version_id if versioned else "", one.body is None, one.at)
                for key, one in newest
                if one.version_id and (versioned or one.body is not None)
            ],
            keys[limit - 1] if len(keys) > limit else None,
        )

    async def deleted_since(self, key: str, version_id: str, modified_at: datetime) -> bool:
        await self._step()
        for version in reversed(self._bucket.history.get(key, [])):
            if version.version_id == version_id or version.at < modified_at:
                return False
            if version.body is None and version.version_id not in self._bucket.erased:
                return True
        return False

    async def presign_post(self, key: str, content_type: str | None, max_bytes: int, expires_s: int) -> PresignedPost:
        until = self._environment.world.now() + timedelta(seconds=expires_s)
        return PresignedPost("https://uploads.invalid/", {"key": key}, until)

    async def _step(self) -> None:
        if await self._environment.step("storage") is not None:
            raise StorageUnavailable


# --- SQS -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Message:
    message_id: str
    body: str
    visible_at_s: float
    received: int = 0
    handle: str = ""


@dataclass(slots=True)
class SimulatedQueue:
    """A standard queue: at least once, in any order, with a dead-letter queue."""

    world: "World"
    name: str
    visibility_s: float
    max_receive_count: int = 5
    messages: list[Message] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    bodies: dict[str, None] = field(default_factory=dict)  # every one there ever was, in order
    added: int = 0
    deleted: int = 0
    lost: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, body: str, delay_s: float = 0) -> None:
        self.added += 1
        self.bodies[body] = None
        self._put(Message(f"{self.name}-{self.added}", body, self.world.loop.time() + delay_s))

    def receive(self, most: int) -> list[Message]:
        """What is visible, in no order; it comes again when its visibility timeout ends."""
        now_s = self.world.loop.time()
        visible = [message for message in self.messages if message.visible_at_s <= now_s]
        received = []
        for message in self.world.random.sample(visible, min(most, len(visible))):
            if message.received >= self.max_receive_count:
                self.messages.remove(message)
                self.dead_letters.append(message)
                self.world.note(f"{self.name} dead letter {message.message_id}")
                continue
            message.received += 1
            message.handle = f"{message.message_id}#{message.received}"
            message.visible_at_s = now_s + self.visibility_s
            self._wake_at(message.visible_at_s)
            received.append(message)
        return received

    def delete(self, handle: str) -> None:
        """A receipt handle of an earlier delivery may or may not be good enough."""
        message = self._by_handle(handle)
        if message is not None:
            self.messages.remove(message)
            self.deleted += 1

    def change_visibility(self, handle: str, seconds: float) -> None:
        message = self._by_handle(handle)
        if message is not None:
            message.visible_at_s = self.world.loop.time() + seconds
            self._wake_at(message.visible_at_s)

    def lose(self, message: Message) -> None:
        """Its retention time is over, or SQS has lost it."""
        self.messages.remove(message)
        self.lost += 1

    def duplicate(self, message: Message, delay_s: float) -> None:
        """The same message once more: one of SQS's servers did not hear of its being received."""
        self.added += 1
        self._put(Message(message.message_id, message.body, self.world.loop.time() + delay_s))

    def redrive(self) -> None:
        """An operator moves the dead letters back; StartMessageMoveTask."""
        for message in self.dead_letters:
            message.received = 0
            self._put(message)
        self.dead_letters.clear()

    @property
    def next_visible_s(self) -> float | None:
        return min((message.visible_at_s for message in self.messages), default=None)

    def _put(self, message: Message) -> None:
        self.messages.append(message)
        self._wake_at(message.visible_at_s)

    def _wake_at(self, time_s: float) -> None:
        self.world.loop.call_at(time_s, self.changed.set)

    def _by_handle(self, handle: str) -> Message | None:
        return next((message for message in self.messages if message.handle == handle), None)


class SqsClients:
    """What `AwsClients.get("sqs")` gives the real SqsQueue: the two calls it makes."""

    def __init__(self, environment: Environment, queue: SimulatedQueue) -> None:
        self._environment = environment
        self._queue = queue

    async def get(self, service: str) -> "SqsClients":
        assert service == "sqs"
        return self

    async def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Record:
        await self._environment.step("sqs")
        assert QueueUrl == self._queue.name
        assert 1 <= len(Entries) <= 10
        answer: Record = {"Successful": [], "Failed": []}
        answer_lost = False
        for entry in Entries:
            fault = self._environment.world.strike("send", self._environment)
            kind = fault.kind if fault else None
            if kind == "send_refused":
                raise _client_error("ServiceUnavailable", "SendMessageBatch")
            if kind == "send_failed":
                answer["Failed"].append({"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"})
            elif kind != "send_omitted":
                self._environment.world.observer.sent(self._queue, entry["MessageBody"])
                self._queue.add(entry["MessageBody"])
                answer["Successful"].append({"Id": entry["Id"], "MessageId": f"{self._queue.name}-{self._queue.added}"})
            answer_lost = answer_lost or kind == "send_answer_lost"
        if answer_lost:
            raise _client_error("InternalFailure", "SendMessageBatch")
        return answer

    async def change_message_visibility_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Record:
        await self._environment.step("sqs")
        for entry in Entries:
            self._queue.change_visibility(entry["ReceiptHandle"], entry["VisibilityTimeout"])
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries], "Failed": []}


def _client_error(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "simulated"}}, operation)


# --- Lambda's event source mapping -----------------------------------------------------------------------------------


@dataclass(slots=True)
class EventSourceMapping:
    """Polls a queue and invokes a function with batches; deletes what the function does not report as failed."""

    world: "World"
    queue: SimulatedQueue
    function: str
    batch_size: int
    timeout_s: float
    max_concurrency: int
    window_s: float = 0
    running: int = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.queue.changed.wait()
            self.queue.changed.clear()
            if self.window_s:
                await asyncio.sleep(self.window_s)
            while self.running < self.max_concurrency and (batch := self._receive()):
                self.running += 1
                self.world.start(self._invoke(batch))

    def _receive(self) -> list[Message]:
        batch = []
        # Seldom all there is: SQS asks some of its servers.
        for message in self.queue.receive(min(self.world.random.choice((1, 2, 10)), self.batch_size)):
            fault = self.world.strike("receive")
            kind = fault.kind if fault else None
            if kind == "message_duplicated" and fault is not None:
                self.queue.duplicate(message, fault.amount)
            # Lost for good it would be a lost event.
            if kind == "message_lost" and (self.world.bucket.versioned or self.queue is self.world.embed_queue):
                self.queue.lose(message)
            elif kind != "throttled":  # a throttled one was received, was never handled, and comes again
                batch.append(message)
        return batch

    async def _invoke(self, batch: Sequence[Message]) -> None:
        environment = self.world.environment(self.function)
        # The receipt handle of this delivery: the message may be delivered again while this one is handled.
        handles = {message.message_id: message.handle for message in batch}
        bodies = {message.message_id: message.body for message in batch}
        records = [
            {
                "messageId": message.message_id,
                "receiptHandle": message.handle,
                "body": message.body,
                "attributes": {"ApproximateReceiveCount": str(message.received)},
                "eventSource": "aws:sqs",
            }
            for message in batch
        ]
        answer = await self.world.invoke(environment, records, self.timeout_s)
        for message_id in _handled(answer, handles):
            self.world.observer.acknowledged(environment, self.queue, message_id, bodies[message_id])
            if self.world.strike("acknowledge") is None:
                self.queue.delete(handles[message_id])
        self.world.give_back(environment)
        self.running -= 1
        self.queue.changed.set()


def _handled(answer: Any, handles: Mapping[str, str]) -> list[str]:
    """Which messages are to be deleted: none when the function failed. Of a malformed answer Lambda would make that all
    failed; here it is a violation."""
    if answer is None:
        return []
    failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    if failed - handles.keys():
        raise Violation("N11 conservation", f"the answer names messages that were not in the batch: {failed}")
    return [message_id for message_id in handles if message_id not in failed]


def shuffled(items: Sequence[Any], random: Random) -> list[Any]:
    return random.sample(list(items), len(items))
