-- name: read_budget
-- To change it, FOR UPDATE.
SELECT tokens_per_second, growth,
       extract(epoch FROM changed_at)::float8 AS changed_at_s, extract(epoch FROM next_at)::float8 AS next_at_s,
       extract(epoch FROM resumes_at)::float8 AS resumes_at_s, extract(epoch FROM refused_at)::float8 AS refused_at_s,
       extract(epoch FROM measured_since)::float8 AS measured_since_s, granted, former, asked, lost, sporadic,
       extract(epoch FROM clock_timestamp())::float8 AS now_s
FROM provider_budgets WHERE provider_key = %(provider_key)s;

-- name: be_brief
-- Everybody waits for this row: so its transactions wait neither for the disk (a commit that is lost costs a refusal) nor
-- for a worker that is frozen in the middle.
SELECT set_config('synchronous_commit', 'off', true), set_config('lock_timeout', %(lock_timeout)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, true);

-- name: make_budget
INSERT INTO provider_budgets (provider_key, growth, changed_at, next_at, resumes_at, refused_at, measured_since, granted)
VALUES (%(provider_key)s, %(growth)s, to_timestamp(0), to_timestamp(0), to_timestamp(0), to_timestamp(0),
        to_timestamp(0), 0)
ON CONFLICT (provider_key) DO NOTHING;

-- name: write_budget
UPDATE provider_budgets
SET tokens_per_second = %(rate)s, growth = %(growth)s, changed_at = to_timestamp(%(changed_at_s)s),
    next_at = to_timestamp(%(next_at_s)s), resumes_at = to_timestamp(%(resumes_at_s)s),
    refused_at = to_timestamp(%(refused_at_s)s), measured_since = to_timestamp(%(measured_since_s)s),
    granted = %(granted)s, former = %(former)s, asked = %(asked)s, lost = %(lost)s, sporadic = %(sporadic)s
WHERE provider_key = %(provider_key)s;
