-- name: last_known
-- The last thing known to have happened to an object, as a sequencer, and the version that search sees.
SELECT GREATEST(d.deleted_sequencer, d.hold_sequencer, v.sequencer) AS sequencer,
       c.version_id AS visible_id, c.s3_version_id AS visible_s3_version_id, c.modified_at AS visible_modified_at
FROM documents d
LEFT JOIN document_versions c ON c.version_id = d.current_version_id
LEFT JOIN LATERAL (
    SELECT sequencer FROM document_versions v WHERE v.document_id = d.document_id ORDER BY sequencer DESC LIMIT 1
) v ON true
WHERE d.object_key = %(object_key)s;

-- name: upsert_document
-- A file put straight into the bucket makes its document; one announced over HTTPS is there already. Locks the row.
INSERT INTO documents (document_id, tenant_id, object_key, name)
VALUES (gen_random_uuid(), %(tenant_id)s, %(object_key)s, %(name)s)
ON CONFLICT (tenant_id, object_key) DO UPDATE SET object_key = EXCLUDED.object_key;

-- name: lock_object
SELECT document_id FROM documents WHERE object_key = %(object_key)s FOR UPDATE;

-- name: object_state
-- The document of one object key and its newest version. Asked after the lock was got: what is read together with a
-- lock may be as old as the wait for it. Versions of a deleted document are only waiting for the sweep to drop them.
SELECT d.document_id, d.deleted_at IS NOT NULL AS deleted, d.object_to_delete, d.hold,
       d.idempotency_key IS NOT NULL OR d.upload_expires_at IS NOT NULL AS announced,
       d.current_version_id AS visible_id, v.version_id, v.s3_version_id, v.size_bytes, v.media_type, v.modified_at,
       v.status, v.finished_at IS NOT NULL AS finished,
       COALESCE(GREATEST(d.deleted_sequencer, d.hold_sequencer, v.sequencer), '') AS last_known
FROM documents d
LEFT JOIN LATERAL (
    SELECT * FROM document_versions v
    WHERE v.document_id = d.document_id AND d.deleted_at IS NULL ORDER BY sequencer DESC LIMIT 1
) v ON true
WHERE d.object_key = %(object_key)s;

-- name: insert_version
INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at, size_bytes,
                               media_type)
VALUES (gen_random_uuid(), %(tenant_id)s, %(document_id)s, %(s3_version_id)s, %(sequencer)s, %(modified_at)s,
        %(size_bytes)s, %(media_type)s)
RETURNING version_id;

-- name: abandon_older
-- Nobody needs them any more: what is in flight ends here, and the sweep deletes them all. What search sees stays until
-- the new version takes its place.
UPDATE document_versions v
SET superseded_at = now(), lease_until = NULL,
    status = CASE WHEN finished_at IS NULL THEN 'failed' ELSE status END,
    error_code = CASE WHEN finished_at IS NULL THEN 'superseded' ELSE error_code END,
    error_message = CASE WHEN finished_at IS NULL THEN 'A newer version of the file came before this was done.'
                         ELSE error_message END,
    finished_at = COALESCE(finished_at, now())
WHERE v.document_id = %(document_id)s AND v.version_id <> %(version_id)s AND v.superseded_at IS NULL
  AND NOT EXISTS (SELECT FROM documents d WHERE d.document_id = v.document_id AND d.current_version_id = v.version_id);

-- name: hide_version
-- It was deleted, and what was put since takes its place whether it can be read or not. The sweep deletes its rows.
UPDATE documents SET current_version_id = NULL, updated_at = now() WHERE document_id = %(document_id)s;

-- name: supersede_version
UPDATE document_versions SET superseded_at = now() WHERE version_id = %(visible_id)s AND superseded_at IS NULL;

-- name: renumber_version
-- The event that told of this version, or a later sighting of it, has come.
UPDATE document_versions SET sequencer = %(sequencer)s WHERE version_id = %(version_id)s;

-- name: document_is_there
-- It was put again, whatever was to become of it.
UPDATE documents
SET deleted_at = NULL, object_to_delete = false, hold = NULL, hold_sequencer = '', updated_at = now()
WHERE document_id = %(document_id)s;

-- name: move_tombstone
UPDATE documents
SET deleted_sequencer = CASE WHEN deleted_at IS NULL THEN deleted_sequencer ELSE %(sequencer)s END,
    hold_sequencer = CASE WHEN deleted_at IS NULL THEN %(sequencer)s ELSE hold_sequencer END
WHERE document_id = %(document_id)s;

-- name: hold_document
UPDATE documents SET hold = 'held', hold_sequencer = %(sequencer)s, updated_at = now()
WHERE document_id = %(document_id)s;

