"""What must be true: while a schedule runs (Observer) and when nothing moves any more (check). Numbers as in
docs/reliability.md."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from edda import errors
from edda.errors import QuotaExceeded
from edda.identity import content_hash
from edda.leasing import LEASE_S, RENEWAL_S
from edda.messages import EmbedBatch
from edda.models import Hit, Tenant
from edda.s3_events import document_key_of
from edda.sweeping import AttemptsExhausted

from tests.database.world import MUST_BE_EMPTY
from tests.simulation.lambdas import Environment
from tests.simulation.provider import SECRET, vector_of
from tests.simulation.schedules import CORRUPT, DEADLY, HTTPS, MAX_CHUNKS, POISON, REFUSED
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from tests.simulation.aws import ObjectVersion, SimulatedQueue
    from tests.simulation.database import SimulatedDatabase
    from tests.simulation.world import World


REPLACED = """
    SELECT d.object_key, v.s3_version_id FROM document_versions v JOIN documents d USING (document_id)
    JOIN document_versions current ON current.version_id = d.current_version_id
    WHERE v.sequencer < current.sequencer AND EXISTS (SELECT FROM chunks c WHERE c.version_id = v.version_id)"""

# Names are given to one request each.
UPLOADED_TWICE = f"""
    SELECT tenant_id, name FROM documents WHERE starts_with(name, '{HTTPS}') GROUP BY 1, 2 HAVING count(*) > 1"""


# The last worker finishes the version with its batch, in one transaction.
WHOLE_BUT_UNFINISHED = """
    SELECT version_id FROM document_versions v
    WHERE status = 'embedding'
      AND NOT EXISTS (SELECT FROM embed_batches b WHERE b.version_id = v.version_id AND done_at IS NULL)"""


def known_objects(database: "SimulatedDatabase") -> dict[str, str | None]:
    """By object key: S3's version of the newest version known, None where it is not there."""
    return dict(
        database.rows(
            "SELECT object_key, CASE WHEN deleted_at IS NULL THEN (SELECT s3_version_id FROM document_versions v "
            "WHERE v.document_id = d.document_id ORDER BY sequencer DESC LIMIT 1) END FROM documents d"
        )
    )


# Whoever was held up for longer may hold a lease that is over: it begins with the transaction that waits for a lock.
HELD_UP_S = LEASE_S - RENEWAL_S


def _codes(kind: type[errors.EddaError]) -> Iterator[str]:
    yield kind.code
    for below in kind.__subclasses__():
        yield from _codes(below)


def _lines(version: "ObjectVersion") -> list[str]:
    """The chunks it makes."""
    return [line for line in (version.body or b"").decode().split("\n") if line]


def _visible(version: "ObjectVersion") -> list[str]:
    """What search may find of it."""
    return [line for line in _lines(version) if REFUSED not in line]


def _expected(version: "ObjectVersion") -> tuple[str, str | None]:
    """Status and code that follow from the content."""
    lines = _lines(version)
    if not lines:
        return "failed", "no_text"
    if any(CORRUPT in line for line in lines):
        return "failed", "corrupt"
    if any(DEADLY in line for line in lines):
        return "failed", AttemptsExhausted.code
    if len(lines) > MAX_CHUNKS:
        return "failed", "too_many_chunks"
    visible = _visible(version)
    if not visible:
        return "failed", "embedding_rejected"
    return ("ready", None) if visible == lines else ("partial", None)


