"""The sweep function on its schedule's event, cold and warm."""

import json

import pytest
from edda.models import Tenant
from edda.signing import new_secret

from tests.aws import client
from tests.database.world import LineParser
from tests.handlers.environment import (
    ColdStart,
    Surroundings,
    call,
    event,
    version_ids,
)

pytestmark = pytest.mark.usefixtures("owner_of_acme")


def test_what_is_stuck_is_rung_for_once(cold_start: ColdStart, surroundings: Surroundings, parser: LineParser) -> None:
    surroundings.put("acme/handbook/welcome aboard.md", "one")
    parser.hangs = True
    with pytest.raises(Exception, match="time was up"):
        call(cold_start("chunk"), event("s3-put.json"), seconds=3.3)
    surroundings.rows("UPDATE document_versions SET created_at = created_at - interval '1 hour'")
    sweep = cold_start("sweep")
    assert call(sweep, event("sweep.json"))["versions_rung"] == 1
    assert call(sweep, event("sweep.json"))["versions_rung"] == 0
    (message,) = surroundings.taken(surroundings.ingest_queue)
    assert json.loads(message["body"])["version_id"] == str(version_ids(surroundings)[0])


def test_what_events_did_not_tell_is_found_in_the_bucket_and_told_as_metrics(
    cold_start: ColdStart,
    surroundings: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    version = surroundings.put("acme/handbook/welcome aboard.md", "one")
    call(cold_start("chunk"), event("s3-put.json"))
    client("s3").delete_object(Bucket=surroundings.bucket, Key="acme/handbook/welcome aboard.md", VersionId=version)
    surroundings.put("acme/just put.txt", "its event may be on the way")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Edda/test")
    done = call(cold_start("sweep"), event("sweep.json"))
    assert (done["documents_deleted"], done.get("objects_taken_in", 0)) == (1, 0)
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert (line["service"], line["documents_deleted"], line["deletes_waiting"]) == ("test", [1.0], [0.0])
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Edda/test"


def test_what_was_given_up_is_told_as_metrics(
    cold_start: ColdStart,
    surroundings: Surroundings,
    owner_of_acme: Tenant,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A version nobody could parse for a day, and an event nobody took for three days; alarms watch both."""
    monkeypatch.setenv("EDDA_WEBHOOK_ALLOW_PRIVATE", "true")
    set_webhook_of_nobody = "INSERT INTO webhooks (tenant_id, url, secret) VALUES (%s, 'http://127.0.0.1:9/', %s)"
    surroundings.rows(set_webhook_of_nobody, [owner_of_acme.tenant_id, new_secret()])
    surroundings.put("acme/handbook/welcome aboard.md", "")
    call(cold_start("chunk"), event("s3-put.json"))
    surroundings.rows("UPDATE document_events SET created_at = created_at - interval '4 days'")
    surroundings.rows("UPDATE event_deliveries SET next_attempt_at = now()")
    surroundings.rows(
        "UPDATE document_versions SET status = 'queued', error_code = NULL, finished_at = NULL, lease_until = NULL, "
        "created_at = now() - interval '2 days'"
    )
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Edda/test")
    done = call(cold_start("sweep"), event("sweep.json"))
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert (line["given_up"], line["deliveries_abandoned"]) == ([1.0], [1.0])
    assert {name: [float(count)] for name, count in done.items()}.items() <= line.items()  # every count is a metric
    assert surroundings.rows("SELECT error_code FROM document_versions") == [("attempts_exhausted",)]


def test_a_sweep_that_could_not_look_into_the_bucket_does_the_rest_and_fails_loudly(
    cold_start: ColdStart, surroundings: Surroundings, parser: LineParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    surroundings.put("acme/handbook/welcome aboard.md", "one")
    parser.hangs = True
    with pytest.raises(Exception, match="time was up"):
        call(cold_start("chunk"), event("s3-put.json"), seconds=3.3)
    surroundings.rows("UPDATE document_versions SET created_at = created_at - interval '1 hour'")
    monkeypatch.setenv("EDDA_UPLOADS_BUCKET", "there-is-no-such-bucket")
    with pytest.raises(Exception, match="could not be swept"):
        call(cold_start("sweep"), event("sweep.json"))
    assert len(surroundings.taken(surroundings.ingest_queue)) == 1


def test_a_sweep_of_nothing_is_quiet(cold_start: ColdStart, surroundings: Surroundings) -> None:
    sweep = cold_start("sweep")
    for _ in range(2):
        assert not any(call(sweep, event("sweep.json")).values())
    assert surroundings.taken(surroundings.ingest_queue) == []


def test_without_a_database_the_sweep_fails_loudly_and_the_next_one_works(
    cold_start: ColdStart, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDDA_DATABASE_URL", "postgresql://edda_app@127.0.0.1:9/edda")
    sweep = cold_start("sweep")
    with pytest.raises(Exception, match="database is unavailable"):
        call(sweep, event("sweep.json"))
    monkeypatch.setenv("EDDA_DATABASE_URL", surroundings.urls.app)
    assert not any(call(sweep, event("sweep.json")).values())
