-- name: lock_document
-- Serialises everything that decides which version of a document is seen.
SELECT document_id FROM documents WHERE document_id = %(document_id)s FOR UPDATE;

-- name: claim_version
-- A fenced lease by database time: one worker at a time, and a later one outranks an earlier one.
UPDATE document_versions v
SET status = CASE WHEN v.status = 'queued' THEN 'parsing' ELSE v.status END,
    attempt = v.attempt + 1,
    lease_until = now() + make_interval(secs => %(lease_s)s),
    rung_at = NULL
FROM documents d
WHERE v.version_id = %(version_id)s AND d.document_id = v.document_id
  AND v.status IN ('queued', 'parsing') AND v.attempt - v.releases < %(max_failures)s
  AND (v.lease_until IS NULL OR v.lease_until < now())
RETURNING v.version_id, v.document_id, v.attempt, v.s3_version_id, v.sequencer, d.object_key, d.name,
          d.title, v.media_type, v.size_bytes, v.parsed_chunks, v.parse_state, v.content_sha256;

-- name: renew_version
-- Not one that was given back, or taken over.
UPDATE document_versions SET lease_until = now() + make_interval(secs => %(lease_s)s)
WHERE version_id = %(version_id)s AND attempt = %(attempt)s AND status = 'parsing' AND lease_until IS NOT NULL;

-- name: lock_lane
-- Those who begin on files of one tenant's do so one after another: each counts the others.
SELECT pg_advisory_xact_lock(hashtextextended('edda lane ' || %(tenant_id)s::text, 0));

-- name: others_in_work
-- How many other files of this tenant are being parsed.
SELECT count(*) AS others FROM document_versions
WHERE tenant_id = %(tenant_id)s AND lease_until > now() AND status = 'parsing' AND version_id <> %(version_id)s;

-- name: versions_are_rung
-- Unless somebody has answered meanwhile.
UPDATE document_versions SET rung_at = now()
WHERE version_id = ANY (%(version_ids)s) AND (lease_until IS NULL OR lease_until < now());

-- name: fence_version
-- Does this worker still hold the version? Taken as a row lock, so that nobody else gets it before we commit.
SELECT document_id FROM document_versions
WHERE version_id = %(version_id)s AND attempt = %(attempt)s AND status = 'parsing' FOR UPDATE;

-- name: occurrences
-- How often these texts came in the parts before.
SELECT content_hash, count(*) AS times FROM chunks
WHERE tenant_id = %(tenant_id)s AND version_id = %(version_id)s AND content_hash = ANY (%(content_hashes)s)
GROUP BY content_hash;

-- name: insert_chunk
-- Pipelined, one row each: COPY is not allowed under row-level security.
INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, char_start, char_end, page,
                    heading_path, language)
VALUES (%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b);

-- name: missing_ordinals
-- Chunks from this ordinal on whose text has no vector by this model yet, the first of equal texts only: a text of an
-- earlier part is planned already, unless it was refused before its equal came.
SELECT DISTINCT ON (c.content_hash) c.ordinal, c.tokens
FROM chunks c
LEFT JOIN embeddings e
    ON e.tenant_id = c.tenant_id AND e.content_hash = c.content_hash AND e.model_id = %(model_id)s
WHERE c.version_id = %(version_id)s AND c.ordinal >= %(first_ordinal)s AND e.content_hash IS NULL
  AND (%(first_ordinal)s = 0 OR NOT EXISTS (
      SELECT FROM chunks b
      WHERE b.tenant_id = c.tenant_id AND b.content_hash = c.content_hash AND b.version_id = c.version_id
        AND b.ordinal < %(first_ordinal)s AND b.error_code IS NULL))
ORDER BY c.content_hash, c.ordinal;

-- name: insert_batches
INSERT INTO embed_batches (tenant_id, version_id, first_ordinal, last_ordinal)
SELECT %(tenant_id)s, %(version_id)s, first_ordinal, last_ordinal
FROM unnest(%(first_ordinals)s::integer[], %(last_ordinals)s::integer[]) AS b (first_ordinal, last_ordinal)
ON CONFLICT (version_id, first_ordinal) DO UPDATE
SET last_ordinal = EXCLUDED.last_ordinal, sent_at = NULL, done_at = NULL, lease_until = NULL;

-- name: part_is_chunked
-- There are more. Workers that died over the parts before do not count for the next. Who could not renew the lease while
-- this took the connection still has it, by the time it is now and not when this began.
UPDATE document_versions
SET parsed_chunks = %(parsed_chunks)s, parse_state = %(parse_state)s, content_sha256 = %(content_sha256)s,
    parted_at = now(), releases = attempt - 1,
    lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE version_id = %(version_id)s;

