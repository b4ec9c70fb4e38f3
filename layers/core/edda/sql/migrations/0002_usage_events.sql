-- What work costs, who is told when it ends, and how much of it one tenant may have at once.

-- Usage: a ledger per document, tenant and day (UTC) ------------------------------------------------------------
-- Written in the transactions of the work it accounts for. No reference to documents: what was paid for stays known
-- when the document is gone, until the sweep drops what is old. Rows of the tenant come last in every transaction, after those of documents, so that
-- nobody waits in a circle.

ALTER TABLE embedding_models
    ADD price_per_million_tokens numeric NOT NULL DEFAULT 0 CHECK (price_per_million_tokens >= 0);

CREATE TABLE document_usage (
    tenant_id           uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    document_id         uuid NOT NULL,
    day                 date NOT NULL,
    bytes               bigint NOT NULL DEFAULT 0,     -- of files that were cut into chunks
    chunks              bigint NOT NULL DEFAULT 0,
    tokens_planned      bigint NOT NULL DEFAULT 0,     -- of texts without a vector when the file was chunked: the minimum
    tokens              bigint NOT NULL DEFAULT 0,     -- of texts whose vectors the provider returned: paid
    tokens_unsettled    bigint NOT NULL DEFAULT 0,     -- leased to a worker that has not said what became of them
    provider_calls      bigint NOT NULL DEFAULT 0,
    provider_calls_lost bigint NOT NULL DEFAULT 0,     -- of these, without an answer that could be used
    cost_planned        numeric NOT NULL DEFAULT 0,
    cost                numeric NOT NULL DEFAULT 0,    -- of `tokens`, at the price of then
    PRIMARY KEY (tenant_id, document_id, day)
);
CREATE INDEX document_usage_by_day ON document_usage (tenant_id, day);

CREATE TABLE tenant_usage (
    tenant_id           uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    day                 date NOT NULL,
    bytes               bigint NOT NULL DEFAULT 0,
    chunks              bigint NOT NULL DEFAULT 0,
    tokens_planned      bigint NOT NULL DEFAULT 0,
    tokens              bigint NOT NULL DEFAULT 0,
    tokens_unsettled    bigint NOT NULL DEFAULT 0,
    provider_calls      bigint NOT NULL DEFAULT 0,
    provider_calls_lost bigint NOT NULL DEFAULT 0,
    cost_planned        numeric NOT NULL DEFAULT 0,
    cost                numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, day)
);

CREATE TABLE usage_caps (
    tenant_id        uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    tokens_per_day   bigint CHECK (tokens_per_day >= 0),
    tokens_per_month bigint CHECK (tokens_per_month >= 0),
    cost_per_day     numeric CHECK (cost_per_day >= 0),
    cost_per_month   numeric CHECK (cost_per_month >= 0),
    updated_at       timestamptz NOT NULL DEFAULT now()
);

-- Events: every end of a document version, and of a document -----------------------------------------------------
-- Written by triggers: whatever code ends a version, now or later, the event is in the same transaction.