class Observer:
    """Looks on while the schedule runs."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._embedded: dict[Environment, set[tuple[UUID, str]]] = {}
        self._held: dict[Environment, set[tuple[UUID, int]]] = {}  # batches that others had when it began
        self._failed: defaultdict[Environment, set[str]] = defaultdict(set)  # messages, of this invocation
        self._answered: defaultdict[Environment, Counter[str]] = defaultdict(Counter)
        self._seen: dict[str, int] = {}  # by object key: no older version than this may be found again
        self._known: dict[str, int] = {}  # by object key: no older version than this may be taken for the newest again
        self._file: dict[Environment, tuple[str, str]] = {}  # key and version that it has read last
        self._parsing: set[Environment] = set()
        self._checked: set[UUID] = set()  # versions whose chunks were compared with the file

    def invocation_starts(self, environment: Environment) -> None:
        environment.held_up_s = 0.0
        self._answered.pop(environment, None)
        self._failed.pop(environment, None)
        if environment.function == "embed":
            self._embedded[environment] = self._embeddings()
            self._held[environment] = set(
                self._world.database.rows(
                    "SELECT version_id, first_ordinal FROM embed_batches WHERE lease_until >= %s", [self._world.now()]
                )
            )

    def invocation_ends(self, environment: Environment) -> None:
        """N14: it leaves nothing behind."""
        left = [task for task in environment.tasks if not task.done()]
        if left:
            self._world.violate("N14 clean", f"{environment.name} left {left}")
        if environment.database.in_transaction():
            self._world.violate("N14 clean", f"{environment.name} left a transaction open")

        self._known_moves_on()
        if environment.function in {"chunk", "sweep"}:
            self._sent_what_is_marked_as_sent()
        if environment.function == "chunk":
            self._chunks_are_the_files()
        if environment.function in {"chunk", "embed", "sweep"}:
            self._what_is_whole_is_finished()

    def reads(self, environment: Environment, key: str, s3_version_id: str) -> None:
        self._file[environment] = key, s3_version_id

    @contextmanager
    def parsing(self, environment: Environment) -> Iterator[None]:
        """Leases are exclusive: a file is not parsed by two workers, unless one of them has overstayed its lease."""
        for other in self._parsing:
            overstayed = other.dead or any(one.zombie or one.held_up_s > HELD_UP_S for one in (other, environment))
            if self._file[other] == self._file[environment] and not overstayed:
                self._world.violate("N8 cost", f"{environment.name} and {other.name} parse {self._file[environment]}")
        self._parsing.add(environment)
        try:
            yield
        finally:
            self._parsing.discard(environment)

    def _known_moves_on(self) -> None:
        """N5: what is known of an object is never replaced by what was there before."""
        for key, s3_version_id in known_objects(self._world.database).items():
            history, before = self._world.bucket.history.get(key, []), self._known.get(key, -1)
            if s3_version_id is not None:
                now = max(index for index, version in enumerate(history) if version.version_id == s3_version_id)
            else:  # deleted, or announced and not there yet: at least the next delete is known
                later = range(before + 1, len(history))
                now = next((index for index in later if history[index].body is None), before)
            if now < before:
                self._world.violate(
                    "N5 newest wins", f"of {key} {history[before].version_id} was known, and now {s3_version_id}"
                )
            self._known[key] = now

    def _chunks_are_the_files(self) -> None:
        """N1: each version has the chunks of its own object version."""
        rows = self._world.database.rows(
            "SELECT version_id, object_key, s3_version_id, array_agg(text ORDER BY ordinal) "
            "FROM chunks JOIN document_versions USING (version_id) JOIN documents USING (document_id) "
            "WHERE version_id <> ALL (%s) GROUP BY 1, 2, 3",
            [list(self._checked)],
        )
        for version_id, key, s3_version_id, texts in rows:
            self._checked.add(version_id)
            version = next(one for one in self._world.bucket.history[key] if one.version_id == s3_version_id)
            if texts != _lines(version):
                self._world.violate("N1 no loss", f"{key} {s3_version_id} has chunks {texts}, not {_lines(version)}")

    def _what_is_whole_is_finished(self) -> None:
        """N3: nobody waits for the sweep when the last batch of a version is done."""
        if rows := self._world.database.rows(WHOLE_BUT_UNFINISHED):
            self._world.violate("N3 liveness", f"whole, and not finished: {rows}")

    def failed(self, environment: Environment, message_id: str) -> None:
        """The handler says so."""
        self._failed[environment].add(message_id)

    def acknowledged(self, environment: Environment, queue: "SimulatedQueue", message_id: str, body: str) -> None:
        """N11: the bell may fall silent when the work is done, is nobody's any more, or is in somebody's hands."""
        if message_id in self._failed[environment]:
            self._world.violate("N11 conservation", f"acknowledged, and it has failed: {body}")
        if queue is not self._world.embed_queue or body == POISON:
            return
        batch = EmbedBatch.model_validate_json(body)
        copies = sum(1 for message in queue.messages if message.body == body)
        if copies > 1 or (batch.version_id, batch.first_ordinal) in self._held.get(environment, ()):
            return
        waiting = self._world.database.rows(
            "SELECT b.lease_until FROM embed_batches b JOIN document_versions v USING (version_id) "
            "WHERE b.version_id = %s AND first_ordinal = %s AND done_at IS NULL AND v.status = 'embedding' "
            "AND (b.lease_until IS NULL OR b.lease_until < %s)",
            [batch.version_id, batch.first_ordinal, self._world.now()],
        )
        if waiting:
            self._world.violate("N11 conservation", f"acknowledged, and nobody is at it: {body}")

    def _sent_what_is_marked_as_sent(self) -> None:
        """N11: the outbox does not claim what never was on the queue."""
        sent = {
            (batch.version_id, batch.first_ordinal)
            for batch in map(EmbedBatch.model_validate_json, self._world.embed_queue.bodies.keys() - {POISON})
        }
        marked = self._world.database.rows(
            "SELECT version_id, first_ordinal FROM embed_batches WHERE sent_at IS NOT NULL AND done_at IS NULL"
        )
        if never := set(marked) - sent:
            self._world.violate("N11 conservation", f"marked as sent, and never was: {never}")
        bodies = "".join(body for body in self._world.ingest_queue.bodies if "ingest_version" in body)
        for (version_id,) in self._world.database.rows(
            "SELECT version_id FROM document_versions WHERE rung_at IS NOT NULL"
        ):
            if str(version_id) not in bodies:
                self._world.violate("N11 conservation", f"marked as rung for, and never was: {version_id}")

    def raised(self, environment: Environment, error: BaseException | None) -> None:
        """N9: what goes wrong is one of Edda's own errors, or a message that nobody can read."""
        if not isinstance(error, errors.EddaError | ValueError | TimeoutError):
            self._world.violate("N9 honest error", f"{environment.name} raised {type(error).__name__}: {error}")

    def provider_asked(self, environment: Environment, texts: Sequence[str]) -> None:
        """N8: what is stored is not paid for again, nor is a good answer within one invocation."""
        if len({text.split()[0] for text in texts}) > 1:
            self._world.violate("N6 tenant", f"texts of several tenants in one request: {texts}")
        still = self._embedded.get(environment, set()) & self._embeddings()
        again = {hash_ for hash_, _ in still} & {content_hash(text) for text in texts}
        if again:
            self._world.violate("N8 cost", f"asked for vectors that were stored before: {texts}")
        if len(set(texts)) < len(texts):
            self._world.violate("N8 cost", f"one request has a text twice: {texts}")
        twice = set(texts) & set(self._answered[environment])
        if twice:
            self._world.violate("N8 cost", f"asked again for what was answered: {twice}")

    def provider_answered(self, environment: Environment, texts: Sequence[str]) -> None:
        self._answered[environment].update(texts)

    def searched(self, tenant: Tenant, hits: Sequence[Hit], deleted: set[str]) -> None:
        """N4, N5, N6: of each document exactly one whole version, never an older one than before."""
        by_document: defaultdict[UUID, list[Hit]] = defaultdict(list)
        for hit in hits:
            by_document[hit.document_id].append(hit)
            if not hit.text.startswith(f"{tenant.slug} "):
                self._world.violate("N6 tenant", f"{tenant.slug} finds {hit.text!r}")
        keys = dict(self._world.database.rows("SELECT document_id, object_key FROM documents"))
        versions = dict(self._world.database.rows("SELECT version_id, s3_version_id FROM document_versions"))
        for document_id, found in by_document.items():
            key = keys[document_id]
            texts = [hit.text for hit in sorted(found, key=lambda hit: hit.ordinal)]
            if len({hit.version_id for hit in found}) > 1:
                self._world.violate("N4 atomic visibility", f"{key} shows several versions: {texts}")
            if str(document_id) in deleted:
                self._world.violate("N4 atomic visibility", f"{key} was deleted and is found: {texts}")
            history = self._world.bucket.history[key]
            # Its row may be gone since: then it is one that has these texts.
            named = versions.get(found[0].version_id)
            like = [
                index
                for index, version in enumerate(history)
                if version.version_id == (named or version.version_id) and self._same(texts, version)
            ]
            if not like:
                self._world.violate("N4 atomic visibility", f"{key} {named} shows {texts}")
            elif like[-1] < self._seen.get(key, 0):
                self._world.violate("N5 newest wins", f"{key} {named} is older than what was found before")
            else:
                self._seen[key] = max(like[0], self._seen.get(key, 0))

    def _same(self, texts: list[str], version: "ObjectVersion") -> bool:
        if version.body is None:
            return False
        spoilt = self._world.provider.spoilt
        kept = set(texts)
        return texts == [line for line in _visible(version) if line in kept or spoilt[line] < 2]

    def _embeddings(self) -> set[tuple[UUID, str]]:
        """Vectors, each with the transaction that stored it: one that was deleted and came again is another."""
        return set(self._world.database.rows("SELECT content_hash, xmin::text FROM embeddings"))