-- name: version_is_chunked
UPDATE document_versions
SET status = 'embedding', planned_chunks = %(parsed_chunks)s, parsed_chunks = %(parsed_chunks)s, parse_state = NULL,
    chunked_at = now(), lease_until = NULL, media_type = %(media_type)s, language = %(language)s, title = %(title)s, characters = %(characters)s,
    content_sha256 = %(content_sha256)s,
    terms_from = CASE WHEN terms_from = 0 AND %(parsed_chunks)s = (
        SELECT count(*) FROM chunk_terms t WHERE t.version_id = %(version_id)s) THEN NULL ELSE terms_from END
WHERE version_id = %(version_id)s;

-- name: unsent_batches
-- Not of a version that has been superseded meanwhile.
SELECT b.version_id, b.first_ordinal, b.last_ordinal
FROM embed_batches b JOIN document_versions v USING (version_id)
WHERE b.version_id = %(version_id)s AND v.status IN ('parsing', 'embedding') AND b.done_at IS NULL
  AND b.sent_at IS NULL
ORDER BY b.first_ordinal;

-- name: batches_are_sent
-- A lease that has ended is forgotten: from here on it is the message that is waited for.
UPDATE embed_batches b
SET sent_at = now(), lease_until = CASE WHEN b.lease_until < now() THEN NULL ELSE b.lease_until END
FROM (
    SELECT version_id, first_ordinal FROM embed_batches
    WHERE version_id = %(version_id)s AND first_ordinal = ANY (%(first_ordinals)s)
    ORDER BY version_id, first_ordinal FOR UPDATE) sent
WHERE b.version_id = sent.version_id AND b.first_ordinal = sent.first_ordinal;

-- name: fail_version
-- Permanent: the same bytes would fail the same way.
UPDATE document_versions
SET status = 'failed', error_code = %(code)s, error_message = %(message)s, finished_at = now(), lease_until = NULL
WHERE version_id = %(version_id)s AND attempt = %(attempt)s AND finished_at IS NULL
RETURNING version_id;

-- name: release_version
-- The work could not be done now; the next delivery need not wait for the lease.
UPDATE document_versions SET lease_until = NULL, releases = releases + 1
WHERE version_id = %(version_id)s AND attempt = %(attempt)s AND finished_at IS NULL;

-- name: claim_batches
-- Of these batches those of unfinished versions that nobody has a lease on, locked; `position` counts from 0.
SELECT w.position - 1 AS position, b.version_id, b.first_ordinal, b.last_ordinal, b.attempt + 1 AS attempt,
       v.document_id, (now() AT TIME ZONE 'utc')::date AS day
FROM (SELECT version_id, first_ordinal, min(position) AS position
      FROM unnest(%(version_ids)s::uuid[], %(first_ordinals)s::integer[])
          WITH ORDINALITY AS u (version_id, first_ordinal, position)
      GROUP BY version_id, first_ordinal) w
JOIN embed_batches b USING (version_id, first_ordinal)
JOIN document_versions v USING (version_id)
WHERE v.status IN ('parsing', 'embedding') AND b.attempt - b.releases < %(max_failures)s
  AND b.done_at IS NULL AND (b.lease_until IS NULL OR b.lease_until < now())
ORDER BY b.version_id, b.first_ordinal
FOR UPDATE OF b;

-- name: lease_batch
-- A fenced lease on a locked batch, and the texts that are embedded under it. The row's one update: at a second one in a
-- transaction Postgres asks for the version again, which somebody who deletes it may have locked.
UPDATE embed_batches b
SET attempt = b.attempt + 1, lease_until = now() + make_interval(secs => %(lease_s)s), held = %(content_hashes)s
WHERE b.version_id = %(version_id)s AND b.first_ordinal = %(first_ordinal)s;

-- name: renew_batches
-- What is locked is being ended. Waiting for it while others are locked here could be a deadlock.
UPDATE embed_batches b SET lease_until = now() + make_interval(secs => %(lease_s)s)
FROM (
    SELECT version_id, first_ordinal FROM embed_batches
    WHERE (version_id, first_ordinal, attempt) IN (
        SELECT * FROM unnest(%(version_ids)s::uuid[], %(first_ordinals)s::integer[], %(attempts)s::integer[]))
      AND done_at IS NULL AND lease_until IS NOT NULL
    FOR UPDATE SKIP LOCKED) mine
WHERE b.version_id = mine.version_id AND b.first_ordinal = mine.first_ordinal;

-- name: lock_claims
-- Workers that take one tenant's texts do so one after another: each sees what the others hold.
SELECT pg_advisory_xact_lock(hashtextextended('edda texts ' || %(tenant_id)s::text, 0));

