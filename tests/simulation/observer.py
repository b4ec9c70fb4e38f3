"""What must be true while a schedule runs. Numbers as in docs/reliability.md."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from edda import errors
from edda.identity import content_hash
from edda.leasing import LEASE_S, RENEWAL_S
from edda.messages import EmbedBatch
from edda.models import Hit, Tenant

from tests.simulation.invariants import known_objects, lines_of, visible_lines
from tests.simulation.lambdas import Environment
from tests.simulation.schedules import POISON

if TYPE_CHECKING:
    from tests.simulation.aws import ObjectVersion, SimulatedQueue
    from tests.simulation.world import World

# Whoever was held up for longer may hold a lease that is over: it begins with the transaction that waits for a lock.
HELD_UP_S = LEASE_S - RENEWAL_S
# The last worker finishes the version with its batch, in one transaction.
WHOLE_BUT_UNFINISHED = """
    SELECT version_id FROM document_versions v
    WHERE status = 'embedding'
      AND NOT EXISTS (SELECT FROM embed_batches b WHERE b.version_id = v.version_id AND done_at IS NULL)"""

IN_PARSING = """
    SELECT version_id FROM document_versions JOIN documents USING (document_id)
    WHERE object_key = %s AND s3_version_id = %s AND status = 'parsing'"""


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
        self._parsing: dict[Environment, set[UUID]] = {}  # the versions that it may be parsing
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

        if self._world.bucket.versioned:
            self._known_moves_on()
        if environment.function in {"chunk", "sweep"}:
            self._sent_what_is_marked_as_sent()
        if environment.function == "chunk" and self._world.bucket.versioned:
            self._chunks_are_the_files()
        if environment.function in {"chunk", "embed", "sweep"}:
            self._what_is_whole_is_finished()

    def reads(self, environment: Environment, key: str, s3_version_id: str) -> None:
        self._file[environment] = key, s3_version_id

    @contextmanager
    def parsing(self, environment: Environment) -> Iterator[None]:
        """Leases are exclusive: a file is not parsed by two workers, unless one of them has overstayed its lease, or
        the file was deleted and came back meanwhile, as another version."""
        file = self._file[environment]
        versions = {one for (one,) in self._world.database.rows(IN_PARSING, file)}
        for other, others in self._parsing.items():
            overstayed = other.dead or any(one.zombie or one.held_up_s > HELD_UP_S for one in (other, environment))
            same = self._file[other] == file and bool(others & versions) and self._world.bucket.versioned
            if same and not overstayed:
                self._world.violate("N8 cost", f"{environment.name} and {other.name} parse {file}")
        self._parsing[environment] = versions
        try:
            yield
        finally:
            del self._parsing[environment]

    def _known_moves_on(self) -> None:
        """N5: what is known of an object is never replaced by what was there before."""
        for key, s3_version_id in known_objects(self._world.database).items():
            history, before = self._world.bucket.history.get(key, []), self._known.get(key, -1)
            if s3_version_id is not None:
                shown = [index for index, version in enumerate(history) if version.version_id == s3_version_id]
                # What came back after it was replaced may still be taken for what it was the first time.
                now = min((index for index in shown if index >= before), default=None)
            else:  # deleted, or announced and not there yet: at least the next delete is known
                later = range(max(before, 0), len(history))
                now = next((index for index in later if history[index].body is None), before)
            if now is None:
                self._world.violate(
                    "N5 newest wins", f"of {key} {history[before].version_id} was known, and now {s3_version_id}"
                )
                return
            self._known[key] = now

    def _chunks_are_the_files(self) -> None:
        """N1: each version has the chunks of its own object version; as far as it is parsed, while it is."""
        rows = self._world.database.rows(
            "SELECT version_id, object_key, s3_version_id, planned_chunks, parsed_chunks, "
            "array_agg(text ORDER BY ordinal), array_agg(ordinal ORDER BY ordinal) "
            "FROM chunks JOIN document_versions USING (version_id) JOIN documents USING (document_id) "
            "WHERE version_id <> ALL (%s) GROUP BY 1, 2, 3, 4, 5",
            [list(self._checked)],
        )
        for version_id, key, s3_version_id, planned, parsed, texts, ordinals in rows:
            version = next(one for one in self._world.bucket.history[key] if one.version_id == s3_version_id)
            expected = lines_of(version)
            if planned is None:
                expected = expected[:parsed]  # the part that is committed with it
            else:
                self._checked.add(version_id)
            if texts != expected or ordinals != list(range(len(expected))):
                self._world.violate("N1 no loss", f"{key} {s3_version_id} has chunks {texts}, not {expected}")

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
            "WHERE b.version_id = %s AND first_ordinal = %s AND done_at IS NULL "
            "AND v.status IN ('parsing', 'embedding') "
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

    def sent(self, queue: "SimulatedQueue", body: str) -> None:
        """N11: a message names what is written down. Nobody else would look for it if it were not."""
        if queue is not self._world.embed_queue:
            return
        batch = EmbedBatch.model_validate_json(body)
        there = self._world.database.rows(
            "SELECT EXISTS (SELECT FROM embed_batches WHERE version_id = %s AND first_ordinal = %s) "
            "OR NOT EXISTS (SELECT FROM document_versions WHERE version_id = %s)",
            [batch.version_id, batch.first_ordinal, batch.version_id],
        )
        if there != [(True,)]:
            self._world.violate("N11 conservation", f"sent, and never written down: {body}")

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
            if not self._world.bucket.versioned:
                continue
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
        return texts == [line for line in visible_lines(version) if line in kept or spoilt[line] < 2]

    def _embeddings(self) -> set[tuple[UUID, str]]:
        """Vectors, each with the transaction that stored it: one that was deleted and came again is another."""
        return set(self._world.database.rows("SELECT content_hash, xmin::text FROM embeddings"))
