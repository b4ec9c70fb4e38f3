-- name: insert_chunk_terms
-- All of a part in one statement: the terms of all chunks are in one array, of each those from `starts` to `ends`.
INSERT INTO chunk_terms (tenant_id, version_id, ordinal, content_hash, language, weights, terms)
SELECT %(tenant_id)s, %(version_id)s, u.ordinal, u.content_hash, u.language, u.weights,
       (%(terms)b::integer[])[u.first:u.last]
FROM unnest(%(ordinals)s::integer[], %(content_hashes)b::uuid[], %(languages)s::text[], %(weights)b::sparsevec[],
            %(starts)s::integer[], %(ends)s::integer[])
     AS u (ordinal, content_hash, language, weights, first, last);

-- name: first_hashes
-- The first chunks by hash, and where the last of these lies.
SELECT count(*) AS chunks, max(content_hash::text) AS last FROM (
    SELECT content_hash FROM chunks WHERE tenant_id = %(tenant_id)s ORDER BY content_hash LIMIT %(sample)s) c;

-- name: term_frequencies
SELECT chunks FROM term_frequencies(%(ids)b, %(most)s);

-- name: sampled_frequencies
-- How many of the first chunks by hash have each of these terms, given as vectors.
WITH sample AS MATERIALIZED (
    SELECT t.weights
    FROM (SELECT version_id, ordinal FROM chunks
          WHERE tenant_id = %(tenant_id)s ORDER BY content_hash LIMIT %(sample)s) c
    LEFT JOIN LATERAL (SELECT weights FROM chunk_terms t
                       WHERE t.version_id = c.version_id AND t.ordinal = c.ordinal OFFSET 0) t ON true)
SELECT count(*) FILTER (WHERE s.weights <#> u.unit < 0) AS chunks, count(*) AS sampled
FROM unnest(%(units)s::sparsevec[]) WITH ORDINALITY AS u (unit, position) CROSS JOIN sample s
GROUP BY u.position ORDER BY u.position;

-- name: distances
-- Of texts that were found by their words.
SELECT e.distance
FROM unnest(%(content_hashes)s::uuid[]) WITH ORDINALITY AS h (content_hash, position)
LEFT JOIN LATERAL (
    SELECT e.vector <=> %(vector)b AS distance FROM embeddings e
    WHERE e.tenant_id = %(tenant_id)s AND e.model_id = %(model_id)s AND e.content_hash = h.content_hash OFFSET 0) e ON true
ORDER BY h.position;

-- name: text_scores
-- Of chunks that were found by their vectors.
SELECT t.score
FROM unnest(%(version_ids)s::uuid[], %(ordinals)s::integer[]) WITH ORDINALITY AS k (version_id, ordinal, position)
LEFT JOIN LATERAL (
    SELECT -(t.weights <#> %(query)s::sparsevec) AS score FROM chunk_terms t
    WHERE t.version_id = k.version_id AND t.ordinal = k.ordinal OFFSET 0) t ON true
ORDER BY k.position;

-- name: hits
-- What is still visible of these.
SELECT d.document_id, c.chunk_id, c.version_id, c.ordinal, d.name, COALESCE(d.title, v.title) AS title, c.text,
       c.char_start, c.char_end, c.page, c.heading_path, c.language, d.metadata, d.tags, k.position
FROM unnest(%(document_ids)s::uuid[], %(version_ids)s::uuid[], %(ordinals)s::integer[])
     WITH ORDINALITY AS k (document_id, version_id, ordinal, position)
CROSS JOIN LATERAL (
    SELECT * FROM documents d WHERE d.document_id = k.document_id AND d.current_version_id = k.version_id OFFSET 0) d
CROSS JOIN LATERAL (SELECT title FROM document_versions v WHERE v.version_id = k.version_id OFFSET 0) v
CROSS JOIN LATERAL (
    SELECT * FROM chunks c WHERE c.version_id = k.version_id AND c.ordinal = k.ordinal OFFSET 0) c
ORDER BY k.position;

-- name: neighbours
-- Chunks before and after each of these, in order. By its order only the primary key is of use.
SELECT k.position, c.chunk_id, c.ordinal, c.text, c.char_start, c.char_end, c.page
FROM unnest(%(version_ids)s::uuid[], %(ordinals)s::integer[]) WITH ORDINALITY AS k (version_id, ordinal, position)
CROSS JOIN LATERAL (
    SELECT * FROM chunks c
    WHERE c.version_id = k.version_id AND c.ordinal BETWEEN k.ordinal - %(n)s AND k.ordinal + %(n)s
      AND c.ordinal <> k.ordinal
    ORDER BY c.ordinal) c
ORDER BY k.position, c.ordinal;

-- name: versions_without_terms
-- Visible ones whose terms are to be made anew. (Their status is said for the index.)
SELECT v.version_id
FROM document_versions v JOIN documents d ON d.document_id = v.document_id AND d.current_version_id = v.version_id
WHERE v.terms_from IS NOT NULL AND v.status IN ('ready', 'partial') LIMIT %(limit)s;

-- name: terms_to_make
SELECT d.document_id, COALESCE(d.title, v.title) AS title, v.terms_from, v.planned_chunks
FROM document_versions v JOIN documents d ON d.document_id = v.document_id AND d.current_version_id = v.version_id
WHERE v.version_id = %(version_id)s AND v.terms_from IS NOT NULL;

-- name: chunks_without_terms
-- As many as have so many characters, at least one.
SELECT ordinal, text, char_start, char_end, tokens, page, heading_path, language, content_hash
FROM (SELECT *, sum(char_end - char_start) OVER (ORDER BY ordinal ROWS UNBOUNDED PRECEDING) AS characters
      FROM chunks WHERE version_id = %(version_id)s AND ordinal >= %(terms_from)s AND ordinal < GREATEST(%(terms_from)s, 0) + %(limit)s) c
WHERE characters - (char_end - char_start) < %(characters)s ORDER BY ordinal;

-- name: terms_are_made
-- Unless the title was changed or others were faster. The document is locked.
UPDATE document_versions v SET terms_from = %(next)s
FROM documents d
WHERE v.version_id = %(version_id)s AND d.document_id = v.document_id AND d.current_version_id = v.version_id
  AND v.terms_from = %(terms_from)s AND COALESCE(d.title, v.title) IS NOT DISTINCT FROM %(title)s
RETURNING v.version_id;
