-- Search by words: docs/architecture.md, "Search".

-- One row a chunk, written and deleted with it. A term is a number (terms.py), the tenant's own: the same word of another
-- tenant is another one. `weights` is BM25's part of the chunk; a query is a vector of the other part, and the score is
-- their inner product. Content hash and language are the chunk's: search need not read the texts.
CREATE TABLE chunk_terms (
    tenant_id    uuid NOT NULL,
    version_id   uuid NOT NULL,
    ordinal      integer NOT NULL,
    content_hash uuid NOT NULL,
    language     text,
    weights      sparsevec NOT NULL,
    terms        integer[] NOT NULL,                   -- those of `weights`, for the index
    PRIMARY KEY (version_id, ordinal),
    FOREIGN KEY (tenant_id, version_id) REFERENCES document_versions (tenant_id, version_id) ON DELETE CASCADE
) WITH (toast_tuple_target = 8160);
-- In the row as long as it fits into a page, and never compressed: a search reads thousands.
ALTER TABLE chunk_terms ALTER weights SET STORAGE EXTERNAL, ALTER terms SET STORAGE EXTERNAL;

-- Which chunks have a term. What is new waits in a list until there is this much (kB) of it: one by one, rows would take
-- three times as long to write. Every look at the index reads the list, so it is short.
CREATE INDEX chunk_terms_by_term ON chunk_terms USING gin (terms) WITH (gin_pending_list_limit = 1024);

-- Not forced, unlike elsewhere: under row-level security the index cannot be used, for its operators may tell of rows that
-- are not the caller's. The functions below use it as the table's owner and look at the tenant themselves.
ALTER TABLE chunk_terms ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON chunk_terms USING (tenant_id = (SELECT app_tenant()));
GRANT SELECT, INSERT, UPDATE, DELETE ON chunk_terms TO edda_app;

-- How many of the tenant's chunks have each of these terms, counted up to `most`.
CREATE FUNCTION term_frequencies(ids integer[], most bigint) RETURNS TABLE (chunks bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    SET enable_bitmapscan = on SET enable_seqscan = off SET enable_indexscan = off
AS $$
    SELECT (SELECT count(*) FROM (
                SELECT FROM chunk_terms t
                WHERE t.terms @> ARRAY[i.id] AND t.tenant_id = (SELECT app_tenant()) LIMIT most) c)
    FROM unnest(ids) WITH ORDINALITY AS i (id, position) ORDER BY i.position
$$;

-- The tenant's chunks that have one of the terms `any_of`, or all of one of the sets `all_of`, with their score.
CREATE FUNCTION chunks_with_terms(any_of integer[], all_of text[], query sparsevec)
    RETURNS TABLE (version_id uuid, ordinal integer, content_hash uuid, language text, score double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    SET enable_bitmapscan = on SET enable_seqscan = off SET enable_indexscan = off
AS $$
BEGIN
    RETURN QUERY EXECUTE
        'SELECT t.version_id, t.ordinal, t.content_hash, t.language, -(t.weights <#> $2)
         FROM chunk_terms t WHERE (t.terms && $1'
        || (SELECT COALESCE(string_agg(format(' OR t.terms @> %L::integer[]', s.ids::integer[]), ''), '')
            FROM unnest(all_of) AS s (ids))
        || ') AND t.tenant_id = (SELECT app_tenant())'
        USING any_of, query;
END
$$;
REVOKE EXECUTE ON FUNCTION term_frequencies(integer[], bigint), chunks_with_terms(integer[], text[], sparsevec) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION term_frequencies(integer[], bigint), chunks_with_terms(integer[], text[], sparsevec) TO edda_app;
