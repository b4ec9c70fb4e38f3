-- name: stuck_versions
-- Not parsed, nobody is at it, and nobody has been rung for lately: lost doorbells and dead workers.
-- Failures are workers that died. A lease given back in good order (an outage, no time left) counts only when it has
-- gone on for too long without another part being stored. (That they are not finished is said for the index.)
SELECT version_id,
       attempt - releases >= %(max_failures)s
           OR COALESCE(parted_at, created_at) + make_interval(secs => %(give_up_s)s) < now() AS exhausted
FROM document_versions
WHERE finished_at IS NULL AND status IN ('queued', 'parsing')
  AND COALESCE(lease_until, created_at + make_interval(secs => %(grace_s)s)) < now()
  AND (rung_at IS NULL OR rung_at + make_interval(secs => %(resend_s)s) < now())
ORDER BY created_at LIMIT %(limit)s;

-- name: stuck_batches
-- Never sent, or sent long ago and not done; of files that are still being parsed as well.
SELECT b.version_id, b.first_ordinal, b.last_ordinal,
       b.attempt - b.releases >= %(max_failures)s
           OR COALESCE(v.chunked_at, v.parted_at) + make_interval(secs => %(give_up_s)s) < now() AS exhausted
FROM embed_batches b JOIN document_versions v USING (version_id)
WHERE b.done_at IS NULL AND v.status IN ('parsing', 'embedding')
  AND COALESCE(b.lease_until, b.sent_at + make_interval(secs => %(resend_s)s),
               COALESCE(v.chunked_at, v.parted_at) + make_interval(secs => %(grace_s)s)) < now()
ORDER BY v.created_at, b.first_ordinal LIMIT %(limit)s;

-- name: unfinished_versions
-- Every batch is done but the last worker died before it could say so.
SELECT v.version_id FROM document_versions v
WHERE v.finished_at IS NULL AND v.status = 'embedding' AND v.chunked_at + make_interval(secs => %(grace_s)s) < now()
  AND NOT EXISTS (SELECT FROM embed_batches b WHERE b.version_id = v.version_id AND b.done_at IS NULL)
ORDER BY v.created_at LIMIT %(limit)s;

-- name: lacks_vectors
-- Is it still unfinished, though every batch is done? Asked under the document's lock.
SELECT FROM document_versions v
WHERE v.version_id = %(version_id)s AND v.status = 'embedding'
  AND NOT EXISTS (SELECT FROM embed_batches b WHERE b.version_id = v.version_id AND b.done_at IS NULL);

-- name: lock_document_of_version
SELECT document_id FROM documents
WHERE document_id = (SELECT document_id FROM document_versions WHERE version_id = %(version_id)s) FOR UPDATE;

-- name: give_up_version
-- Tried often enough, and no worker holds it.
UPDATE document_versions
SET status = 'failed', error_code = %(code)s, error_message = %(message)s, finished_at = now(), lease_until = NULL
WHERE version_id = %(version_id)s AND finished_at IS NULL AND (lease_until IS NULL OR lease_until < now())
RETURNING version_id;

-- name: superseded_versions
-- Rows whose place a newer one has taken: dead weight.
SELECT version_id FROM document_versions WHERE superseded_at IS NOT NULL ORDER BY superseded_at LIMIT %(limit)s;

-- name: lock_superseded_version
-- Unless it is what search sees: then the newer one did not come to be seen after all.
SELECT v.version_id FROM document_versions v
WHERE v.version_id = %(version_id)s AND v.superseded_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM documents d WHERE d.document_id = v.document_id AND d.current_version_id = v.version_id)
FOR UPDATE;

-- name: forget_documents
-- Tombstones, but for those whose object may still be there. Nothing needs them any more: messages that name such an
-- object live for 28 days at most (14 as a dead letter, and again after a redrive), and an event only makes us look into
-- the bucket, where the object is gone.
WITH old AS (
    SELECT document_id FROM documents
    WHERE deleted_at < now() - make_interval(days => %(history_days)s) AND NOT object_to_delete
    ORDER BY deleted_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), numbers AS (
    DELETE FROM document_event_counters WHERE document_id IN (SELECT document_id FROM old)
)
DELETE FROM documents WHERE document_id IN (SELECT document_id FROM old);

-- name: forget_document_usage
DELETE FROM document_usage WHERE (tenant_id, document_id, day) IN (
    SELECT tenant_id, document_id, day FROM document_usage
    WHERE day < (now() AT TIME ZONE 'utc')::date - %(history_days)s::integer
    ORDER BY day LIMIT %(limit)s FOR UPDATE SKIP LOCKED);

-- name: forget_tenant_usage
DELETE FROM tenant_usage WHERE day < (now() AT TIME ZONE 'utc')::date - %(history_days)s::integer;
