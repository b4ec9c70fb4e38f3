-- What all execution environments know together of an embedding provider's limits: layers/core/edda/budgets.py.
-- Of a provider key, not of a tenant: no tenant's data is in it, and every environment reads and writes it.

CREATE TABLE provider_budgets (
    provider_key      bytea PRIMARY KEY CHECK (length(provider_key) = 32),  -- a hash of provider, address and model
    tokens_per_second double precision CHECK (tokens_per_second > 0),       -- NULL: no limit has been met
    growth            double precision NOT NULL,                            -- of the rate, a second
    changed_at        timestamptz NOT NULL,
    next_at           timestamptz NOT NULL,                                 -- all tokens until then are handed out
    resumes_at        timestamptz NOT NULL,                                 -- before then nobody asks the provider
    refused_at        timestamptz NOT NULL,
    measured_since    timestamptz NOT NULL,
    granted           double precision NOT NULL,                            -- tokens handed out since then, and not refused
    former            double precision NOT NULL DEFAULT 0,                  -- rate at which refusals began
    asked             double precision NOT NULL DEFAULT 0,                  -- requests since then, at a lower rate
    lost              double precision NOT NULL DEFAULT 0,                  -- those of them that were refused
    sporadic          double precision NOT NULL DEFAULT 0                   -- share that is refused whatever the rate
) WITH (fillfactor = 50);  -- one row that is updated again and again, in its own page

GRANT SELECT, INSERT, UPDATE ON provider_budgets TO edda_app;
