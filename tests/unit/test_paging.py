"""Cursors of search."""

from uuid import UUID, uuid4

import pytest
from edda.errors import InvalidRequest
from edda.paging import Cursor, Position, decode, encode
from hypothesis import given
from hypothesis import strategies as st

SEARCH = b"a tenant, a query and all its parameters"

cursors = st.builds(
    Cursor,
    st.builds(
        Position,
        st.sampled_from([0, 1]),
        st.floats(allow_nan=False),
        st.floats(allow_nan=False),
        st.uuids(),
        st.integers(0, 2**31 - 1),
    ),
    st.integers(1, 10_000),
)


@given(cursors)
def test_a_cursor_comes_back_as_it_was(cursor: Cursor) -> None:
    assert decode(encode(cursor, SEARCH), SEARCH) == cursor


@given(cursors, st.integers(0, 200), st.characters())
def test_a_cursor_that_was_changed_is_refused(cursor: Cursor, at: int, character: str) -> None:
    text = encode(cursor, SEARCH)
    changed = text[: at % len(text)] + character + text[at % len(text) + 1 :]
    if changed != text:
        with pytest.raises(InvalidRequest):
            decode(changed, SEARCH)


@pytest.mark.parametrize("text", ["", "x", "====", "a b", "Ä", "A" * 200, "null", "\x00"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        decode(text, SEARCH)
    assert [problem["field"] for problem in raised.value.problems] == ["cursor"]


def test_a_cursor_of_another_search_is_refused() -> None:
    text = encode(Cursor(Position(1, -0.5, 0.0, uuid4(), 3), 200), SEARCH)
    assert decode(text, SEARCH)
    with pytest.raises(InvalidRequest, match="not valid"):
        decode(text, SEARCH + b"!")


@pytest.mark.parametrize("depth", [0, 10_001, 2**32 - 1])
def test_a_cursor_that_somebody_sealed_himself_asks_for_no_more_than_others(depth: int) -> None:
    with pytest.raises(InvalidRequest):
        decode(encode(Cursor(Position(1, -0.5, 0.0, uuid4(), 3), depth), SEARCH), SEARCH)


def test_positions_are_in_the_order_of_hits() -> None:
    one, two = UUID(int=1), UUID(int=2)
    in_order = [
        Position(0, -0.1, 0.0, two, 5),  # what a reranker has read comes first, whatever its scores
        Position(1, -9.0, 0.0, two, 5),
        Position(1, -0.5, -0.2, two, 9),  # a reranker judged them alike
        Position(1, -0.5, 0.0, one, 7),
        Position(1, -0.5, 0.0, two, 0),
        Position(1, -0.5, 0.0, two, 1),
    ]
    assert sorted(in_order) == in_order
