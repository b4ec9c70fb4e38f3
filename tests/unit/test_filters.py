"""The filter language: what is taken, and what is refused with the place of the mistake."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from edda.errors import InvalidFilter
from edda.filters import (
    MAX_COMPARISONS,
    MAX_DEPTH,
    MAX_LIST_ITEMS,
    And,
    Comparison,
    DocumentField,
    MetadataField,
    Not,
    Operator,
    Or,
    parse_filter,
)
from hypothesis import given
from hypothesis import strategies as st

YEAR = {"field": "year", "op": "gte", "value": 2024}


def nested(depth: int) -> Any:
    filter_: Any = YEAR
    for _ in range(depth - 1):
        filter_ = {"not": filter_}
    return filter_


@pytest.mark.parametrize("raw", [None, {}])
def test_no_filter_is_none(raw: Any) -> None:
    assert parse_filter(raw) is None


def test_a_tree_is_read() -> None:
    raw = {"and": [YEAR, {"or": [{"not": YEAR}, {"field": "tags", "op": "contains", "value": "hr"}]}]}
    year = Comparison(MetadataField("year"), Operator.GTE, 2024)
    tags = Comparison(DocumentField.TAGS, Operator.CONTAINS, "hr")
    assert parse_filter(raw) == And((year, Or((Not(year), tags))))


@pytest.mark.parametrize(
    ("symbol", "operator"), [("=", "eq"), ("!=", "ne"), ("<", "lt"), ("<=", "lte"), (">", "gt"), (">=", "gte")]
)
def test_symbols_mean_operators(symbol: str, operator: str) -> None:
    assert parse_filter(YEAR | {"op": symbol}) == parse_filter(YEAR | {"op": operator})


@pytest.mark.parametrize(
    ("field", "meaning"),
    [
        ("name", DocumentField.NAME),
        ("metadata.name", MetadataField("name")),
        ("year", MetadataField("year")),
        ("metadata.year", MetadataField("year")),
        ("metadata.metadata.year", MetadataField("metadata.year")),
        ("Name", MetadataField("Name")),
        ("author' = 'alice' OR '1'='1' --", MetadataField("author' = 'alice' OR '1'='1' --")),
    ],
)
def test_a_field_is_the_documents_own_or_a_metadata_key(field: str, meaning: Any) -> None:
    assert parse_filter({"field": field, "op": "eq", "value": "x"}) == Comparison(meaning, Operator.EQ, "x")


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2026-11-21T01:00:00+02:00", datetime(2026, 11, 20, 23, tzinfo=UTC)),
        ("2026-11-21T01:00:00Z", datetime(2026, 11, 21, 1, tzinfo=UTC)),
    ],
)
def test_dates_are_instants(value: str, instant: datetime) -> None:
    expected = Comparison(DocumentField.CREATED_AT, Operator.LT, instant)
    assert parse_filter({"field": "created_at", "op": "lt", "value": value}) == expected


def test_an_id_is_a_uuid() -> None:
    document_id = "6e0f7a52-8f0b-4d0a-9a54-4a4d4b0a7a11"
    raw = {"field": "document_id", "op": "in", "value": [document_id]}
    assert parse_filter(raw) == Comparison(DocumentField.DOCUMENT_ID, Operator.IN, (UUID(document_id),))


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ([], "filter"),
        ("year = 2024", "filter"),
        ({"year": 2024}, "filter"),
        ({"and": [YEAR], "or": [YEAR]}, "filter"),
        ({"field": "year", "op": "eq"}, "filter"),
        (YEAR | {"boost": 2}, "filter"),
        ({"and": []}, "filter.and"),
        ({"or": YEAR}, "filter.or"),
        ({"not": [YEAR]}, "filter.not"),
        ({"and": [YEAR, {"or": [YEAR, 7]}]}, "filter.and[1].or[1]"),
        (YEAR | {"field": ""}, "filter.field"),
        (YEAR | {"field": 7}, "filter.field"),
        (YEAR | {"field": "metadata."}, "filter.field"),
        (YEAR | {"field": "x" * 300}, "filter.field"),
        (YEAR | {"field": "nul\x00"}, "filter.field"),
        (YEAR | {"op": "like"}, "filter.op"),
        (YEAR | {"op": ["eq"]}, "filter.op"),
        (YEAR | {"value": None}, "filter.value"),
        (YEAR | {"value": [1]}, "filter.value"),
        (YEAR | {"value": {"$gt": 1}}, "filter.value"),
        (YEAR | {"value": True}, "filter.value"),
        (YEAR | {"value": float("nan")}, "filter.value"),
        (YEAR | {"value": float("inf")}, "filter.value"),
        (YEAR | {"value": "x" * 2049}, "filter.value"),
        (YEAR | {"value": "lone \ud800"}, "filter.value"),
        (YEAR | {"op": "starts_with"}, "filter.value"),
        (YEAR | {"op": "in"}, "filter.value"),
        (YEAR | {"op": "in", "value": []}, "filter.value"),
        (YEAR | {"op": "in", "value": [1] * (MAX_LIST_ITEMS + 1)}, "filter.value"),
        (YEAR | {"op": "not_in", "value": [1, None]}, "filter.value[1]"),
        ({"field": "created_at", "op": "lt", "value": "yesterday"}, "filter.value"),
        ({"field": "created_at", "op": "lt", "value": 2024}, "filter.value"),
        ({"field": "created_at", "op": "gt", "value": "0001-01-01T00:00:00+14:00"}, "filter.value"),
        ({"field": "created_at", "op": "contains", "value": "2024"}, "filter.value"),
        ({"field": "document_id", "op": "eq", "value": "7"}, "filter.value"),
        ({"field": "document_id", "op": "lt", "value": "6e0f7a52-8f0b-4d0a-9a54-4a4d4b0a7a11"}, "filter.value"),
    ],
)
def test_a_mistake_is_refused_with_its_place(raw: Any, place: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(raw)
    assert [problem["field"] for problem in caught.value.problems] == [place]


def test_depth_is_limited() -> None:
    parse_filter(nested(MAX_DEPTH))
    with pytest.raises(InvalidFilter):
        parse_filter(nested(MAX_DEPTH + 1))


def test_comparisons_are_limited_over_the_whole_tree() -> None:
    parse_filter({"or": [YEAR] * MAX_COMPARISONS})
    with pytest.raises(InvalidFilter):
        parse_filter({"or": [{"and": [YEAR] * MAX_COMPARISONS}, YEAR]})


def test_a_list_may_be_long() -> None:
    parse_filter(YEAR | {"op": "in", "value": list(range(MAX_LIST_ITEMS))})


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["and", "or", "not", "field", "op", "value", "x"]), inner, max_size=3)
    ),
    max_leaves=15,
)


@given(ANY_JSON)
def test_whatever_comes_is_read_or_refused(raw: Any) -> None:
    problems: list[dict[str, str]] | None = None
    try:
        parse_filter(raw)
    except InvalidFilter as error:
        problems = error.problems
    assert problems is None or problems