CREATE TABLE webhooks (
    tenant_id  uuid PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    url        text NOT NULL CHECK (length(url) <= 2048),
    secret     text NOT NULL,                          -- signs, so it cannot be a hash
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE document_event_counters (
    tenant_id   uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    document_id uuid NOT NULL,
    sequence    bigint NOT NULL,                       -- of the latest event: outlives the events, not the tombstone
    PRIMARY KEY (tenant_id, document_id)
);

CREATE TABLE document_events (
    event_id    uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    document_id uuid NOT NULL,
    sequence    bigint NOT NULL,                       -- 1, 2, 3, ... of this document
    type        text NOT NULL,
    body        jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (document_id, sequence)
);
CREATE INDEX document_events_by_age ON document_events (tenant_id, created_at);

-- One event on its way to one receiver. A claim moves next_attempt_at on: lease and back-off in one.
CREATE TABLE event_deliveries (
    tenant_id       uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    event_id        uuid NOT NULL REFERENCES document_events ON DELETE CASCADE,
    channel         text NOT NULL CHECK (channel IN ('event_bus', 'webhook')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    last_error      text,
    delivered_at    timestamptz,
    abandoned_at    timestamptz,
    PRIMARY KEY (event_id, channel)
);
CREATE INDEX event_deliveries_open ON event_deliveries (tenant_id, channel, next_attempt_at)
    WHERE delivered_at IS NULL AND abandoned_at IS NULL;
CREATE INDEX event_deliveries_in_trouble ON event_deliveries (tenant_id, channel)
    WHERE last_error IS NOT NULL AND delivered_at IS NULL AND abandoned_at IS NULL;

CREATE FUNCTION write_event(for_tenant uuid, for_document uuid, event_type text, data jsonb) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    id uuid := gen_random_uuid();
    number bigint;
BEGIN
    INSERT INTO document_event_counters AS c (tenant_id, document_id, sequence) VALUES (for_tenant, for_document, 1)
    ON CONFLICT (tenant_id, document_id) DO UPDATE SET sequence = c.sequence + 1
    RETURNING c.sequence INTO number;
    INSERT INTO document_events (event_id, tenant_id, document_id, sequence, type, body)
    SELECT id, for_tenant, for_document, number, event_type,
           jsonb_build_object(
               'id', id, 'type', event_type, 'sequence', number,
               'timestamp', to_char(now() AT TIME ZONE 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               'data', jsonb_build_object('tenant_id', for_tenant, 'document_id', for_document,
                                          'object_key', d.object_key, 'name', d.name) || data)
    FROM documents d WHERE d.document_id = for_document;
    INSERT INTO event_deliveries (tenant_id, event_id, channel)
    SELECT for_tenant, id, 'event_bus' UNION ALL SELECT w.tenant_id, id, 'webhook' FROM webhooks w
    WHERE w.tenant_id = for_tenant;
END $$;

CREATE FUNCTION version_has_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM write_event(NEW.tenant_id, NEW.document_id, 'document.' || NEW.status, jsonb_build_object(
        'version_id', NEW.version_id, 's3_version_id', NEW.s3_version_id, 'status', NEW.status,
        'error', CASE WHEN NEW.error_code IS NOT NULL
                      THEN jsonb_build_object('code', NEW.error_code, 'message', NEW.error_message) END,
        'size_bytes', NEW.size_bytes, 'chunks', NEW.planned_chunks));
    RETURN NULL;
END $$;

CREATE TRIGGER version_has_ended AFTER UPDATE ON document_versions
    FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION version_has_ended();
CREATE TRIGGER version_is_born_ended AFTER INSERT ON document_versions
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION version_has_ended();

CREATE FUNCTION document_has_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Not of a tombstone for an object that nobody here has ever seen.
    IF NEW.upload_expires_at IS NOT NULL
        OR EXISTS (SELECT FROM document_versions v WHERE v.document_id = NEW.document_id) THEN
        PERFORM write_event(NEW.tenant_id, NEW.document_id, 'document.deleted', '{"status": "deleted"}');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER document_has_ended AFTER UPDATE ON documents
    FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL)
    EXECUTE FUNCTION document_has_ended();

-- Fair lanes: how many versions of a tenant are being parsed is asked for every event of a bucket ------------------

CREATE INDEX document_versions_leased ON document_versions (tenant_id, lease_until) WHERE lease_until IS NOT NULL;

-- Row-level security ------------------------------------------------------------------------------------------

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['document_usage', 'tenant_usage', 'usage_caps', 'webhooks', 'document_event_counters',
                                'document_events', 'event_deliveries'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_rows ON %I USING (tenant_id = (SELECT app_tenant()))', name);
    END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE
    ON document_usage, tenant_usage, document_event_counters, document_events, event_deliveries TO edda_app;
GRANT SELECT ON usage_caps, webhooks TO edda_app;
