-- name: claim_deliveries
-- Whatever becomes of this attempt, the next one is due later: back-off and lease in one, doubling, with jitter.
-- Of each channel the oldest: a receiver with a backlog does not keep the other waiting.
-- Right after a commit only first attempts are made, and none to a receiver that has trouble: that is the sweep's.
WITH due AS (
    SELECT o.event_id, o.channel
    FROM unnest(%(channels)s::text[]) AS c (channel), LATERAL (
        SELECT * FROM event_deliveries o
        WHERE o.tenant_id = %(tenant_id)s AND o.channel = c.channel
          AND o.delivered_at IS NULL AND o.abandoned_at IS NULL AND o.next_attempt_at <= now()
          AND (NOT %(only_first)s OR o.attempts = 0)
        ORDER BY o.next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) o
    WHERE NOT %(only_first)s OR NOT EXISTS (
        SELECT FROM event_deliveries f
        WHERE f.tenant_id = %(tenant_id)s AND f.channel = c.channel AND f.last_error IS NOT NULL
          AND f.delivered_at IS NULL AND f.abandoned_at IS NULL)
)
UPDATE event_deliveries d
SET attempts = d.attempts + 1,
    next_attempt_at = now() + make_interval(
        secs => LEAST(%(longest_wait_s)s, %(first_wait_s)s * 2 ^ LEAST(d.attempts, 30)) * (1 + random()) / 2)
FROM document_events e
LEFT JOIN webhooks w USING (tenant_id)
WHERE e.event_id = d.event_id AND (d.event_id, d.channel) IN (SELECT event_id, channel FROM due)
RETURNING d.event_id, d.channel, e.type, e.body, e.created_at, e.sequence, w.url, w.secret;

-- name: deliveries_are_done
UPDATE event_deliveries SET delivered_at = now(), last_error = NULL
WHERE tenant_id = %(tenant_id)s AND delivered_at IS NULL
  AND (event_id, channel) IN (SELECT * FROM unnest(%(event_ids)s::uuid[], %(channels)s::text[]));

-- name: delivery_failed
-- Abandoned when its time is up before it would be tried again, or when trying again is of no use.
UPDATE event_deliveries d
SET last_error = %(error)s,
    abandoned_at = CASE WHEN %(is_final)s OR d.next_attempt_at > e.created_at + make_interval(secs => %(give_up_s)s)
                        THEN now() END
FROM document_events e
WHERE e.event_id = d.event_id AND d.event_id = %(event_id)s AND d.channel = %(channel)s
  AND d.delivered_at IS NULL AND d.abandoned_at IS NULL
RETURNING d.abandoned_at IS NOT NULL AS abandoned;

-- name: forget_events
-- Old ones, wherever they have got to: their deliveries go with them.
DELETE FROM document_events WHERE event_id IN (
    SELECT event_id FROM document_events
    WHERE tenant_id = %(tenant_id)s AND created_at < now() - make_interval(secs => %(keep_s)s)
    ORDER BY created_at LIMIT %(limit)s)
RETURNING event_id;

-- name: drop_deliveries
-- To channels that this deployment does not have.
DELETE FROM event_deliveries
WHERE tenant_id = %(tenant_id)s AND NOT channel = ANY (%(channels)s)
  AND delivered_at IS NULL AND abandoned_at IS NULL;

-- name: set_webhook
INSERT INTO webhooks (tenant_id, url, secret) VALUES (%(tenant_id)s, %(url)s, %(secret)s)
ON CONFLICT (tenant_id) DO UPDATE SET url = EXCLUDED.url, secret = EXCLUDED.secret;

-- name: remove_webhook
DELETE FROM webhooks WHERE tenant_id = %(tenant_id)s;
