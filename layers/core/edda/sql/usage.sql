-- name: charge_documents
-- Sorted: transactions that charge the same documents never wait in a circle.
INSERT INTO document_usage AS u (tenant_id, document_id, day, bytes, chunks, tokens_planned, tokens, tokens_unsettled,
                                 provider_calls, provider_calls_lost, cost_planned, cost)
SELECT %(tenant_id)s, c.document_id, c.day, c.bytes, c.chunks, c.tokens_planned, c.tokens, c.tokens_unsettled,
       c.provider_calls, c.provider_calls_lost, c.tokens_planned * m.price_per_million_tokens / 1000000,
       c.tokens * m.price_per_million_tokens / 1000000
FROM unnest(%(document_ids)s::uuid[], %(days)s::date[], %(bytes)s::bigint[], %(chunks)s::bigint[],
            %(tokens_planned)s::bigint[], %(tokens)s::bigint[], %(tokens_unsettled)s::bigint[],
            %(provider_calls)s::bigint[], %(provider_calls_lost)s::bigint[])
     AS c (document_id, day, bytes, chunks, tokens_planned, tokens, tokens_unsettled, provider_calls,
           provider_calls_lost),
     embedding_models m
WHERE m.model_id = %(model_id)s
ORDER BY c.document_id, c.day
ON CONFLICT (tenant_id, document_id, day) DO UPDATE
SET bytes = u.bytes + EXCLUDED.bytes, chunks = u.chunks + EXCLUDED.chunks,
    tokens_planned = u.tokens_planned + EXCLUDED.tokens_planned, tokens = u.tokens + EXCLUDED.tokens,
    tokens_unsettled = u.tokens_unsettled + EXCLUDED.tokens_unsettled,
    provider_calls = u.provider_calls + EXCLUDED.provider_calls,
    provider_calls_lost = u.provider_calls_lost + EXCLUDED.provider_calls_lost,
    cost_planned = u.cost_planned + EXCLUDED.cost_planned, cost = u.cost + EXCLUDED.cost;

-- name: charge_tenant
-- The same, summed up by day. This row is what transactions of one tenant wait for, so it is their last.
INSERT INTO tenant_usage AS u (tenant_id, day, bytes, chunks, tokens_planned, tokens, tokens_unsettled,
                               provider_calls, provider_calls_lost, cost_planned, cost)
SELECT %(tenant_id)s, c.day, sum(c.bytes), sum(c.chunks), sum(c.tokens_planned), sum(c.tokens),
       sum(c.tokens_unsettled), sum(c.provider_calls), sum(c.provider_calls_lost),
       sum(c.tokens_planned * m.price_per_million_tokens / 1000000),
       sum(c.tokens * m.price_per_million_tokens / 1000000)
FROM unnest(%(days)s::date[], %(bytes)s::bigint[], %(chunks)s::bigint[], %(tokens_planned)s::bigint[],
            %(tokens)s::bigint[], %(tokens_unsettled)s::bigint[], %(provider_calls)s::bigint[],
            %(provider_calls_lost)s::bigint[])
     AS c (day, bytes, chunks, tokens_planned, tokens, tokens_unsettled, provider_calls, provider_calls_lost),
     embedding_models m
WHERE m.model_id = %(model_id)s
GROUP BY c.day
ORDER BY c.day
ON CONFLICT (tenant_id, day) DO UPDATE
SET bytes = u.bytes + EXCLUDED.bytes, chunks = u.chunks + EXCLUDED.chunks,
    tokens_planned = u.tokens_planned + EXCLUDED.tokens_planned, tokens = u.tokens + EXCLUDED.tokens,
    tokens_unsettled = u.tokens_unsettled + EXCLUDED.tokens_unsettled,
    provider_calls = u.provider_calls + EXCLUDED.provider_calls,
    provider_calls_lost = u.provider_calls_lost + EXCLUDED.provider_calls_lost,
    cost_planned = u.cost_planned + EXCLUDED.cost_planned, cost = u.cost + EXCLUDED.cost;

-- name: day_of_usage
SELECT (now() AT TIME ZONE 'utc')::date AS day;