-- name: texts_to_embed
-- The texts of these batches that have no vector by this model yet, and whether another worker is embedding them. One
-- look at the keys for each chunk, whatever the statistics say; nothing is sorted, which would write texts to a disk.
SELECT w.batch - 1 AS batch, uuid_send(c.content_hash) AS content_hash, c.text, c.tokens,
       c.content_hash IN (
           SELECT unnest(o.held) FROM embed_batches o
           WHERE o.tenant_id = %(tenant_id)s AND o.lease_until IS NOT NULL AND o.lease_until > now()) AS held
FROM unnest(%(version_ids)s::uuid[], %(first_ordinals)s::integer[], %(last_ordinals)s::integer[])
     WITH ORDINALITY AS w (version_id, first_ordinal, last_ordinal, batch),
LATERAL (
    SELECT c.content_hash, c.text, c.tokens, EXISTS (
        SELECT FROM embeddings e
        WHERE e.tenant_id = c.tenant_id AND e.model_id = %(model_id)s AND e.content_hash = c.content_hash) AS has_vector
    FROM chunks c
    WHERE c.version_id = w.version_id AND c.ordinal BETWEEN w.first_ordinal AND w.last_ordinal OFFSET 0) c
WHERE NOT c.has_vector;

-- name: texts_without_vector
-- Of these.
SELECT uuid_send(h.content_hash) AS content_hash FROM unnest(%(content_hashes)s::uuid[]) AS h (content_hash)
WHERE NOT EXISTS (
    SELECT FROM embeddings e
    WHERE e.tenant_id = %(tenant_id)s AND e.model_id = %(model_id)s AND e.content_hash = h.content_hash);

-- name: insert_embeddings
-- Sorted by the caller: unsorted batches of concurrent workers deadlock. May be repeated. Needs hold_vectors: a text
-- may have been deleted meanwhile, and its vector with it. Unnested in the select list, where nothing is stored between.
INSERT INTO embeddings (tenant_id, model_id, content_hash, vector)
SELECT %(tenant_id)s, %(model_id)s, v.content_hash, v.vector
FROM (
    SELECT u.content_hash, u.vector, EXISTS (
        SELECT FROM chunks c WHERE c.tenant_id = %(tenant_id)s AND c.content_hash = u.content_hash) AS is_used
    FROM (SELECT unnest(%(content_hashes)s::uuid[]) AS content_hash, unnest(%(vectors)s::halfvec[]) AS vector) u
    OFFSET 0) v
WHERE v.is_used
ON CONFLICT DO NOTHING;

-- name: reject_chunks
-- The provider refused these texts: the chunks say why.
UPDATE chunks c SET error_code = %(code)s, error_message = r.message
FROM unnest(%(content_hashes)s::uuid[], %(messages)s::text[]) AS r (content_hash, message)
WHERE c.version_id = %(version_id)s AND c.content_hash = r.content_hash;

-- name: batches_are_done
-- Also who was overtaken ends a batch that nobody has now: its vectors are written with this, and its message is as good
-- as acknowledged.
UPDATE embed_batches b SET done_at = now(), lease_until = NULL, held = '{}'
FROM (
    SELECT o.version_id, o.first_ordinal
    FROM unnest(%(version_ids)s::uuid[], %(first_ordinals)s::integer[], %(attempts)s::integer[])
        AS u (version_id, first_ordinal, attempt)
    JOIN embed_batches o USING (version_id, first_ordinal)
    WHERE o.done_at IS NULL AND (o.attempt = u.attempt OR o.lease_until IS NULL OR o.lease_until < now())
    ORDER BY o.version_id, o.first_ordinal FOR UPDATE OF o) mine
WHERE b.version_id = mine.version_id AND b.first_ordinal = mine.first_ordinal
RETURNING b.version_id, b.first_ordinal;

-- name: release_batches
UPDATE embed_batches b SET lease_until = NULL, held = '{}', releases = releases + 1
FROM (
    SELECT version_id, first_ordinal FROM embed_batches
    WHERE (version_id, first_ordinal, attempt) IN (
        SELECT * FROM unnest(%(version_ids)s::uuid[], %(first_ordinals)s::integer[], %(attempts)s::integer[]))
      AND done_at IS NULL
    ORDER BY version_id, first_ordinal FOR UPDATE) mine
WHERE b.version_id = mine.version_id AND b.first_ordinal = mine.first_ordinal;

-- name: document_of_version
SELECT document_id FROM document_versions WHERE version_id = %(version_id)s;

-- name: lock_version
SELECT version_id, document_id, status, sequencer, planned_chunks FROM document_versions
WHERE version_id = %(version_id)s FOR UPDATE;

