"""The pipeline as processes: workers around a real Postgres, moto and a provider, and the one who breaks them.

    with running_stack(cluster) as stack:
        stack.begin({"chunk": 1, "embed": 1})                     # an empty world and its workers
        stack.strike("chunk", Strike("IngestStore.save_chunks", "after"))
        stack.put("acme/a.txt", ["acme line 1"])                  # ... and S3's event of it
        stack.settle()                                            # until nothing moves, whatever it takes
        stack.check()                                             # raises Violation

**Time.** Leases, visibility timeouts and the sweep's patience are the product's defaults. Nobody waits for them: when
every worker is idle, `skip` makes everything that has a date, rows, messages and objects, older by a minute, and a
sweep follows, as every minute. `now()` counts the seconds that went by and those that were skipped.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus
from uuid import UUID

import psycopg
from edda.s3_events import METADATA_SUFFIX
from edda.store.database import Database
from edda.store.documents import DocumentStore

from tests.postgres import Cluster, DatabaseUrls
from tests.processes import invariants
from tests.processes.database import make_database, make_older, migrated_database
from tests.processes.emulator import Emulator, MotoQueue, running_emulator
from tests.processes.labels import Strike
from tests.processes.pool import Worker, fork_server
from tests.processes.servers import Provider, Receiver, serving
from tests.simulation.aws import ObjectVersion
from tests.simulation.database import MODEL_DIMENSIONS, MODEL_NAME
from tests.simulation.schedules import MAX_CHUNKS, TENANTS
from tests.simulation.violations import Violation

# As in template.yaml.
CHUNK_VISIBILITY_S, EMBED_VISIBILITY_S, SWEEP_EVERY_S = 1800, 720, 60
ONE_OF_EACH = {"chunk": 1, "embed": 1}
LONGEST_S = 4 * 3600  # in the clock in use: what has not come to an end then is stuck
HANGS_S = 40  # really: longer than any worker is busy
LOOK_S = 0.02  # at queues, which nobody tells of
LOST_S = 1.5  # a message that no worker has told of for so long went to a process that is no more


class Stack:
    """See above. One at a time; `begin` makes an empty world of it again and keeps idle workers."""

    def __init__(
        self, urls: DatabaseUrls, emulator: Emulator, provider: Provider, receiver: Receiver, folder: Path
    ) -> None:
        self.urls, self.emulator, self.provider, self.receiver = urls, emulator, provider, receiver
        self.bucket = emulator.make_bucket()
        self.history: dict[str, list[ObjectVersion]] = {}  # of every object, oldest version first
        self.events: list[str] = []  # every event there was
        self.ingest_queue = MotoQueue(emulator, CHUNK_VISIBILITY_S, MotoQueue(emulator, CHUNK_VISIBILITY_S))
        self.embed_queue = MotoQueue(emulator, EMBED_VISIBILITY_S, MotoQueue(emulator, EMBED_VISIBILITY_S))
        self.workers: list[Worker] = []
        self.deaths: list[float] = []  # when workers died
        self.ended_at: float = 0  # when everything had come to an end
        self.struck: list[Strike] = []  # which workers were
        self.passed: set[tuple[str, str]] = set()  # function and label
        self.extra: dict[str, str] = {}  # of new workers' environment
        self.real_parser = False  # of new workers
        self._log = folder / "workers.log"
        self._context = fork_server()
        self._s3 = emulator.client("s3")
        self._skipped_s = 0.0
        self._sequencers = count(1)
        secrets = emulator.client("secretsmanager")
        self._secret = secrets.create_secret(Name=f"provider-{self.bucket}", SecretString="sk-simulated-secret")["ARN"]
        self._staff: Mapping[str, int] = {}
        self._strikes: dict[str, list[Strike]] = {}
        self._told_by_the_dead: set[tuple[str, int]] = set()
        self._untold_since: float | None = None

    # The world --------------------------------------------------------------------------------------------------------

    def begin(self, staff: Mapping[str, int] = ONE_OF_EACH, tenants: Sequence[str] = TENANTS) -> None:
        """Nothing is there but the tenants, and so many workers of each function; sweep and migrate have one each."""
        for queue in (self.ingest_queue, self.embed_queue):
            queue.clear()
            if queue.dead_letters is not None:
                queue.dead_letters.clear()
        self.emulator.empty_bucket(self.bucket)
        self.history.clear()
        self.events.clear()
        self.deaths.clear()
        self.provider.forget()
        self.receiver.ids.clear()
        self.struck.clear()
        self.passed.clear()
        self._strikes.clear()
        make_database(self.urls, tenants, self.receiver.url)
        self._staff = {**staff, "sweep": 1, "migrate": 1}
        for worker in list(self.workers):
            if worker.stopped or not worker.alive:
                self._forget(worker)
        for function, number in self._staff.items():
            for surplus in self._of(function)[number:]:
                self._forget(surplus)
        self._hire()
        self._wait(lambda: not any(worker.busy for worker in self.workers), "workers do not start")
        for worker in self.workers:
            worker.arm()
        self._told_by_the_dead.clear()

    def end(self) -> None:
        """Of all workers."""
        for worker in list(self.workers):
            self._forget(worker)

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """As the owner sees them."""
        with psycopg.connect(self.urls.owner, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    # What users and operators do --------------------------------------------------------------------------------------

    def put(self, key: str, content: Sequence[str] | bytes, *, tell: bool = True) -> str:
        """Store an object, of a line a chunk: its event. Unless told so, S3 tells."""
        body = content if isinstance(content, bytes) else "\n".join(content).encode()
        answer = self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="text/plain")
        return self._changed("ObjectCreated:Put", key, answer["VersionId"], body, tell=tell)

    def put_metadata(self, key: str, attributes: dict[str, Any], *, tell: bool = True) -> str:
        """Beside the object of this key."""
        body = json.dumps({"metadataAttributes": attributes}).encode()
        return self.put(key + METADATA_SUFFIX, body, tell=tell)

    def delete(self, key: str, *, tell: bool = True) -> str:
        answer = self._s3.delete_object(Bucket=self.bucket, Key=key)
        marker = answer.get("VersionId", "")  # moto makes none where nothing was
        return self._changed("ObjectRemoved:DeleteMarkerCreated", key, marker, None, tell=tell)

    def delete_over_https(self, key: str) -> None:
        """The api function dies before it has deleted the object, which is the sweep's then."""

        async def delete(tenant_id: UUID, document_id: UUID) -> None:
            async def conninfo() -> str:
                return self.urls.app

            database = Database(conninfo)
            await DocumentStore(database, model_id=0).delete(tenant_id, document_id)
            await database.aclose()

        ((tenant_id, document_id),) = self.rows(
            "SELECT tenant_id, document_id FROM documents WHERE object_key = %s", [key]
        )
        asyncio.run(delete(tenant_id, document_id))
        self.history[key].append(ObjectVersion("", "", None, datetime.now(UTC)))

    def _changed(self, name: str, key: str, version_id: str, body: bytes | None, *, tell: bool) -> str:
        number = next(self._sequencers)
        sequencer = f"{0x55AED6DCD90281E5 + number:016X}"
        self.history.setdefault(key, []).append(ObjectVersion(version_id, sequencer, body, datetime.now(UTC)))
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventTime": datetime.now(UTC).isoformat(),
            "eventName": name,
            "s3": {
                "bucket": {"name": self.bucket},
                "object": {"key": quote_plus(key, safe="/"), "versionId": version_id, "sequencer": sequencer},
            },
        }
        self.events.append(json.dumps({"Records": [record]}))
        if tell:
            self.ingest_queue.send(self.events[-1])
        return self.events[-1]

    def operate(self, event: dict[str, Any]) -> Any:
        """An operator invokes the migrate function: its answer, None when it failed or died."""
        (worker,) = self._of("migrate")
        worker.answer = None
        worker.invoke(event)
        self.wait_until_quiet()
        return worker.answer

    # Workers ----------------------------------------------------------------------------------------------------------

    def strike(self, function: str, *strikes: Strike) -> None:
        """Each of these strikes one worker of the function, whichever passes there first. Counting begins anew."""
        self._strikes.setdefault(function, []).extend(strikes)
        for worker in self._of(function):
            worker.arm(*self._strikes[function])

    def start(self, function: str) -> Worker:
        """One more worker of a function."""
        environment = self._environment() | self.extra
        worker = Worker(self._context, function, environment, self._log, real_parser=self.real_parser)
        self.workers.append(worker)
        worker.arm(*self._strikes.get(function, ()))
        return worker

    @property
    def any_stopped(self) -> bool:
        return any(worker.stopped for worker in self.workers)

    def resume_all(self) -> None:
        for worker in self.workers:
            if worker.stopped:
                worker.resume()

    def log(self) -> str:
        """The last that workers said."""
        return self._log.read_text(errors="replace")[-8000:] if self._log.exists() else ""

    def _of(self, function: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.function == function]

    def _forget(self, worker: Worker) -> None:
        worker.kill()
        self.workers.remove(worker)

    def _hire(self) -> None:
        """As many workers as there shall be; those that are stopped are not counted, as Lambda would not."""
        for function, number in self._staff.items():
            for _ in range(number - sum(not worker.stopped for worker in self._of(function))):
                self.start(function)

    def _environment(self) -> dict[str, str]:
        assert self.ingest_queue.dead_letters is not None
        assert self.embed_queue.dead_letters is not None
        return self.emulator.environment | {
            "EDDA_DATABASE_URL": self.urls.app,
            "EDDA_UPLOADS_BUCKET": self.bucket,
            "EDDA_INGEST_QUEUE_URL": self.ingest_queue.url,
            "EDDA_EMBED_QUEUE_URL": self.embed_queue.url,
            "EDDA_INGEST_DEAD_LETTER_QUEUE_URL": self.ingest_queue.dead_letters.url,
            "EDDA_EMBED_DEAD_LETTER_QUEUE_URL": self.embed_queue.dead_letters.url,
            "EDDA_EMBEDDING_PROVIDER": "openai",
            "EDDA_EMBEDDING_MODEL": MODEL_NAME.partition("/")[2],
            "EDDA_EMBEDDING_DIMENSIONS": str(MODEL_DIMENSIONS),
            "EDDA_PROVIDER_BASE_URL": self.provider.base_url,
            "EDDA_PROVIDER_API_KEY_SECRET_ARN": self._secret,
            "EDDA_EVENT_BUS_NAME": "default",
            "EDDA_WEBHOOK_ALLOW_PRIVATE": "true",
            "EDDA_CHUNK_CONCURRENCY": "2",  # so a tenant's share is one
            "EDDA_MAX_CHUNKS": str(MAX_CHUNKS),
            "EDDA_MAX_DOCUMENT_BYTES": "10000",
            "LAMBDA_TASK_ROOT": "/var/task",
            "POWERTOOLS_SERVICE_NAME": "processes",
        }

    # Time -------------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic() + self._skipped_s

    def skip(self, seconds: float) -> None:
        """Everything that has a date is older by so much."""
        make_older(self.urls, seconds)
        for queue in (self.ingest_queue, self.embed_queue):
            queue.move(seconds)
            if queue.dead_letters is not None:
                queue.dead_letters.move(seconds)
        self.emulator.move_objects(self.bucket, seconds)
        self._skipped_s += seconds

    def sweep(self) -> None:
        """A round, on its way; the next waits for its end."""
        self._wait(lambda: any(not worker.busy for worker in self._of("sweep")), "the sweep hangs")
        next(worker for worker in self._of("sweep") if not worker.busy and not worker.stopped).invoke({})

    def minute(self) -> None:
        """Goes by, and everything that follows from it happens."""
        self.skip(SWEEP_EVERY_S)
        self.sweep()
        self.wait_until_quiet()

    def settle(self, limit_s: float = LONGEST_S) -> None:
        """Until everything has come to an end and no message is left. Raises Violation when that takes too long."""
        began = self.now()
        self.wait_until_quiet()
        while unfinished := invariants.unfinished(self):
            if self.now() - began > limit_s:
                raise Violation("N3 liveness", f"still not done: {unfinished}")
            self.minute()
        self.ended_at = self.now()
        while self.ingest_queue.bodies or self.embed_queue.bodies:  # delivered again, to no effect
            if self.now() - began > 2 * limit_s:
                raise Violation("N11 conservation", f"left in the queues: {self._bodies()}")
            self.skip(CHUNK_VISIBILITY_S)
            self.wait_until_quiet()
        if unfinished := invariants.unfinished(self):
            raise Violation("N13 replay", f"done, and begun again: {unfinished}")

    def replay(self) -> None:
        """Every event and message once more."""
        for event in self.events:
            self.ingest_queue.send(event)
        for batch in self.rows("SELECT tenant_id, version_id, first_ordinal, last_ordinal FROM embed_batches"):
            names = ("tenant_id", "version_id", "first_ordinal", "last_ordinal")
            self.embed_queue.send(json.dumps(dict(zip(names, batch, strict=True)), default=str))
        self.wait_until_quiet()

    def check(self) -> None:
        """What must be true now. Raises Violation."""
        invariants.check(self)

    def wait_until_quiet(self) -> None:
        """No message can be had, and no worker is at anything, but those that are stopped. The dead are replaced."""
        self._wait(self._is_quiet, "workers are busy for ever")

    def _is_quiet(self) -> bool:
        self._bury()
        at_work = [worker for worker in self.workers if not worker.stopped]
        if any(worker.busy for worker in at_work) or self.ingest_queue.has_visible or self.embed_queue.has_visible:
            return False
        in_flight = self.ingest_queue.in_flight | self.embed_queue.in_flight
        told = set().union(*(worker.received for worker in self.workers), self._told_by_the_dead)
        if in_flight <= told:
            self._untold_since = None
        elif self._untold_since is None:
            self._untold_since = time.monotonic()
        if self._untold_since is not None and time.monotonic() - self._untold_since < LOST_S:
            return False
        for worker in at_work:
            worker.hear()
        return not any(worker.busy for worker in at_work)

    def _bury(self) -> None:
        for worker in list(self.workers):
            worker.hear()
            self.passed.update((worker.function, label) for label in worker.passages)
            if worker.struck:
                self._disarm(worker)
            if not worker.alive:
                if not worker.killed:
                    raise Violation("N14 clean", f"a worker of {worker.function} ended by itself: {self.log()}")
                self.deaths.append(self.now())
                self._told_by_the_dead |= worker.received
                self._forget(worker)
        self._hire()

    def _disarm(self, struck: Worker) -> None:
        """Once each."""
        for strike in struck.struck:
            self.struck.append(strike)
            if strike in self._strikes.get(struck.function, ()):
                self._strikes[struck.function].remove(strike)
        struck.struck.clear()
        for worker in self._of(struck.function):
            if worker.alive and not worker.stopped:
                worker.arm(*self._strikes[struck.function])

    def _wait(self, condition: Any, problem: str) -> None:
        give_up = time.monotonic() + HANGS_S
        while True:
            for worker in self.workers:
                worker.hear()
            if condition():
                return
            if time.monotonic() > give_up:
                raise Violation("N3 liveness", f"{problem}: {self.log()}")
            wait([worker.pipe for worker in self.workers if worker.alive], LOOK_S)

    def _bodies(self) -> list[str]:
        return self.ingest_queue.bodies + self.embed_queue.bodies


@contextmanager
def running_stack(cluster: Cluster) -> Iterator[Stack]:
    """With no world and no workers yet."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="edda-processes-")))
        urls = parts.enter_context(migrated_database(cluster))
        emulator = parts.enter_context(running_emulator())
        provider = parts.enter_context(serving(Provider()))
        receiver = parts.enter_context(Receiver().listening())
        stack = Stack(urls, emulator, provider, receiver, folder)
        try:
            yield stack
        finally:
            stack.end()