-- name: current_window
-- Of the deletes that the brake counts. While it is on, time changes nothing.
SELECT documents, deleted, tripped_at IS NOT NULL AS tripped FROM delete_brakes
WHERE tripped_at IS NOT NULL OR began_at + make_interval(secs => %(window_s)s) > now()
FOR UPDATE;

-- name: begin_window
INSERT INTO delete_brakes AS b (tenant_id, began_at, documents, deleted)
SELECT %(tenant_id)s, now(), count(*), 0 FROM documents WHERE deleted_at IS NULL
ON CONFLICT (tenant_id) DO UPDATE SET began_at = EXCLUDED.began_at, documents = EXCLUDED.documents, deleted = 0
RETURNING documents, deleted, false AS tripped;

-- name: count_delete
UPDATE delete_brakes SET deleted = deleted + 1;

-- name: trip_brake
UPDATE delete_brakes SET tripped_at = now() WHERE tripped_at IS NULL RETURNING documents, deleted;

-- name: release_brake
-- For a window from now on deletes are not counted where an operator has confirmed them.
UPDATE delete_brakes SET tripped_at = NULL, began_at = now(), deleted = 0,
    documents = CASE WHEN %(confirmed)s THEN NULL ELSE documents END;

-- name: held_documents
SELECT document_id, hold_sequencer AS sequencer FROM documents WHERE hold = 'held' ORDER BY object_key LIMIT %(limit)s;

-- name: count_held
SELECT count(*) AS held FROM documents WHERE hold = 'held';

-- name: still_held
SELECT document_id FROM documents WHERE document_id = %(document_id)s AND hold = 'held' FOR UPDATE;

-- name: keep_held
-- They go on answering though their objects are gone, until these are put or deleted anew.
UPDATE documents SET hold = 'kept', updated_at = now() WHERE hold = 'held';

-- name: walk
-- Where the comparison of bucket and documents goes on; a new one when the last began long enough ago.
SELECT CASE WHEN ended_at IS NULL THEN after_key ELSE '' END AS after_key, began_at, ended_at
FROM bucket_walks
WHERE ended_at IS NULL OR began_at + make_interval(secs => %(interval_s)s) <= now();

-- name: begin_first_walk
INSERT INTO bucket_walks (tenant_id, began_at) VALUES (%(tenant_id)s, now()) ON CONFLICT DO NOTHING;

-- name: advance_walk
-- Only from where this round began: of two sweeps at once the slower one's step is dropped.
UPDATE bucket_walks
SET after_key = %(until)s, began_at = CASE WHEN ended_at IS NULL THEN began_at ELSE now() END,
    ended_at = CASE WHEN %(ended)s THEN now() END
WHERE began_at = %(began_at)s AND ended_at IS NOT DISTINCT FROM %(ended_at)s
  AND (after_key = %(after)s OR ended_at IS NOT NULL)
RETURNING began_at, ended_at;

-- name: known_objects
-- What is known of the objects behind one key, in S3's order.
SELECT d.object_key, d.deleted_at IS NOT NULL AS deleted, d.hold, v.s3_version_id
FROM documents d
LEFT JOIN LATERAL (
    SELECT s3_version_id FROM document_versions v WHERE v.document_id = d.document_id ORDER BY sequencer DESC LIMIT 1
) v ON true
WHERE d.object_key > %(after)s AND (%(until)s::text IS NULL OR d.object_key <= %(until)s)
ORDER BY d.object_key LIMIT %(limit)s;

-- name: objects_to_delete
-- Deleted over HTTPS a while ago, and their objects are not known to be gone.
SELECT document_id, object_key FROM documents
WHERE object_to_delete AND updated_at + make_interval(secs => %(grace_s)s) < now()
LIMIT %(limit)s;

-- name: object_is_deleted
UPDATE documents SET object_to_delete = false WHERE document_id = %(document_id)s AND deleted_at IS NOT NULL;

-- name: set_metadata
-- From the metadata file beside the object. Where it cannot be read, or is not there and never was, what is known stays.
UPDATE documents
SET metadata = CASE WHEN %(problem)s::text IS NULL AND (%(version_id)s <> '' OR metadata_version <> '')
                    THEN %(metadata)s ELSE metadata END,
    metadata_problem = CASE WHEN %(version_id)s <> '' OR metadata_version <> '' THEN %(problem)s ELSE metadata_problem END,
    metadata_version = %(version_id)s, updated_at = now()
WHERE object_key = %(object_key)s
  AND (metadata_version, metadata, metadata_problem) IS DISTINCT FROM (%(version_id)s, %(metadata)s, %(problem)s::text);

-- name: metadata_versions
SELECT object_key, metadata_version FROM documents
WHERE object_key = ANY (%(object_keys)s) AND deleted_at IS NULL;
