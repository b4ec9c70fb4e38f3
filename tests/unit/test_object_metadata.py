"""Metadata files: what is taken, and what is wrong with the others."""

import json
from contextlib import suppress
from typing import Any

import pytest
from edda.errors import InvalidMetadata
from edda.object_metadata import (
    MAX_ATTRIBUTES,
    MAX_KEY_CHARACTERS,
    MAX_STRING_CHARACTERS,
    check_metadata,
    parse_object_metadata,
)
from hypothesis import given
from hypothesis import strategies as st


def parse(attributes: Any) -> dict[str, Any]:
    return parse_object_metadata(json.dumps({"metadataAttributes": attributes}).encode())


def test_plain_values_are_taken_as_they_are() -> None:
    plain = {"s": "text", "i": 1, "f": 1.5, "b": True, "l": ["a", "b"], "none": None, "empty": ""}
    assert parse(plain) == plain


def test_typed_values_are_unwrapped() -> None:
    typed = {
        "s": {"value": {"type": "STRING", "stringValue": "legal"}, "includeForEmbedding": True},
        "n": {"value": {"type": "NUMBER", "numberValue": 1.5}},
        "b": {"value": {"type": "BOOLEAN", "booleanValue": False}},
        "l": {"value": {"type": "STRING_LIST", "stringListValue": ["a"]}},
    }
    assert parse(typed) == {"s": "legal", "n": 1.5, "b": False, "l": ["a"]}


def test_a_byte_order_mark_and_other_encodings_of_json_are_read() -> None:
    text = '{"metadataAttributes": {"ü": "ä"}}'
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert parse_object_metadata(text.encode(encoding)) == {"ü": "ä"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"no json",
        b"\xff\xff",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"metadataAttributes": []}',
        b'{"metadataAttributes": null}',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"metadataAttributes": {"a": NaN}}',
        b'{"metadataAttributes": {"a": -Infinity}}',
        b'{"metadataAttributes": {"a": 1e999}}',
        b'{"metadataAttributes": {"a": ' + b"9" * 5000 + b"}}",
        b'{"metadataAttributes": {"a": "\\u0000"}}',
        b'{"metadataAttributes": {"\\u0000": 1}}',
        b'{"metadataAttributes": {"a": "\\ud800"}}',
        b'{"metadataAttributes": {"\\udfff": 1}}',
        b'{"metadataAttributes": {"": 1}}',
    ],
)
def test_what_cannot_be_read_says_so(data: bytes) -> None:
    with pytest.raises(InvalidMetadata) as raised:
        parse_object_metadata(data)
    assert "\0" not in raised.value.message
    raised.value.message.encode()  # it is stored: no lone surrogate either


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"value": "x"},
        {"value": {"type": "DATE", "dateValue": "x"}},
        {"value": {"type": "STRING"}},
        {"value": {"type": "STRING", "stringValue": 5}},
        {"value": {"type": "NUMBER", "numberValue": "5"}},
        {"value": {"type": ["STRING"], "stringValue": "x"}},
        {"value": {"type": "STRING_LIST", "stringListValue": [{"a": 1}]}},
        [["nested"]],
        [{"a": 1}],
        "x" * (MAX_STRING_CHARACTERS + 1),
        ["x" * (MAX_STRING_CHARACTERS + 1)],
    ],
)
def test_a_value_of_another_shape_is_named(value: Any) -> None:
    with pytest.raises(InvalidMetadata, match="'team'"):
        parse({"team": value})


def test_the_limits_themselves_are_allowed_and_one_more_is_not() -> None:
    check_metadata({str(number): number for number in range(MAX_ATTRIBUTES)})
    check_metadata({"k" * MAX_KEY_CHARACTERS: "v" * MAX_STRING_CHARACTERS})
    with pytest.raises(InvalidMetadata, match=str(MAX_ATTRIBUTES)):
        check_metadata({str(number): number for number in range(MAX_ATTRIBUTES + 1)})
    with pytest.raises(InvalidMetadata, match=str(MAX_KEY_CHARACTERS)):
        check_metadata({"k" * (MAX_KEY_CHARACTERS + 1): 1})


@given(st.binary())
def test_any_bytes_are_metadata_or_invalid_and_nothing_else(data: bytes) -> None:
    with suppress(InvalidMetadata):
        parse_object_metadata(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=9), json_values, max_size=5))
def test_whatever_is_taken_can_be_stored_as_json(attributes: dict[str, Any]) -> None:
    try:
        taken = parse(attributes)
    except InvalidMetadata:
        return
    stored = json.dumps(taken, allow_nan=False, ensure_ascii=False).encode()
    assert b"\0" not in stored
    assert json.loads(stored) == taken
