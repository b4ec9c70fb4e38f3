-- name: row_security
SELECT row_security_active('documents') AS active;

-- name: to_begin_again
-- Documents whose newest version did not end well.
SELECT d.document_id
FROM documents d
CROSS JOIN LATERAL (
    SELECT status FROM document_versions v WHERE v.document_id = d.document_id ORDER BY sequencer DESC LIMIT 1
) v
WHERE d.deleted_at IS NULL AND v.status IN ('failed', 'partial')
  AND (%(after)s::uuid IS NULL OR d.document_id > %(after)s)
ORDER BY d.document_id LIMIT %(limit)s;

-- name: lock_document
SELECT object_key FROM documents WHERE document_id = %(document_id)s FOR UPDATE;

-- name: ring_soon
-- A lease that has ended: the next sweep takes it for a dead worker's and rings. Not while somebody has it in hand.
UPDATE document_versions SET lease_until = now(), rung_at = NULL
WHERE version_id = %(version_id)s AND status IN ('queued', 'parsing') AND (lease_until IS NULL OR lease_until < now());

-- name: ring_soon_for_batches
-- What is locked is in somebody's hands.
UPDATE embed_batches b SET lease_until = now()
FROM (
    SELECT version_id, first_ordinal FROM embed_batches
    WHERE version_id = %(version_id)s AND done_at IS NULL AND (lease_until IS NULL OR lease_until < now())
    FOR UPDATE SKIP LOCKED) free
WHERE b.version_id = free.version_id AND b.first_ordinal = free.first_ordinal;

-- name: open_version
SELECT FROM document_versions WHERE version_id = %(version_id)s AND finished_at IS NULL;

-- name: open_batch
SELECT FROM embed_batches b JOIN document_versions v USING (version_id)
WHERE b.version_id = %(version_id)s AND b.first_ordinal = %(first_ordinal)s AND b.done_at IS NULL
  AND v.status IN ('parsing', 'embedding');