def state(database: "SimulatedDatabase") -> list[tuple[Any, ...]]:
    """Everything that a replay may not change. An event that was lost and comes now may give what the sweep has seen
    its place in the order, or leave a tombstone."""
    rows = [
        *database.rows("SELECT 'document', object_key, current_version_id FROM documents WHERE deleted_at IS NULL"),
        *database.rows(
            "SELECT 'version', version_id, document_id, s3_version_id, status, error_code, finished_at, "
            "planned_chunks FROM document_versions"
        ),
        *database.rows("SELECT 'chunk', version_id, ordinal, chunk_id, content_hash, text, error_code FROM chunks"),
        *database.rows("SELECT 'vector', tenant_id, content_hash, vector::text FROM embeddings"),
    ]
    return sorted(rows, key=repr)


def check(world: "World") -> None:
    """Raises Violation."""
    check_rows(world)
    world.database.end()
    if world.database.tenants_left:
        raise Violation("N6 tenant", "a connection that nobody uses carries a tenant")
    if world.database.deadlocks:
        raise Violation("no deadlocks", f"{world.database.deadlocks} deadlocks")
    if twice := world.database.rows(UPLOADED_TWICE):
        raise Violation("N2 no doubles", f"a repeated request made another document: {twice}")
    _check_conservation(world)