-- name: has_open_batch
SELECT EXISTS (SELECT FROM embed_batches WHERE version_id = %(version_id)s AND done_at IS NULL) AS open;

-- name: recount
-- What is really stored: ready is proved, never counted up. One look at the key for each chunk: while statistics are
-- old, a join may compare every chunk with every vector of the tenant's.
SELECT count(*) AS stored,
       count(*) FILTER (WHERE has_vector) AS embedded,
       count(*) FILTER (WHERE NOT has_vector AND error_code IS NOT NULL) AS rejected
FROM (
    SELECT c.error_code, EXISTS (
        SELECT FROM embeddings e
        WHERE e.tenant_id = c.tenant_id AND e.model_id = %(model_id)s AND e.content_hash = c.content_hash) AS has_vector
    FROM chunks c WHERE c.version_id = %(version_id)s) counted;

-- name: finish_version
UPDATE document_versions
SET status = %(status)s, error_code = %(code)s, error_message = %(message)s, finished_at = now(), lease_until = NULL
WHERE version_id = %(version_id)s AND finished_at IS NULL;

-- name: publish_version
-- The one update that makes a new version visible, unless a newer one already is.
UPDATE documents d
SET current_version_id = %(version_id)s, updated_at = now()
FROM document_versions v
WHERE d.document_id = %(document_id)s AND v.version_id = %(version_id)s AND d.deleted_at IS NULL
  AND NOT EXISTS (
      SELECT FROM document_versions c
      WHERE c.version_id = d.current_version_id AND c.sequencer > v.sequencer);

-- name: supersede_older
-- What the version just published has replaced.
UPDATE document_versions SET superseded_at = now()
WHERE document_id = %(document_id)s AND superseded_at IS NULL
  AND sequencer < (SELECT sequencer FROM document_versions WHERE version_id = %(version_id)s);

-- name: delete_document
-- A tombstone: puts up to this sequencer do not bring the document back.
UPDATE documents d
SET deleted_at = COALESCE(deleted_at, now()), updated_at = now(), current_version_id = NULL,
    object_to_delete = %(object_to_delete)s, hold = NULL, hold_sequencer = '',
    deleted_sequencer = GREATEST(deleted_sequencer, hold_sequencer, %(sequencer)s,
        (SELECT max(sequencer) FROM document_versions v WHERE v.document_id = d.document_id))
WHERE document_id = %(document_id)s;

-- name: delete_versions
-- Chunks and batches go with their version.
DELETE FROM document_versions WHERE document_id = %(document_id)s;

-- name: delete_orphaned_embeddings
-- Vectors of texts that no chunk of this tenant holds any more. Given hashes only, so that it stays cheap.
-- By model, so that the whole key is known: without skip scans, before Postgres 18, all of a tenant's would be read.
DELETE FROM embeddings e USING embedding_models m
WHERE e.model_id = m.model_id AND e.content_hash = ANY (%(content_hashes)s)
  AND NOT EXISTS (SELECT FROM chunks c WHERE c.tenant_id = e.tenant_id AND c.content_hash = e.content_hash);

-- name: versions_of_document
SELECT version_id, parsed_chunks FROM document_versions WHERE document_id = %(document_id)s;

-- name: abandon_versions
-- Of a document that is being deleted: what is in flight ends here, and the sweep deletes the rows.
UPDATE document_versions
SET superseded_at = COALESCE(superseded_at, now()), lease_until = NULL,
    status = CASE WHEN finished_at IS NULL THEN 'failed' ELSE status END,
    error_code = CASE WHEN finished_at IS NULL THEN 'superseded' ELSE error_code END,
    error_message = CASE WHEN finished_at IS NULL THEN 'The document was deleted before this was done.'
                         ELSE error_message END,
    finished_at = COALESCE(finished_at, now())
WHERE document_id = %(document_id)s;

-- name: delete_chunks
-- Some of a version's, the last of those below an ordinal: what was deleted before is not read again. By their place in the
-- table: whatever statistics say, no more than these are read.
DELETE FROM chunks WHERE ctid = ANY (ARRAY(
    SELECT c.ctid FROM chunks c WHERE c.version_id = %(version_id)s AND c.ordinal < %(below)s
    ORDER BY c.ordinal DESC LIMIT %(limit)s))
RETURNING content_hash, ordinal;

-- name: delete_chunk_terms
-- Of the chunks that were deleted.
DELETE FROM chunk_terms WHERE version_id = %(version_id)s AND ordinal >= %(lowest)s AND ordinal < %(below)s;

-- name: delete_version
DELETE FROM document_versions WHERE version_id = %(version_id)s;
