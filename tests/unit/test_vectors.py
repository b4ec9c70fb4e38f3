"""Vectors: what is accepted, what is not, and the database's format, bit by bit."""

import math
import struct

import pytest
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderUnavailable
from edda.vectors import InvalidVector, from_floats, to_halfvec_binary, validate
from hypothesis import given
from hypothesis import strategies as st

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def packed(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def unpacked(raw: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def from_halfvec(wire: bytes) -> tuple[float, ...]:
    """What the database sends of a `halfvec`."""
    return struct.unpack(f">{len(wire) // 2 - 2}e", wire[4:])


def test_a_vector_of_unit_length_keeps_its_bytes() -> None:
    raw = packed(0.6, 0.0, -0.8)
    assert validate(raw, 3) == raw


def test_a_longer_vector_is_brought_to_unit_length() -> None:
    assert unpacked(validate(packed(3, 0, -4), 3)) == pytest.approx((0.6, 0, -0.8))


@given(st.lists(numbers, min_size=1, max_size=50).filter(lambda values: any(abs(value) > 1e-30 for value in values)))
def test_any_finite_direction_comes_back_at_unit_length(values: list[float]) -> None:
    assert math.hypot(*unpacked(validate(packed(*values), len(values)))) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_value_that_is_not_finite_spoils_the_vector(bad: float, position: int) -> None:
    values = [0.1, 0.2, 0.3]
    values[position] = bad
    with pytest.raises(InvalidVector):
        validate(packed(*values), 3)


def test_a_zero_vector_is_invalid() -> None:
    with pytest.raises(InvalidVector):
        validate(packed(0, -0.0, 0), 3)


def test_an_empty_vector_is_invalid_and_not_of_other_dimensions() -> None:
    with pytest.raises(InvalidVector):
        validate(b"", 3)


def test_an_invalid_vector_is_a_rejection_of_its_text() -> None:
    assert issubclass(InvalidVector, EmbeddingRejected)
    assert InvalidVector.code == "embedding_rejected"


@pytest.mark.parametrize("count", [1, 2, 4, 1536])
def test_other_dimensions_are_the_operators_business(count: int) -> None:
    with pytest.raises(ProviderMisconfigured, match=f"{count} dimensions, not 3"):
        validate(packed(*[1.0] * count), 3)


def test_a_vector_cut_in_the_middle_of_a_number_is_tried_again() -> None:
    with pytest.raises(ProviderUnavailable):
        validate(packed(1, 2, 3)[:-1], 3)


def test_a_vector_may_be_a_view_into_something_larger() -> None:
    assert validate(memoryview(b"...." + packed(0, 1))[4:], 2) == packed(0, 1)


def test_json_numbers_give_the_same_bytes_as_float32() -> None:
    assert from_floats([0.6, 0, -0.8], 3) == packed(0.6, 0.0, -0.8)


@pytest.mark.parametrize("values", [[], [None, 1, 2], ["0.1", 1, 2], [1e300, 1, 2], [math.nan, 1, 2], [[], 1, 2]])
def test_what_is_not_a_list_of_numbers_is_invalid(values: list[float]) -> None:
    with pytest.raises(InvalidVector):
        from_floats(values, 3)


def test_json_numbers_of_other_dimensions_are_the_operators_business() -> None:
    with pytest.raises(ProviderMisconfigured):
        from_floats([1.0, 2.0], 3)


def test_halfvec_is_two_counts_and_big_endian_half_floats() -> None:
    assert to_halfvec_binary(packed(1.0, -2.0)) == bytes.fromhex("0002 0000 3c00 c000")


@given(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=50))
def test_what_half_precision_can_hold_comes_back_as_it_went(values: list[float]) -> None:
    assert from_halfvec(to_halfvec_binary(packed(*values))) == tuple(values)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50))
def test_halfvec_keeps_three_digits(values: list[float]) -> None:
    assert from_halfvec(to_halfvec_binary(packed(*values))) == pytest.approx(values, rel=1e-3, abs=1e-7)