def check_rows(world: "World") -> None:
    """What rows, bucket and provider say: the same when real processes did the work."""
    for promise, query in MUST_BE_EMPTY.items():
        if "pg_stat_activity" not in query and (rows := world.database.rows(query)):
            raise Violation("N10 accounting", f"not true: {promise}: {rows[:3]}")
    if replaced := world.database.rows(REPLACED):
        raise Violation("N10 accounting", f"versions that were replaced still have chunks: {replaced}")
    _check_documents(world)
    _check_vectors(world)
    _check_errors(world)
    _check_caps(world)
    if unread := metadata_unread(world):
        raise Violation("N1 no loss", f"metadata that was not taken over: {unread}")


def _check_documents(world: "World") -> None:
    """N1, N2, N5, N10: every version there is has its rows, the newest good one is seen, and nothing else is there."""
    documents = {
        key: (document_id, deleted_at, current)
        for key, document_id, deleted_at, current in world.database.rows(
            "SELECT object_key, document_id, deleted_at, current_version_id FROM documents"
        )
    }
    versions: defaultdict[UUID, list[tuple[Any, ...]]] = defaultdict(list)
    for document_id, *row in world.database.rows(
        "SELECT document_id, version_id, s3_version_id, status, error_code, planned_chunks FROM document_versions"
    ):
        versions[document_id].append(tuple(row))
    chunks: defaultdict[UUID, list[str]] = defaultdict(list)
    for version_id, text in world.database.rows("SELECT version_id, text FROM chunks ORDER BY version_id, ordinal"):
        chunks[version_id].append(text)
    for key, history in world.bucket.history.items():
        if key != document_key_of(key):
            continue
        document_id, deleted_at, current = documents.get(key, (None, None, None))
        _check_document(
            world,
            key,
            history=history,
            exists=document_id is not None and deleted_at is None,
            current=current,
            rows=versions.get(document_id, []) if document_id else [],
            chunks=chunks,
        )
    strange = documents.keys() - world.bucket.history.keys()
    if strange:
        raise Violation("N1 no loss", f"documents of no object: {strange}")


def _check_document(
    world: "World",
    key: str,
    *,
    history: "list[ObjectVersion]",
    exists: bool,
    current: UUID | None,
    rows: list[tuple[Any, ...]],
    chunks: dict[UUID, list[str]],
) -> None:
    if history[-1].body is None:
        if exists or rows or current is not None:
            raise Violation("N5 newest wins", f"{key} was deleted and is there: {rows}")
        return
    if not exists:
        raise Violation("N1 no loss", f"{key} has no document")
    last_delete = max((index for index, version in enumerate(history) if version.body is None), default=-1)
    alive = {
        version.version_id: version
        for version in history[last_delete + 1 :]
        if version.version_id not in world.bucket.undone
    }
    # The bucket decides: what was replaced before it was looked at has no row.
    must_be = {history[-1].version_id}
    counted = Counter(row[1] for row in rows)
    # A delete that a newer put has overtaken leaves the versions before it; they are not seen.
    if not must_be <= counted.keys() <= {version.version_id for version in history} or max(counted.values()) > 1:
        raise Violation("N1 no loss", f"{key} has rows of versions {dict(counted)}, the bucket of {list(alive)}")
    by_id = {row[1]: row for row in rows}
    good = []
    for s3_version_id, version in alive.items():
        if s3_version_id not in by_id:
            continue
        _, _, status, code, _ = by_id[s3_version_id]
        newest = version is history[-1]
        if newest and not _allowed(world, version, status, code):
            raise Violation("N1 no loss", f"{key} {s3_version_id} is {status} ({code}), not {_expected(version)}")
        if status in {"ready", "partial"}:
            good.append(version)
    if not good:
        if current is not None:
            raise Violation("N5 newest wins", f"{key} has no good version and shows {current}")
        return
    version_id, s3_version_id, status, _, planned = by_id[good[-1].version_id]
    if current != version_id:
        raise Violation("N5 newest wins", f"{key} does not show its newest good version {s3_version_id}")
    if chunks[version_id] != _lines(good[-1]) or planned != len(chunks[version_id]):
        raise Violation("N1 no loss", f"{key} {s3_version_id} has chunks {chunks[version_id]}, planned {planned}")


