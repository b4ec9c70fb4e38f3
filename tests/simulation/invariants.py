"""What must be true when nothing moves any more. Numbers as in docs/reliability.md."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from edda import errors
from edda.errors import QuotaExceeded
from edda.s3_events import document_key_of
from edda.sweeping import AttemptsExhausted

from tests.database.world import MUST_BE_EMPTY
from tests.simulation.provider import SECRET, vector_of
from tests.simulation.schedules import CORRUPT, DEADLY, HTTPS, MAX_CHUNKS, REFUSED
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from tests.simulation.aws import ObjectVersion
    from tests.simulation.database import SimulatedDatabase
    from tests.simulation.world import World


REPLACED = """
    SELECT d.object_key, v.s3_version_id FROM document_versions v JOIN documents d USING (document_id)
    JOIN document_versions current ON current.version_id = d.current_version_id
    WHERE v.sequencer < current.sequencer AND EXISTS (SELECT FROM chunks c WHERE c.version_id = v.version_id)"""

# Names are given to one request each.
UPLOADED_TWICE = f"""
    SELECT tenant_id, name FROM documents WHERE starts_with(name, '{HTTPS}') GROUP BY 1, 2 HAVING count(*) > 1"""


def known_objects(database: "SimulatedDatabase") -> dict[str, str | None]:
    """By object key: S3's version of the newest version known, None where it is not there."""
    return dict(
        database.rows(
            "SELECT object_key, CASE WHEN deleted_at IS NULL THEN (SELECT s3_version_id FROM document_versions v "
            "WHERE v.document_id = d.document_id ORDER BY sequencer DESC LIMIT 1) END FROM documents d"
        )
    )


def _codes(kind: type[errors.EddaError]) -> Iterator[str]:
    yield kind.code
    for below in kind.__subclasses__():
        yield from _codes(below)


def lines_of(version: "ObjectVersion") -> list[str]:
    """The chunks it makes."""
    return [line for line in (version.body or b"").decode().split("\n") if line]


def visible_lines(version: "ObjectVersion") -> list[str]:
    """What search may find of it."""
    return [line for line in lines_of(version) if REFUSED not in line]


def _expected(version: "ObjectVersion") -> tuple[str, str | None]:
    """Status and code that follow from the content."""
    lines = lines_of(version)
    if not lines:
        return "failed", "no_text"
    if any(CORRUPT in line for line in lines):
        return "failed", "corrupt"
    if any(DEADLY in line for line in lines):
        return "failed", AttemptsExhausted.code
    if len(lines) > MAX_CHUNKS:
        return "failed", "too_many_chunks"
    visible = visible_lines(version)
    if not visible:
        return "failed", "embedding_rejected"
    return ("ready", None) if visible == lines else ("partial", None)


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
    _check_caps(world)
    if unread := metadata_unread(world):
        raise Violation("N1 no loss", f"metadata that was not taken over: {unread}")


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
        exists = document_id is not None and deleted_at is None
        if not world.bucket.versioned:
            shown = chunks[current] if current else []
            _check_unversioned(world, key, newest=history[-1], exists=exists, current=current, chunks=shown)
            continue
        _check_document(
            world,
            key,
            history=history,
            exists=exists,
            current=current,
            rows=versions.get(document_id, []) if document_id else [],
            chunks=chunks,
        )
    strange = documents.keys() - world.bucket.history.keys()
    if strange:
        raise Violation("N1 no loss", f"documents of no object: {strange}")


def _check_unversioned(
    world: "World", key: str, *, newest: "ObjectVersion", exists: bool, current: UUID | None, chunks: list[str]
) -> None:
    """Of a document whose versions have no names: what is there now is what is seen, if it can be."""
    (row,) = world.database.rows(
        "SELECT (SELECT status FROM document_versions v WHERE v.document_id = d.document_id ORDER BY sequencer DESC "
        "LIMIT 1), (SELECT error_code FROM document_versions v WHERE v.document_id = d.document_id "
        "ORDER BY sequencer DESC LIMIT 1) FROM documents d WHERE object_key = %s",
        [key],
    ) or [(None, None)]
    if exists != (newest.body is not None):
        raise Violation("N5 newest wins", f"{key} {'is' if exists else 'is not'} there")
    if newest.body is None:
        return
    if not _allowed(world, newest, *row):
        raise Violation("N1 no loss", f"{key} is {row}, not {_expected(newest)}")
    if row[0] != "failed" and (current is None or chunks != lines_of(newest)):
        raise Violation("N5 newest wins", f"{key} shows {chunks}, not {lines_of(newest)}")


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
    if chunks[version_id] != lines_of(good[-1]) or planned != len(chunks[version_id]):
        raise Violation("N1 no loss", f"{key} {s3_version_id} has chunks {chunks[version_id]}, planned {planned}")


def _allowed(world: "World", version: "ObjectVersion", status: str, code: str | None) -> bool:
    """What its content says; or an honest end that faults can bring about."""
    if (status, code) == _expected(version):
        return True
    if (status, code) == ("failed", QuotaExceeded.code) and world.tokens_per_day is not None:
        return _used(world, version) > world.tokens_per_day
    if (status, code) == ("failed", AttemptsExhausted.code):
        return world.deaths >= 5
    spoilt = any(world.provider.spoilt[line] > 1 for line in visible_lines(version))
    return spoilt and (status == "partial" or code == "embedding_rejected")


def _used(world: "World", version: "ObjectVersion") -> int:
    """Of the cap, if this version had been taken as well; a cap that is used up takes nothing."""
    (slug,) = {line.split()[0] for line in lines_of(version)} or {""}
    rows = world.database.rows(
        "SELECT GREATEST(tokens_planned, tokens) FROM tenant_usage JOIN tenants USING (tenant_id) WHERE slug = %s",
        [slug],
    )
    used: int = sum(used for (used,) in rows)
    return used + max(1, sum(len(line) for line in lines_of(version)))


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
