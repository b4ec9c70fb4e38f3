-- name: announce_document
-- The row comes before the object: whatever happens to the upload, there is something to show and to end.
INSERT INTO documents (document_id, tenant_id, object_key, name, title, tags, metadata, upload_expires_at,
                       idempotency_key, request_sha256)
VALUES (%(document_id)s, %(tenant_id)s, %(object_key)s, %(name)s, %(title)s, %(tags)s, %(metadata)s,
        now() + make_interval(secs => %(expires_s)s), %(idempotency_key)s, %(request_sha256)s)
ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
RETURNING document_id;

-- name: find_by_idempotency_key
SELECT document_id, object_key, request_sha256 FROM documents WHERE idempotency_key = %(idempotency_key)s;

-- name: renew_upload
-- A retried request gets a new form: the promise lasts as long as that.
UPDATE documents SET upload_expires_at = now() + make_interval(secs => %(expires_s)s)
WHERE document_id = %(document_id)s;

-- name: select_documents
-- A document as the API shows it: its newest version tells the status, the visible one what search sees.
SELECT d.document_id, d.name, COALESCE(d.title, v.title) AS title, d.tags, d.metadata, d.metadata_problem,
       COALESCE(d.hold = 'held', false) AS deletion_held, d.object_key, d.created_at, d.updated_at, d.current_version_id, d.upload_expires_at,
       d.upload_expires_at < now() AS upload_expired,
       v.version_id, v.status, v.error_code, v.error_message, v.size_bytes, v.media_type, v.language, v.characters,
       v.planned_chunks, v.created_at AS version_created_at, v.chunked_at, v.finished_at
FROM documents d
LEFT JOIN LATERAL (
    SELECT * FROM document_versions v
    WHERE v.document_id = d.document_id ORDER BY v.sequencer DESC LIMIT 1
) v ON true
WHERE d.deleted_at IS NULL

-- name: count_chunks
-- Progress of the given versions.
SELECT c.version_id, count(*) AS stored,
       count(*) FILTER (WHERE e.content_hash IS NOT NULL) AS embedded,
       count(*) FILTER (WHERE e.content_hash IS NULL AND c.error_code IS NOT NULL) AS failed
FROM chunks c
LEFT JOIN embeddings e
    ON e.tenant_id = c.tenant_id AND e.content_hash = c.content_hash AND e.model_id = %(model_id)s
WHERE c.version_id = ANY (%(version_ids)s)
GROUP BY c.version_id;

-- name: list_chunks
-- The chunks of the visible version, or of the newest where none is visible yet.
SELECT c.chunk_id, c.ordinal, c.text, c.tokens, c.char_start, c.char_end, c.page, c.heading_path, c.language,
       c.error_code, c.error_message
FROM chunks c
WHERE c.version_id = %(version_id)s AND c.ordinal > %(after)s
ORDER BY c.ordinal LIMIT %(limit)s;

-- name: update_document
-- Nothing is embedded again.
UPDATE documents
SET name = CASE WHEN %(set_name)s THEN %(name)s ELSE name END,
    title = CASE WHEN %(set_title)s THEN %(title)s ELSE title END,
    tags = CASE WHEN %(set_tags)s THEN %(tags)s ELSE tags END,
    metadata = CASE WHEN %(set_metadata)s THEN %(metadata)s ELSE metadata END,
    metadata_problem = CASE WHEN %(set_metadata)s THEN NULL ELSE metadata_problem END,
    updated_at = now()
WHERE document_id = %(document_id)s AND deleted_at IS NULL
RETURNING document_id, current_version_id;

-- name: title_is_changed
-- If it is. Its words are among the terms of the document's chunks, also of those that are being stored. The document is
-- locked.
UPDATE document_versions v SET terms_from = -1
FROM documents d
WHERE v.document_id = %(document_id)s AND d.document_id = v.document_id AND v.superseded_at IS NULL
  AND d.title IS DISTINCT FROM %(title)s;

-- name: lock_to_delete
-- A deleted document too: a repeated delete must reach the object.
SELECT object_key, deleted_at IS NOT NULL AS deleted FROM documents WHERE document_id = %(document_id)s FOR UPDATE;
