"""The functions of the queues while the database takes connections and never says a word."""

import time

import pytest

from tests.handlers.environment import ColdStart, Surroundings, call, event, failed_messages, silent_server

pytestmark = pytest.mark.usefixtures("owner_of_acme")


@pytest.mark.parametrize(("function", "messages"), [("chunk", "ingest-s3-put.json"), ("embed", "embed.json")])
def test_a_database_that_never_answers_is_given_up_before_the_functions_time_is_up(
    cold_start: ColdStart,
    surroundings: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    messages: str,
) -> None:
    began = time.monotonic()
    batch = event(messages)
    with silent_server() as port:
        monkeypatch.setenv("EDDA_DATABASE_URL", f"postgresql://edda_app@127.0.0.1:{port}/edda")
        answer = call(cold_start(function), batch, seconds=3.5)
    assert failed_messages(answer) == sorted(record["messageId"] for record in batch["Records"])
    assert time.monotonic() - began < 3.5
