-- The data model: docs/architecture.md explains it. Everything a tenant owns carries tenant_id and is under
-- row-level security, forced, so that even the tables' owner sees nothing without a tenant.

CREATE EXTENSION IF NOT EXISTS vector;

-- Who may do what ---------------------------------------------------------------------------------------------

CREATE TABLE tenants (
    tenant_id  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug       text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    prefix     text PRIMARY KEY,                       -- shown in the clear, to tell keys apart
    key_sha256 bytea NOT NULL CHECK (length(key_sha256) = 32),
    tenant_id  uuid NOT NULL REFERENCES tenants,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- What is known -----------------------------------------------------------------------------------------------

CREATE TABLE documents (
    document_id        uuid PRIMARY KEY,
    tenant_id          uuid NOT NULL REFERENCES tenants,
    object_key         text COLLATE "C" NOT NULL,      -- in S3's own order, so that a listing can be compared with it
    name               text NOT NULL,
    title              text,
    tags               text[] NOT NULL DEFAULT '{}',
    metadata           jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    metadata_problem   text,                           -- why the metadata file beside the object was not taken
    metadata_version   text NOT NULL DEFAULT '',       -- S3's version of the metadata file last read; '': there was none
    current_version_id uuid,                           -- the version that search sees
    upload_expires_at  timestamptz,                    -- a presigned upload not seen by then will not come
    idempotency_key    text,
    request_sha256     bytea,                          -- what the idempotency key was first used for
    deleted_at         timestamptz,                    -- tombstone
    deleted_sequencer  text COLLATE "C" NOT NULL DEFAULT '',
    object_to_delete   boolean NOT NULL DEFAULT false, -- deleted over HTTPS, and its object may still be there
    hold               text CHECK (hold IN ('held', 'kept')),  -- its object is gone: held by the brake, kept by an operator
    hold_sequencer     text COLLATE "C" NOT NULL DEFAULT '',
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, object_key),
    UNIQUE (tenant_id, idempotency_key),
    UNIQUE (tenant_id, document_id)                    -- what foreign keys that carry the tenant point at
);
CREATE INDEX documents_newest ON documents (tenant_id, created_at DESC, document_id DESC) WHERE deleted_at IS NULL;
CREATE INDEX documents_current ON documents (current_version_id);  -- deleting a version asks who points at it
CREATE INDEX documents_deleted ON documents (tenant_id, deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX documents_object_to_delete ON documents (tenant_id) WHERE object_to_delete;
CREATE INDEX documents_held ON documents (tenant_id) WHERE hold = 'held';

CREATE TABLE document_versions (
    version_id     uuid PRIMARY KEY,
    tenant_id      uuid NOT NULL REFERENCES tenants,
    document_id    uuid NOT NULL,
    s3_version_id  text NOT NULL,                      -- '' in an unversioned bucket
    sequencer      text COLLATE "C" NOT NULL,          -- padded: text order is the order of what happened
    modified_at    timestamptz NOT NULL,               -- S3's LastModified
    status         text NOT NULL DEFAULT 'queued'
                   CHECK (status IN ('queued', 'parsing', 'embedding', 'ready', 'partial', 'failed')),
    error_code     text,
    error_message  text,
    size_bytes     bigint,
    content_sha256 bytea,
    media_type     text,
    language       text,
    title          text,
    characters     bigint,
    planned_chunks integer,
    attempt        integer NOT NULL DEFAULT 0,         -- fences the writes of a worker whose lease was taken over
    releases       integer NOT NULL DEFAULT 0,         -- attempts that ended by giving the lease back in good order
    lease_until    timestamptz,
    rung_at        timestamptz,                        -- the sweep has sent a message; a worker that takes it clears this
    created_at     timestamptz NOT NULL DEFAULT now(),
    chunked_at     timestamptz,
    finished_at    timestamptz,
    superseded_at  timestamptz,                        -- a newer one has taken its place; the sweep deletes the row
    FOREIGN KEY (tenant_id, document_id) REFERENCES documents (tenant_id, document_id) ON DELETE CASCADE,
    UNIQUE (document_id, sequencer),                   -- one thing at a time: the newest is never in doubt
    UNIQUE (tenant_id, version_id),
    CHECK ((status = 'failed') = (error_code IS NOT NULL)),
    CHECK ((status IN ('ready', 'partial', 'failed')) = (finished_at IS NOT NULL))
);
CREATE INDEX document_versions_open ON document_versions (tenant_id, created_at) WHERE finished_at IS NULL;
CREATE INDEX document_versions_superseded ON document_versions (tenant_id, superseded_at) WHERE superseded_at IS NOT NULL;

ALTER TABLE documents ADD CONSTRAINT documents_current_version
    FOREIGN KEY (tenant_id, current_version_id) REFERENCES document_versions (tenant_id, version_id);

CREATE TABLE chunks (
    tenant_id     uuid NOT NULL,
    version_id    uuid NOT NULL,
    ordinal       integer NOT NULL,
    chunk_id      uuid NOT NULL,
    content_hash  uuid NOT NULL,                       -- joins embeddings
    text          text NOT NULL,
    tokens        integer NOT NULL,
    char_start    integer NOT NULL,
    char_end      integer NOT NULL,
    page          integer,
    heading_path  text[] NOT NULL,
    language      text,
    error_code    text,                                -- the embedding provider refused this text
    error_message text,
    PRIMARY KEY (version_id, ordinal),
    FOREIGN KEY (tenant_id, version_id) REFERENCES document_versions (tenant_id, version_id) ON DELETE CASCADE
);
CREATE INDEX chunks_by_content ON chunks (tenant_id, content_hash);

CREATE TABLE embedding_models (
    model_id   integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name       text NOT NULL,
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),   -- halfvec's limit under HNSW
    state      text NOT NULL DEFAULT 'active' CHECK (state IN ('shadow', 'active', 'retiring')),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, dimensions)
);

