"""What S3 tells, as it tells it."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from edda.s3_events import ObjectChange, document_key_of, just_after, object_changes, padded_sequencer
from edda.sqs_events import is_sqs_event, partial_response
from hypothesis import given
from hypothesis import strategies as st

EVENTS = Path(__file__).parents[2] / "events"


def event(key: str = "acme/a.txt", name: str = "ObjectCreated:Put", **fields: Any) -> dict[str, Any]:
    return {"Records": [{"eventName": name, "s3": {"object": {"key": key, **fields}}}]}


def only_change(body: dict[str, Any]) -> ObjectChange:
    (change,) = object_changes(body)
    return change


def test_the_event_of_a_put_is_read_whole() -> None:
    body = event("acme/my+report.pdf", versionId="v1", sequencer="0055AED6DCD90281E5", size=3)
    change = only_change(body)
    assert (change.key, change.version_id, change.removed) == ("acme/my report.pdf", "v1", False)
    assert change.sequencer == "0055aed6dcd90281e5".ljust(40, "0")


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("dir/a+b%2B%C3%BC.txt", "dir/a b+ü.txt"),
        ("a%252Fb", "a%2Fb"),
        ("%F0%9F%98%80", "\U0001f600"),
        ("a%0Ab", "a\nb"),
        ("..%2F..%2Fa", "../../a"),
        ("100%25", "100%"),
    ],
)
def test_a_key_is_decoded_once_as_a_form_is(encoded: str, key: str) -> None:
    assert only_change(event(encoded)).key == key


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_key_survives_the_way_s3_writes_it(key: str) -> None:
    assert only_change(event(quote_plus(key, safe="/"))).key == key


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("ObjectCreated:Put", False),
        ("ObjectCreated:Post", False),
        ("ObjectCreated:Copy", False),
        ("ObjectCreated:CompleteMultipartUpload", False),
        ("s3:ObjectCreated:Put", False),
        ("ObjectRemoved:Delete", True),
        ("ObjectRemoved:DeleteMarkerCreated", True),
        ("LifecycleExpiration:Delete", True),
        ("LifecycleExpiration:DeleteMarkerCreated", True),
    ],
)
def test_kinds_of_change(name: str, removed: bool) -> None:
    assert only_change(event(name=name)).removed is removed


@pytest.mark.parametrize("name", ["ObjectRestore:Completed", "ReducedRedundancyLostObject", "ObjectTagging:Put"])
def test_events_of_other_kinds_tell_of_no_change(name: str) -> None:
    assert list(object_changes(event(name=name))) == []


def test_the_test_event_tells_of_no_change() -> None:
    assert list(object_changes({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"})) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"Records": None},
        {"Records": "x"},
        {"Records": [None]},
        {"Records": ["x"]},
        {"Records": [{}]},
        {"Records": [{"eventName": None, "s3": {"object": {"key": "a"}}}]},
        {"Records": [{"eventName": "ObjectCreated:Put"}]},
        {"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]},
        {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": None}}]},
        {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {}}}]},
        {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": 5}}}]},
        {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "a", "sequencer": 5}}}]},
    ],
)
def test_what_is_no_s3_event_is_a_value_error(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="S3"):
        list(object_changes(body))


def test_a_missing_sequencer_is_older_than_every_other() -> None:
    assert only_change(event()).sequencer == ""
    assert padded_sequencer("") < padded_sequencer("0")


def test_the_shorter_sequencer_is_padded_on_the_right() -> None:
    ordered = ["", "0055", "00550", "0055000000000000001", "0056", "00A", "00b0", "1"]
    padded = [padded_sequencer(sequencer) for sequencer in ordered]
    assert padded[1] == padded[2]
    assert all(left <= right for left, right in pairwise(padded))


@given(st.integers(0, 16**20), st.integers(0, 16**20))
def test_sequencers_compare_as_the_numbers_they_are(left: int, right: int) -> None:
    texts = [f"{number:020X}" for number in (left, right)]
    assert (padded_sequencer(texts[0]) < padded_sequencer(texts[1])) == (left < right)


@pytest.mark.parametrize(
    ("key", "document"),
    [
        ("acme/report.pdf.metadata.json", "acme/report.pdf"),
        ("acme/report.metadata.json", "acme/report"),
        ("acme/metadata.json", None),
        ("acme/.metadata.json", None),
        ("acme/report.pdf", None),
        ("acme/report.pdf.metadata.json.txt", None),
        ("acme/a.metadata.json.metadata.json", "acme/a.metadata.json"),
    ],
)
def test_a_metadata_file_names_its_document(key: str, document: str | None) -> None:
    change = only_change(event(key))
    assert change.is_metadata is (document is not None)
    assert document_key_of(change.key) == (document or key)


@pytest.mark.parametrize("path", sorted(EVENTS.glob("*.json")), ids=lambda path: path.name)
def test_every_file_of_events_is_json_and_holds_no_access_key(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    json.loads(text)
    assert "AKIA" not in text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"Records": [{"eventSource": "aws:sqs"}]}, True),
        ({"Records": [{"eventSource": "aws:s3"}]}, False),
        ({"Records": []}, False),
        ({"Records": {}}, False),
        ({"Records": ["x"]}, False),
        ({"Records": "aws:sqs"}, False),
        ({}, False),
    ],
)
def test_an_event_of_a_queue_is_told_from_others(body: dict[str, Any], expected: bool) -> None:
    assert is_sqs_event(body) is expected


def test_the_answer_to_a_queue_names_the_messages_that_failed() -> None:
    assert partial_response(["a", "b"]) == {"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "b"}]}
    assert partial_response([]) == {"batchItemFailures": []}


def test_a_place_just_after_an_event_is_before_every_later_event() -> None:
    first, second = padded_sequencer("0055"), padded_sequencer("00550001")
    places = ["", just_after(""), just_after(just_after("")), padded_sequencer("0")]
    places += [first, just_after(first), just_after(just_after(first)), second]
    assert places == sorted(places)
    assert len(set(places)) == len(places)


def test_a_thousand_sightings_after_one_event_stay_in_order() -> None:
    places = [padded_sequencer("0055")]
    for _ in range(1000):
        places.append(just_after(places[-1]))
    assert all(earlier < later for earlier, later in pairwise(places))
    assert len(places[-1]) == len(places[1])