def _allowed(world: "World", version: "ObjectVersion", status: str, code: str | None) -> bool:
    """What its content says; or an honest end that faults can bring about."""
    if (status, code) == _expected(version):
        return True
    if (status, code) == ("failed", QuotaExceeded.code) and world.tokens_per_day is not None:
        return _used(world, version) > world.tokens_per_day
    if (status, code) == ("failed", AttemptsExhausted.code):
        return world.deaths >= 5
    spoilt = any(world.provider.spoilt[line] > 1 for line in _visible(version))
    return spoilt and (status == "partial" or code == "embedding_rejected")


def _used(world: "World", version: "ObjectVersion") -> int:
    """Of the cap, if this version had been taken as well; a cap that is used up takes nothing."""
    (slug,) = {line.split()[0] for line in _lines(version)} or {""}
    rows = world.database.rows(
        "SELECT GREATEST(tokens_planned, tokens) FROM tenant_usage JOIN tenants USING (tenant_id) WHERE slug = %s",
        [slug],
    )
    used: int = sum(used for (used,) in rows)
    return used + max(1, sum(len(line) for line in _lines(version)))


def _check_caps(world: "World") -> None:
    """N10: no more was planned than the cap allows."""
    cap = world.tokens_per_day
    if cap is not None and (over := world.database.rows("SELECT * FROM tenant_usage WHERE tokens_planned > %s", [cap])):
        raise Violation("N10 accounting", f"over the cap of {cap} tokens: {over}")


def metadata_unread(world: "World") -> list[tuple[Any, ...]]:
    """Documents that do not have what the metadata file beside their object says."""
    documents = {
        key: (metadata, problem)
        for key, metadata, problem in world.database.rows(
            "SELECT object_key, metadata, metadata_problem FROM documents WHERE deleted_at IS NULL"
        )
    }
    unread = []
    for key, history in world.bucket.history.items():
        if key == document_key_of(key) or document_key_of(key) not in documents:
            continue
        metadata, problem = documents[document_key_of(key)]
        body = history[-1].body
        if body == b"{":
            right = problem is not None
        else:
            right = problem is None and metadata == (json.loads(body)["metadataAttributes"] if body else {})
        if not right:
            unread.append((key, body, metadata, problem))
    return unread


def _check_vectors(world: "World") -> None:
    """N12: each is its text's."""
    rows = world.database.rows(
        "SELECT DISTINCT c.text, e.vector::text FROM embeddings e JOIN chunks c USING (tenant_id, content_hash)"
    )
    for text, vector in rows:
        numbers = [float(number) for number in vector.strip("[]").split(",")]
        if any(abs(a - b) > 2e-3 for a, b in zip(numbers, vector_of(text), strict=True)):
            raise Violation("N12 valid vectors", f"{text!r} has another text's vector")


def _check_errors(world: "World") -> None:
    """N9: a known code, and nothing said that must not be."""
    codes = set(_codes(errors.EddaError))
    for code, message in world.database.rows(
        "SELECT error_code, error_message FROM document_versions WHERE error_code IS NOT NULL "
        "UNION ALL SELECT error_code, error_message FROM chunks WHERE error_code IS NOT NULL"
    ):
        if code not in codes or not message or SECRET in message or "line" in message or "Traceback" in message:
            raise Violation("N9 honest error", f"{code}: {message}")


def _check_conservation(world: "World") -> None:
    """N11: no message is unaccounted for."""
    for queue in (world.ingest_queue, world.embed_queue):
        there = len(queue.messages) + len(queue.dead_letters) + queue.deleted + queue.lost
        if queue.added != there:
            raise Violation("N11 conservation", f"{queue.name}: {queue.added} came, {there} are accounted for")
