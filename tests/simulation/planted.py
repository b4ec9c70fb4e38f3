"""Planted bugs: changes of Edda's source that the simulator must notice. A simulator that catches nothing proves nothing.

Each is a replacement in one file, made in a copy of the source; a process of its own imports that copy and runs seeds
until an invariant is violated. `make simulate PLANTED=1` tries all of them, `PLANTED="name;name"` some.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.postgres import Cluster

ROOT = Path(__file__).parents[2]
WITHIN_SEEDS = 1000

PIPELINE, SWEEP, DOCUMENTS, BUCKET_SQL = "sql/pipeline.sql", "sql/sweep.sql", "sql/documents.sql", "sql/bucket.sql"
INGEST, EMBED, FINISHING, BUCKET = "store/ingest.py", "store/embed.py", "store/finishing.py", "store/bucket.py"


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """`old` becomes `new`, once, in `file` (below edda/, or below functions/ when it begins with that)."""

    name: str
    file: str
    old: str
    new: str
    more: tuple[tuple[str, str, str], ...] = ()  # where one place alone is not enough: file, old, new

    def plant(self, folder: Path) -> None:
        """Copy the source, with this bug in it, to `folder`."""
        shutil.copytree(
            ROOT / "layers" / "core" / "edda", folder / "edda", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copytree(ROOT / "functions", folder / "functions", ignore=shutil.ignore_patterns("__pycache__"))
        for file, old, new in ((self.file, self.old, self.new), *self.more):
            path = folder / file if file.startswith("functions/") else folder / "edda" / file
            text = path.read_text()
            assert old in text, f"{self.name}: {file} has changed; look whether the bug still makes sense"
            path.write_text(text.replace(old, new, 1))


@dataclass(frozen=True, slots=True)
class Verdict:
    """`violation` is None when a thousand schedules went by."""

    bug: PlantedBug
    violation: str | None
    schedules: int
    seconds: float


BUGS = [
    # Natural keys
    PlantedBug(
        "an object seen again is another version", BUCKET,
        'same = state["s3_version_id"] == stored.version_id and bool(stored.version_id or not is_event)', "same = False",
    ),
    PlantedBug("vectors are inserted without ON CONFLICT", PIPELINE, "ON CONFLICT DO NOTHING;", ";"),
    PlantedBug(
        "documents are inserted without ON CONFLICT", BUCKET_SQL,
        "ON CONFLICT (tenant_id, object_key) DO UPDATE SET object_key = EXCLUDED.object_key;", ";",
    ),
    # Events
    PlantedBug("sequencers compare as plain strings", "s3_events.py", 'sequencer.lower().ljust(SEQUENCER_WIDTH, "0")', "sequencer"),
    PlantedBug("sequencers are padded on the left", "s3_events.py", '.ljust(SEQUENCER_WIDTH, "0")', '.rjust(SEQUENCER_WIDTH, "0")'),
    PlantedBug("object keys are not decoded", "s3_events.py", 'unquote_plus(entry["key"])', 'entry["key"]'),
    PlantedBug(
        "the newest object is read instead of the event's version", "ingesting.py",
        "self.objects.download(lease.object_key, lease.s3_version_id,", 'self.objects.download(lease.object_key, "",',
    ),
    PlantedBug(
        "a delete does not look at the bucket", "observing.py",
        "stored = await self.objects.head(key)", "stored = None if change and change.removed else await self.objects.head(key)",
    ),
    PlantedBug(
        "a put looks at its own version only", "observing.py",
        "self.objects.head(key)\n            except", 'self.objects.head(key, change.version_id if change and not change.removed else "")\n            except',
    ),
    PlantedBug(
        "a sighting is written down though something else has become known", BUCKET,
        'if state["last_known"] != sighting.last_known.sequencer:', "if False:",
    ),
    PlantedBug(
        "a late put undoes a delete over HTTPS", BUCKET,
        'if state["deleted"] and (state["announced"] or (state["object_to_delete"] and not is_event)):', "if False:",
    ),
    PlantedBug("a put after a delete is ignored", BUCKET, 'if state["deleted"] and (state["announced"] or (state["object_to_delete"] and not is_event)):', 'if state["deleted"]:'),
    PlantedBug("a document put again stays deleted", BUCKET, 'await cursor.execute(SQL["document_is_there"], values)', "pass"),
    PlantedBug(
        "the tombstone knows no sequencer", PIPELINE,
        "deleted_sequencer = GREATEST(deleted_sequencer, hold_sequencer, %(sequencer)s,", "deleted_sequencer = GREATEST(deleted_sequencer, '',",
    ),
    PlantedBug("a delete leaves the versions", PIPELINE, "DELETE FROM document_versions WHERE document_id = %(document_id)s", "SELECT 1"),
    PlantedBug(
        "a delete leaves the vectors", FINISHING,
        'await cursor.execute(SQL["delete_orphaned_embeddings"], {"content_hashes": content_hashes})', "pass",
    ),
    PlantedBug("a vector in use elsewhere is dropped", PIPELINE, "  AND NOT EXISTS (SELECT FROM chunks c WHERE c.tenant_id = e.tenant_id AND c.content_hash = e.content_hash);", ";"),
    # Leases
    PlantedBug("a version is claimed though somebody holds it", PIPELINE, "  AND (v.lease_until IS NULL OR v.lease_until < now())\nRETURNING v.version_id", "RETURNING v.version_id"),
    PlantedBug("a version's lease is not fenced", PIPELINE, "AND attempt = %(attempt)s AND status = 'parsing' FOR UPDATE", "AND status IN ('parsing', 'embedding') FOR UPDATE"),
    PlantedBug("a batch is claimed though somebody holds it", PIPELINE, "b.done_at IS NULL AND (b.lease_until IS NULL OR b.lease_until < now())", "b.done_at IS NULL"),
    PlantedBug("a done batch is claimed again", PIPELINE, "AND b.done_at IS NULL AND (b.lease_until", "AND (b.lease_until"),
    PlantedBug("leases never end", PIPELINE, "(v.lease_until IS NULL OR v.lease_until < now())\nRETURNING v.version_id", "v.lease_until IS NULL\nRETURNING v.version_id"),
    PlantedBug("a lease ends at once", PIPELINE, "lease_until = now() + make_interval(secs => %(lease_s)s),\n    rung_at", "lease_until = now(),\n    rung_at"),
    PlantedBug("a batch's lease ends at once", PIPELINE, "SET attempt = b.attempt + 1, lease_until = now() + make_interval(secs => %(lease_s)s)", "SET attempt = b.attempt + 1, lease_until = now()"),
    PlantedBug("a failure is recorded by whoever comes", PIPELINE, "WHERE version_id = %(version_id)s AND attempt = %(attempt)s AND finished_at IS NULL\nRETURNING", "WHERE version_id = %(version_id)s\nRETURNING"),
    # Outbox
    PlantedBug("messages are marked before they are sent", "ingesting.py", "if index not in failed]\n        await self.store.mark_sent", "]\n        await self.store.mark_sent"),
    PlantedBug("every message counts as sent", "adapters/sqs.py", 'return {int(entry["Id"]) for entry in answer.get("Successful", [])}', "return set(indices)"),
    PlantedBug("what is not in Failed counts as sent", "adapters/sqs.py", 'return {int(entry["Id"]) for entry in answer.get("Successful", [])}', 'return set(indices) - {int(entry["Id"]) for entry in answer.get("Failed", [])}'),
    PlantedBug("batches are planned without the last chunks", INGEST, "cuts = [*range(0, len(ordinals), size), len(ordinals)]", "cuts = [*range(0, len(ordinals), size)]"),
    # Status
    PlantedBug(
        "ready before everything is embedded", FINISHING, 'if open_batch is None or open_batch["open"]:\n        return None', "pass",
        ((FINISHING, 'if not count["stored"] == version["planned_chunks"] == count["embedded"] + count["rejected"]:', "if False:"),),
    ),
    PlantedBug(
        "the status is not looked at under locks", FINISHING, 'await cursor.execute(SQL["lock_document"], owner)\n    version', "version",
        ((PIPELINE, "WHERE version_id = %(version_id)s FOR UPDATE;\n\n-- name: has_open_batch", "WHERE version_id = %(version_id)s;\n\n-- name: has_open_batch"),),
    ),
    PlantedBug(
        "a batch is done without its vectors, and nobody counts them", "embedding.py",
        "if self._missing[lease.name] <= known]", "]",
        ((FINISHING, 'if not count["stored"] == version["planned_chunks"] == count["embedded"] + count["rejected"]:', "if False:"),),
    ),
    # Parts
    PlantedBug("whoever parses moves the cursor", PIPELINE, "AND attempt = %(attempt)s AND status = 'parsing' FOR UPDATE", "AND status = 'parsing' FOR UPDATE"),
    PlantedBug("the cursor is not read", "ingesting.py", "cursor, longest_s = lease.cursor, 0.0", "cursor, longest_s = None, 0.0"),
    PlantedBug("the cursor is written without its part", INGEST, "            await _insert_chunks(cursor, lease, outcome)\n", "            if outcome.next is None:\n                await _insert_chunks(cursor, lease, outcome)\n"),
    PlantedBug(
        "a part's messages are sent before it is committed", "ingesting.py",
        "                if not await self.store.save_chunks(lease, outcome, digest):\n",
        '                early = {"v": 1, "type": "embed_batch", "tenant_id": str(lease.tenant_id), "version_id": str(lease.version_id), "first_ordinal": outcome.first_ordinal, "last_ordinal": outcome.first_ordinal}\n                await self.embed_queue.send([__import__("json").dumps(early)])\n                if not await self.store.save_chunks(lease, outcome, digest):\n',
    ),
    PlantedBug(
        "a version is visible before its last part is in", FINISHING,
        'version["status"] != DocumentStatus.EMBEDDING:', 'version["status"] not in (DocumentStatus.PARSING, DocumentStatus.EMBEDDING):',
        ((FINISHING, 'if not count["stored"] == version["planned_chunks"] == count', 'if not count["stored"] == count'),),
    ),
    PlantedBug("a version ends with its first part", INGEST, "if outcome.next is not None:", "if False:"),
    PlantedBug("chunks of a part are counted from nought", "store/ingest.py", "    if outcome.first_ordinal:\n", "    if False:\n"),
    PlantedBug("another object is read on where versions have no names", "ingesting.py", "if lease.cursor is not None and lease.content_sha256 != digest:", "if False:"),
    PlantedBug("texts of unfinished files wait for the last part", PIPELINE, "v.status IN ('parsing', 'embedding') AND b.attempt", "v.status = 'embedding' AND b.attempt"),
    PlantedBug("visible before everything is embedded", INGEST, '            # Everything may be embedded already', '            await cursor.execute(SQL["publish_version"], {"version_id": lease.version_id, "document_id": lease.document_id})\n            # Everything may be embedded already'),
    PlantedBug("rejected chunks count as embedded", FINISHING, 'DocumentStatus.PARTIAL if count["rejected"] else DocumentStatus.READY', "DocumentStatus.READY"),
    PlantedBug("a document of refused chunks only is ready", FINISHING, 'if count["embedded"] == 0:', "if False:"),
    PlantedBug(
        "an overtaken version is built on, and the last to finish becomes visible", BUCKET_SQL,
        "WHERE v.document_id = %(document_id)s AND v.version_id <> %(version_id)s AND v.superseded_at IS NULL\n", "WHERE false\n",
        ((PIPELINE, "  AND NOT EXISTS (\n      SELECT FROM document_versions c\n      WHERE c.version_id = d.current_version_id AND c.sequencer > v.sequencer)", ""),),
    ),
    PlantedBug("an overtaken version is built on", BUCKET_SQL, "WHERE v.document_id = %(document_id)s AND v.version_id <> %(version_id)s AND v.superseded_at IS NULL\n", "WHERE false\n"),
    PlantedBug(
        "what was deleted answers until what was put since is ready", "observing.py",
        "return await self.objects.deleted_since(key, visible.s3_version_id, visible.modified_at)", "return False",
    ),
    PlantedBug("a finished version is not published", FINISHING, 'if values["status"] != DocumentStatus.FAILED:', 'if values["status"] == DocumentStatus.PARTIAL:'),
    PlantedBug("a failed version is published", FINISHING, 'if values["status"] != DocumentStatus.FAILED:', "if True:"),
    PlantedBug("nobody holds vectors while planning", FINISHING, 'shared = "" if to_delete else "_shared"\n', 'if not to_delete:\n        return\n    shared = ""\n'),
    # Embedding
    PlantedBug("stored texts are embedded again", PIPELINE, "WHERE NOT c.has_vector;", ";"),
    PlantedBug("equal texts are embedded each", EMBED, "if content_hash not in owners:", "if True:"),
    PlantedBug("vectors are matched by position", "adapters/openai_embedder.py", "self._decoded(by_index[index]) for index in range(count)", 'self._decoded(item["embedding"]) for item in answer["data"]'),
    PlantedBug("too few vectors are taken", "adapters/openai_embedder.py", 'if len(answer["data"]) != count or by_index.keys() != set(range(count)):', "if False:"),
    PlantedBug("NaN is a number", "vectors.py", "if not math.isfinite(length) or length == 0.0:", "if False:"),
    PlantedBug("any number of dimensions will do", "vectors.py", "    if len(raw) != dimensions * FLOAT32_BYTES:\n        raise wrong_dimensions(len(raw) // FLOAT32_BYTES, dimensions)\n    layout = _float32(dimensions)", "    layout = _float32(len(raw) // FLOAT32_BYTES)"),
    PlantedBug("one bad text spoils its request", "batching.py", "if len(indices) == 1:\n                settled.append(EmbeddedBatch(indices, [rejection]))", "if True:\n                settled.append(EmbeddedBatch(indices, [rejection] * len(indices)))"),
    PlantedBug("a refused text is tried for ever", "batching.py", "settled.append(EmbeddedBatch(indices, [rejection]))", "settled.append(EmbeddedBatch(indices, error=ProviderUnavailable()))"),
    PlantedBug("an error of the server is the text's fault", "adapters/http_provider.py", 'return ProviderUnavailable(f"{self.who} is unavailable ({said}).", retry_after_s=wait_s)', "return self.rejected()"),
    PlantedBug("throttling is the text's fault", "adapters/http_provider.py", 'return ProviderThrottled(f"{self.who} is limiting requests.", retry_after_s=wait_s)', "return self.rejected()"),
    PlantedBug("the provider's words are repeated", "adapters/http_provider.py", "def _code_and_parameter(body: bytes) -> tuple[str | None, str | None]:\n", "def _code_and_parameter(body: bytes) -> tuple[str | None, str | None]:\n    return body.decode(), None\n"),
    PlantedBug("vectors of deleted texts are stored", PIPELINE, "WHERE v.is_used\n", ""),
    PlantedBug("the failures of a batch are not told", "embedding.py", "failures |= {positions[lease.name]: one.problem for lease in await self._leave(one)}", "await self._leave(one)"),
    PlantedBug("rejections are not recorded", EMBED, "if each.rejected:", "if False:"),
    # Handlers
    PlantedBug("messages are acknowledged first (chunk)", "functions/chunk/app.py", "return partial_response(failed)", "return partial_response([])"),
    PlantedBug("messages are acknowledged first (embed)", "functions/embed/app.py", "return partial_response(failed)", "return partial_response([])"),
    PlantedBug("an answer names messages Lambda does not know", "sqs_events.py", '{"itemIdentifier": message_id}', '{"itemIdentifier": message_id + "?"}'),
    PlantedBug("a retryable error fails the document", "ingesting.py", "except DocumentError as error:", "except (DocumentError, RetryableError) as error:"),
    PlantedBug("a permanent error is tried again", "ingesting.py", "            await self.store.fail_version(lease, error)\n            return True\n", "            raise RetryableError from error\n"),
    # Sweep
    PlantedBug("the sweep does not ring for versions", "sweeping.py", "await self._ring_for_versions(tenant, done)\n        await", "await"),
    PlantedBug("the sweep does not ring for batches", "sweeping.py", "        await self._ring_for_batches(tenant, done)\n", ""),
    PlantedBug("the sweep does not drop what was replaced", "sweeping.py", 'done["versions_dropped"] += await self.store.drop_version(tenant.tenant_id, version_id)', "pass"),
    PlantedBug(
        "the sweep drops what is visible", SWEEP, "WHERE superseded_at IS NOT NULL ORDER BY superseded_at", "WHERE finished_at IS NOT NULL ORDER BY superseded_at",
        ((SWEEP, " AND v.superseded_at IS NOT NULL\n  AND NOT EXISTS (SELECT FROM documents d WHERE d.document_id = v.document_id AND d.current_version_id = v.version_id)", ""),),
    ),
    PlantedBug("the sweep gives up at once", SWEEP, "attempt - releases >= %(max_failures)s", "attempt - releases >= 1"),
    PlantedBug("the sweep forgets batches that were sent", SWEEP, "COALESCE(b.lease_until, b.sent_at + make_interval(secs => %(resend_s)s),", "COALESCE(b.lease_until, CASE WHEN b.sent_at IS NOT NULL THEN 'infinity'::timestamptz END,"),
    PlantedBug("the sweep forgets batches whose worker died", SWEEP, "COALESCE(b.lease_until, b.sent_at", "COALESCE(b.lease_until + interval '10 days', b.sent_at"),
    PlantedBug("the sweep sees one tenant only", "sweeping.py", "tenants = await self.keys.all_tenants()", "tenants = list(await self.keys.all_tenants())[:1]"),
    PlantedBug("the sweep does not look into the bucket", "sweeping.py", "if await self._turn(tenant, partial(self._walk, tenant, done), deadline, done):", "if False:"),
    PlantedBug("the sweep walks once and never again", BUCKET_SQL, "WHERE ended_at IS NULL OR began_at + make_interval(secs => %(interval_s)s) <= now();", "WHERE ended_at IS NULL;"),
    PlantedBug("metadata files whose events were lost are not read", "sweeping.py", "if there != read and not self._is_young(file):", "if False:"),
    PlantedBug("metadata files that are deleted go on counting", "sql/bucket.sql", "AND (%(version_id)s <> '' OR metadata_version <> '')\n", "AND %(version_id)s <> ''\n"),
    PlantedBug(
        "an older object is never the newest again", BUCKET,
        "unfinished = None if state", 'same = same or bool(state["modified_at"] and stored.last_modified < state["modified_at"])\n            unfinished = None if state',
    ),
    # Caps
    PlantedBug("caps are not looked at once a file is parsed", INGEST, "            if tokens:\n                await refuse_over_cap(cursor, lease.tenant_id)\n", ""),
    PlantedBug("a cap refuses what there is room for", "store/usage.py", 'if cap["used"] > cap["allowed"] or', 'if cap["used"] > cap["allowed"] / 2 or'),
    # Tenants and connections
    PlantedBug("the tenant is set for the session", "store/database.py", "set_config('app.tenant_id', %s, true)", "set_config('app.tenant_id', %s, false)"),
    PlantedBug("the tenant is never set", "store/database.py", "set_config('app.tenant_id', %s, true)", "set_config('app.tenant_', %s, true)"),
    PlantedBug("no transactions", "store/database.py", "async with connection.transaction(), connection.cursor() as cursor:", "async with connection.cursor() as cursor:"),
    PlantedBug("statements are committed one by one", "store/database.py", "                    yield cursor\n", "                    await cursor.execute('COMMIT')\n                    await cursor.execute(\"SELECT set_config('app.tenant_id', %s, false)\", [tenant])\n                    yield cursor\n                    await cursor.execute('BEGIN')\n"),
    PlantedBug("search finds every version", "store/search.py", "document_versions v WHERE v.version_id = d.current_version_id OFFSET 0", "document_versions v WHERE v.document_id = d.document_id OFFSET 0"),
    # API
    PlantedBug("a repeated upload is another document", "documents.py", "idempotency_key=idempotency_key,", "idempotency_key=None,"),
    PlantedBug("an upload whose object was not stored is not repeated", "documents.py", "if is_new or (await self._announced(tenant, document_id)).version_id is None:", "if is_new:"),
    PlantedBug("a repeated delete does not reach the object", DOCUMENTS, "WHERE document_id = %(document_id)s FOR UPDATE;", "WHERE document_id = %(document_id)s AND deleted_at IS NULL FOR UPDATE;"),
    PlantedBug(
        "a delete over HTTPS leaves the object, and so does the sweep",
        "documents.py", "        await self.objects.delete(object_key)\n", "",
        (("sweeping.py", "            if noted.outcome is Outcome.UNWANTED:\n                await self.objects.delete(key)\n", ""),),
    ),
]  # fmt: skip


# Tried and taken out again, for nothing wrong comes of them:
#
# - A delete before its put leaves no tombstone: the put's event looks at the bucket and finds nothing.
# - No message is sent for a file whose time was up: the sweep sees that nobody is at it.
# - Not counting rows before a version is finished: a batch is done only when each of its texts has a vector or was
#   refused, and no vector of a stored chunk is ever deleted. Both together is planted. The count stays, for it alone
#   sees what a database restored from a backup lacks.
# - Publishing a version though a newer one is visible: whatever registers a version ends those in flight before it, so
#   only the newest of a document is ever unfinished. Both together is planted.
# - Not looking for open batches before a version is finished: the count of rows says the same. Both together is planted.
# - Not locking the document before its status is derived: the lock on the version is enough for that. Both is planted.
# - A version whose texts all have vectors already is not finished at once: the sweep does it.
# - A batch is marked as done though its texts have no vectors: the sweep counts rows, and plans them again.
# - A connection is not asked whether it is alive: the first transaction after a freeze fails, and is tried again.
# - Unsent messages are not sent by the chunk function: the sweep rings for them.
# - The sweep does not finish versions, or batches planned again keep their state: needs a vector that vanishes between a
#   plan and its end, and the lock on vectors keeps that from happening.
# - A version is not released after a retryable error, or a batch's lease never ends: the sweep rings when the lease is
#   over, and takes leases away that have ended.


def try_bug(cluster: Cluster, bug: PlantedBug, seeds: range) -> Verdict:
    """Run seeds on a copy of the source with the bug, until it is caught."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edda-planted-") as folder:
        bug.plant(Path(folder))
        environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "EDDA_SIMULATED_SOURCE": folder}
        arguments = ["--seeds", f"{seeds.start}:{seeds.stop}", "--stop-at-first", "--socket", str(cluster.folder)]
        command = [sys.executable, "-m", "tests.simulation", *arguments, "--no-shrinking"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    schedules = next((int(line.split()[0]) for line in lines if " schedules, " in line and "faults" in line), 0)
    violation = next((lines[at + 1].strip() for at, line in enumerate(lines) if line.startswith("VIOLATION")), None)
    if violation is None and done.returncode != 0:
        raise RuntimeError(f"{bug.name}: {done.stderr[-2000:]}")
    return Verdict(bug, violation, schedules, time.monotonic() - started)


def prove(cluster: Cluster, wanted: Sequence[PlantedBug], seeds: range, jobs: int) -> int:
    """Try every one of these bugs: non-zero when one gets away."""
    seeds = range(seeds.start, seeds.start + WITHIN_SEEDS)
    caught_after = []
    with ThreadPoolExecutor(jobs) as pool:
        for verdict in pool.map(lambda bug: try_bug(cluster, bug, seeds), wanted):
            if verdict.violation:
                caught_after.append(verdict.schedules)
            said = f"caught after {verdict.schedules:4}: {verdict.violation}" if verdict.violation else "NOT CAUGHT"
            print(f"{verdict.bug.name}: {said[:150]} ({verdict.seconds:.0f} s)", flush=True)
    print(
        f"{len(caught_after)} of {len(wanted)} planted bugs caught within {WITHIN_SEEDS} seeds: "
        f"the median after {median(caught_after or [0]):.0f} schedules, the last after {max(caught_after, default=0)}"
    )
    return 0 if len(caught_after) == len(wanted) else 1


def named(names: Sequence[str]) -> list[PlantedBug]:
    """These bugs. Raises KeyError."""
    by_name = {bug.name: bug for bug in BUGS}
    return [by_name[name] for name in names]
