-- name: index_ranges
-- The HNSW indexes of a model and the segments they cover, by the catalog: what it does not call valid is not used.
SELECT c.relname AS name, range[1]::integer AS first, range[2]::integer AS until, i.indisvalid AS valid,
       greatest(c.reltuples, 0)::bigint AS rows
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
CROSS JOIN LATERAL regexp_match(c.relname, '^embeddings_hnsw_' || %(model_id)s::text || '_(\d+)_(\d+)$') AS range
WHERE i.indrelid = 'embeddings'::regclass AND range IS NOT NULL
ORDER BY first, until DESC;

-- name: lock_indexing
-- One indexer at a time. Never waited for: who waits has a snapshot, and CREATE INDEX CONCURRENTLY waits for that.
-- Nor before the first migration.
SELECT CASE WHEN to_regclass('embedding_numbers') IS NOT NULL
            THEN pg_try_advisory_lock(hashtextextended('edda indexing', 0)) END AS locked;

-- name: unlock_indexing
SELECT pg_advisory_unlock(hashtextextended('edda indexing', 0));

-- name: models_to_index
SELECT model_id, name, dimensions FROM embedding_models WHERE state <> 'retiring' ORDER BY model_id;

-- name: numbers
-- How many have been given out. Segments that are over grow only by transactions that are under way.
SELECT last_value AS numbers FROM embedding_numbers;

-- name: rows_of_tenant
-- How many vectors a tenant has in each of these intervals, counted up to a limit. No segment is below 0: the index says so.
SELECT (SELECT count(*) FROM (
            SELECT FROM embeddings e
            WHERE e.tenant_id = %(tenant_id)s AND e.model_id = %(model_id)s
              AND e.segment >= 0 AND e.segment >= i.first AND e.segment < i.until
            LIMIT i.most + 1) AS counted) AS rows
FROM unnest(%(first)s::integer[], %(until)s::integer[], %(most)s::integer[])
    WITH ORDINALITY AS i (first, until, most, position)
ORDER BY i.position;