-- One vector per distinct text, tenant and model. A chunk's vector is found by its content hash: a text that is
-- there already is never paid for again, and vectors are inserted, never updated. HNSW indexes are built afterwards, by
-- the indexer: 0004_index_ranges.sql.
CREATE TABLE embeddings (
    tenant_id    uuid NOT NULL,
    model_id     integer NOT NULL,                     -- of embedding_models; a reference would be checked row by row
    content_hash uuid NOT NULL,
    vector       halfvec NOT NULL,
    PRIMARY KEY (tenant_id, model_id, content_hash)
);
-- In its row, not beside the table: it is written once and read whole. 4,000 dimensions still fit into a page.
ALTER TABLE embeddings ALTER vector SET STORAGE PLAIN;

-- What is to do: one row is one message on the embed queue. Outbox (sent_at) and progress (done_at) in one.
CREATE TABLE embed_batches (
    tenant_id     uuid NOT NULL,
    version_id    uuid NOT NULL,
    first_ordinal integer NOT NULL,
    last_ordinal  integer NOT NULL,
    sent_at       timestamptz,
    done_at       timestamptz,
    attempt       integer NOT NULL DEFAULT 0,
    releases      integer NOT NULL DEFAULT 0,
    lease_until   timestamptz,
    held          uuid[] NOT NULL DEFAULT '{}',        -- the texts that whoever has the lease is embedding
    PRIMARY KEY (version_id, first_ordinal),
    FOREIGN KEY (tenant_id, version_id) REFERENCES document_versions (tenant_id, version_id) ON DELETE CASCADE
);
CREATE INDEX embed_batches_open ON embed_batches (tenant_id, version_id) WHERE done_at IS NULL;
CREATE INDEX embed_batches_leased ON embed_batches (tenant_id) WHERE lease_until IS NOT NULL;

-- Upkeep ------------------------------------------------------------------------------------------------------

-- How far the sweep has compared a tenant's folder in the bucket with its documents.
CREATE TABLE bucket_walks (
    tenant_id uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    after_key text COLLATE "C" NOT NULL DEFAULT '',    -- everything up to this key has been compared
    began_at  timestamptz NOT NULL,
    ended_at  timestamptz
);

-- What was deleted by way of the bucket lately. Over its limit the brake is on until an operator says what to do.
CREATE TABLE delete_brakes (
    tenant_id  uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    began_at   timestamptz NOT NULL,
    documents  bigint,                                 -- at the window's beginning; NULL: confirmed, no limit
    deleted    bigint NOT NULL,
    tripped_at timestamptz
);

-- Row-level security ------------------------------------------------------------------------------------------

CREATE FUNCTION app_tenant() RETURNS uuid LANGUAGE sql STABLE
    -- After a transaction the setting is '' rather than NULL: both mean "nobody".
    RETURN NULLIF(current_setting('app.tenant_id', true), '')::uuid;

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['documents', 'document_versions', 'chunks', 'embeddings', 'embed_batches',
                                'bucket_walks', 'delete_brakes'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        -- As a subquery it is asked once a statement, not once a row.
        EXECUTE format('CREATE POLICY own_rows ON %I USING (tenant_id = (SELECT app_tenant()))', name);
    END LOOP;
END $$;

-- The application may look a key or a slug up, but not read the tables of keys and tenants. pg_temp is named last: left
-- out, it would come first, and a temporary table called api_keys would decide who is who.
CREATE FUNCTION authenticate(given_prefix text, given_sha256 bytea)
    RETURNS TABLE (tenant_id uuid, slug text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT t.tenant_id, t.slug
    FROM api_keys k JOIN tenants t USING (tenant_id)
    WHERE k.prefix = given_prefix AND k.key_sha256 = given_sha256 AND k.revoked_at IS NULL
$$;

CREATE FUNCTION tenant_of_slug(given_slug text)
    RETURNS TABLE (tenant_id uuid, slug text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT t.tenant_id, t.slug FROM tenants t WHERE t.slug = given_slug
$$;

CREATE FUNCTION all_tenants()
    RETURNS TABLE (tenant_id uuid, slug text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT t.tenant_id, t.slug FROM tenants t ORDER BY t.tenant_id
$$;

-- The application's role: made with its password by the migrate step, owns nothing.
GRANT USAGE ON SCHEMA public TO edda_app;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON documents, document_versions, chunks, embeddings, embed_batches, bucket_walks, delete_brakes TO edda_app;
GRANT SELECT ON embedding_models TO edda_app;
REVOKE EXECUTE ON FUNCTION authenticate(text, bytea), tenant_of_slug(text), all_tenants() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION authenticate(text, bytea), tenant_of_slug(text), all_tenants(), app_tenant() TO edda_app;