-- name: caps
-- Each cap of the tenant, what counts towards it (what was planned, or paid if that is more), and when that ends.
WITH today AS (
    SELECT (now() AT TIME ZONE 'utc')::date AS day, date_trunc('month', now() AT TIME ZONE 'utc')::date AS month
), used AS (
    SELECT COALESCE(sum(GREATEST(u.tokens_planned, u.tokens)) FILTER (WHERE u.day = today.day), 0) AS tokens_today,
           COALESCE(sum(GREATEST(u.tokens_planned, u.tokens)), 0) AS tokens_this_month,
           COALESCE(sum(GREATEST(u.cost_planned, u.cost)) FILTER (WHERE u.day = today.day), 0) AS cost_today,
           COALESCE(sum(GREATEST(u.cost_planned, u.cost)), 0) AS cost_this_month
    FROM today LEFT JOIN tenant_usage u ON u.tenant_id = %(tenant_id)s AND u.day >= today.month
)
SELECT cap.name, cap.allowed, cap.used, cap.resets_on,
       extract(epoch FROM cap.resets_on::timestamp - now() AT TIME ZONE 'utc')::float8 AS resets_in_s
FROM usage_caps c, today, used, LATERAL (VALUES
    ('tokens_per_day', c.tokens_per_day::numeric, used.tokens_today, today.day + 1),
    ('cost_per_day', c.cost_per_day, used.cost_today, today.day + 1),
    ('tokens_per_month', c.tokens_per_month::numeric, used.tokens_this_month, (today.month + interval '1 month')::date),
    ('cost_per_month', c.cost_per_month, used.cost_this_month, (today.month + interval '1 month')::date)
) AS cap (name, allowed, used, resets_on)
WHERE c.tenant_id = %(tenant_id)s AND cap.allowed IS NOT NULL
ORDER BY cap.resets_on DESC, cap.name;

-- name: usage_by_day
SELECT day, bytes, chunks, tokens_planned, tokens, tokens_unsettled, provider_calls, provider_calls_lost, cost
FROM tenant_usage
WHERE tenant_id = %(tenant_id)s AND day BETWEEN %(first_day)s AND %(last_day)s
ORDER BY day;

-- name: document_usage_by_day
SELECT day, bytes, chunks, tokens_planned, tokens, tokens_unsettled, provider_calls, provider_calls_lost, cost
FROM document_usage
WHERE tenant_id = %(tenant_id)s AND document_id = %(document_id)s AND day BETWEEN %(first_day)s AND %(last_day)s
ORDER BY day;

-- name: usage_by_document
-- Deleted documents too: they were paid for.
SELECT u.document_id, d.name, d.document_id IS NULL OR d.deleted_at IS NOT NULL AS deleted, sum(u.bytes)::bigint AS bytes,
       sum(u.chunks)::bigint AS chunks, sum(u.tokens_planned)::bigint AS tokens_planned,
       sum(u.tokens)::bigint AS tokens, sum(u.tokens_unsettled)::bigint AS tokens_unsettled,
       sum(u.provider_calls)::bigint AS provider_calls, sum(u.provider_calls_lost)::bigint AS provider_calls_lost,
       sum(u.cost) AS cost
FROM document_usage u LEFT JOIN documents d USING (tenant_id, document_id)
WHERE u.tenant_id = %(tenant_id)s AND u.day BETWEEN %(first_day)s AND %(last_day)s
  AND (%(after)s::uuid IS NULL OR u.document_id > %(after)s)
GROUP BY u.document_id, d.document_id
ORDER BY u.document_id LIMIT %(limit)s;

-- name: set_caps
INSERT INTO usage_caps (tenant_id, tokens_per_day, tokens_per_month, cost_per_day, cost_per_month)
VALUES (%(tenant_id)s, %(tokens_per_day)s, %(tokens_per_month)s, %(cost_per_day)s, %(cost_per_month)s)
ON CONFLICT (tenant_id) DO UPDATE
SET tokens_per_day = EXCLUDED.tokens_per_day, tokens_per_month = EXCLUDED.tokens_per_month,
    cost_per_day = EXCLUDED.cost_per_day, cost_per_month = EXCLUDED.cost_per_month, updated_at = now();
