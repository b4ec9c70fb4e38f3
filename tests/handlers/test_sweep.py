"""The sweep function on its schedule's event, cold and warm."""

import json

import pytest

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
