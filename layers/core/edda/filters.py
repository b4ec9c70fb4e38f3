"""The filter language of search and list: JSON in, a checked tree out.

    {"field": "year", "op": "gte", "value": 2024}                   a comparison
    {"and": [...]}   {"or": [...]}   {"not": {...}}                 what they combine to

A field is one of the document's own (`DocumentField`) or else a metadata key; `metadata.<key>` is always one.
A comparison is true or false, never unknown: a field that is missing, null or of another type than the value satisfies
`ne` and `not_in` only; `tags` takes `contains` only. Strings compare by code point, numbers by value, dates as
instants. `contains` finds a part of a string or an element of a list.

`store/conditions.py` makes SQL of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from edda.errors import InvalidFilter

MAX_DEPTH = 10
MAX_COMPARISONS = 100
MAX_LIST_ITEMS = 1000
MAX_STRING_CHARACTERS = 2048  # of a value: no metadata string is longer
METADATA_PREFIX = "metadata."
MAX_FIELD_CHARACTERS = 200 + len(METADATA_PREFIX)


class Operator(StrEnum):
    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    NOT_IN = "not_in"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"


SYMBOLS = {"=": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
ORDERINGS = frozenset({Operator.LT, Operator.LTE, Operator.GT, Operator.GTE})
LISTS = frozenset({Operator.IN, Operator.NOT_IN})


class DocumentField(StrEnum):
    """What every document has. The names hide metadata keys of the same name: write `metadata.name` for those."""

    DOCUMENT_ID = "document_id"
    NAME = "name"
    TITLE = "title"
    TAGS = "tags"
    MEDIA_TYPE = "media_type"
    LANGUAGE = "language"
    CREATED_AT = "created_at"


@dataclass(frozen=True, slots=True)
class MetadataField:
    """An attribute of the document's metadata."""

    key: str


Field = DocumentField | MetadataField
Scalar = str | int | float | bool | datetime | UUID


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value; a tuple of values for `in` and `not_in`."""

    field: Field
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: "Filter"


Filter = Comparison | And | Or | Not


def parse_filter(raw: Any) -> Filter | None:
    """Check a filter as it came, None for none (`null` or `{}`).

    Raises InvalidFilter, which names the place. At most MAX_DEPTH levels, MAX_COMPARISONS comparisons and
    MAX_LIST_ITEMS values in a list.
    """
    if raw is None or raw == {}:
        return None
    return _Parser().filter(raw, "filter", depth=1)


class _Parser:
    """Counts the comparisons of one filter as it goes."""

    def __init__(self) -> None:
        self.comparisons = 0

    def filter(self, raw: Any, place: str, depth: int) -> Filter:
        if not isinstance(raw, dict):
            raise _invalid(place, "must be an object")
        if depth > MAX_DEPTH:
            raise _invalid(place, f"is nested deeper than {MAX_DEPTH} levels")
        match list(raw):
            case ["and"]:
                return And(self._parts(raw["and"], f"{place}.and", depth))
            case ["or"]:
                return Or(self._parts(raw["or"], f"{place}.or", depth))
            case ["not"]:
                return Not(self.filter(raw["not"], f"{place}.not", depth + 1))
        if set(raw) != {"field", "op", "value"}:
            raise _invalid(place, 'must have either "field", "op" and "value", or one of "and", "or", "not"')
        self.comparisons += 1
        if self.comparisons > MAX_COMPARISONS:
            raise _invalid("filter", f"has more than {MAX_COMPARISONS} comparisons")
        return _comparison(raw, place)

    def _parts(self, raw: Any, place: str, depth: int) -> tuple[Filter, ...]:
        if not isinstance(raw, list) or not raw:
            raise _invalid(place, "must be a list of at least one filter")
        return tuple(self.filter(part, f"{place}[{index}]", depth + 1) for index, part in enumerate(raw))


def _comparison(raw: dict[str, Any], place: str) -> Comparison:
    field = _field(raw["field"], f"{place}.field")
    operator = _operator(raw["op"], f"{place}.op")
    check = _CHECKS.get(field, _plain) if isinstance(field, DocumentField) else _plain
    if operator not in LISTS:
        return Comparison(field, operator, check(raw["value"], operator, f"{place}.value"))
    values = raw["value"]
    if not isinstance(values, list) or not values or len(values) > MAX_LIST_ITEMS:
        raise _invalid(f"{place}.value", f"must be a list of 1 to {MAX_LIST_ITEMS} values")
    items = (check(value, operator, f"{place}.value[{index}]") for index, value in enumerate(values))
    return Comparison(field, operator, tuple(items))


def _field(raw: Any, place: str) -> Field:
    if not isinstance(raw, str) or not 1 <= len(raw) <= MAX_FIELD_CHARACTERS:
        raise _invalid(place, f"must be a string of 1 to {MAX_FIELD_CHARACTERS} characters")
    _refuse_unstorable(raw, place)
    if raw in list(DocumentField):
        return DocumentField(raw)
    key = raw.removeprefix(METADATA_PREFIX)
    if not key:
        raise _invalid(place, "has no key after the dot")
    return MetadataField(key)


def _operator(raw: Any, place: str) -> Operator:
    name = SYMBOLS.get(raw, raw) if isinstance(raw, str) else raw
    if name not in list(Operator):
        raise _invalid(place, f"must be one of {', '.join(Operator)}")
    return Operator(name)


def _plain(raw: Any, operator: Operator, place: str) -> Scalar:
    """A string, number or boolean, as JSON has them."""
    if not isinstance(raw, str | int | float):
        raise _invalid(place, "must be a string, a number or a boolean")
    if isinstance(raw, bool) and operator in ORDERINGS:
        raise _invalid(place, "has no order: a boolean can only be equal or not")
    if isinstance(raw, float) and not math.isfinite(raw):
        raise _invalid(place, "must be a finite number")
    if operator is Operator.STARTS_WITH and not isinstance(raw, str):
        raise _invalid(place, "must be a string")
    if isinstance(raw, str):
        if len(raw) > MAX_STRING_CHARACTERS:
            raise _invalid(place, f"is longer than {MAX_STRING_CHARACTERS} characters")
        _refuse_unstorable(raw, place)
    return raw


def _instant(raw: Any, operator: Operator, place: str) -> Scalar:
    """An ISO 8601 date or time; UTC where it does not say."""
    if operator in {Operator.CONTAINS, Operator.STARTS_WITH}:
        raise _invalid(place, f"{operator} does not apply to a date")
    try:
        instant = datetime.fromisoformat(raw)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(place, "must be an ISO 8601 date or time") from None


def _tag(raw: Any, operator: Operator, place: str) -> Scalar:
    """Of a list nothing else is ever true."""
    if operator is not Operator.CONTAINS:
        raise _invalid(place, f"tags is a list, to which {operator} does not apply: use contains")
    if not isinstance(raw, str):
        raise _invalid(place, "must be a string")
    return _plain(raw, operator, place)


def _document_id(raw: Any, operator: Operator, place: str) -> Scalar:
    if operator not in {Operator.EQ, Operator.NE, Operator.IN, Operator.NOT_IN}:
        raise _invalid(place, f"{operator} does not apply to an id")
    try:
        return UUID(raw)
    except (TypeError, ValueError, AttributeError):
        raise _invalid(place, "must be a UUID") from None


_CHECKS: dict[DocumentField, Callable[[Any, Operator, str], Scalar]] = {
    DocumentField.CREATED_AT: _instant,
    DocumentField.DOCUMENT_ID: _document_id,
    DocumentField.TAGS: _tag,
}


def _refuse_unstorable(text: str, place: str) -> None:
    """Postgres takes neither NUL nor a lone surrogate, so nothing stored can match them."""
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _invalid(place, "has a character that is not text (NUL or a lone surrogate)")


def _invalid(place: str, problem: str) -> InvalidFilter:
    return InvalidFilter("The filter is not valid.", problems=[{"field": place, "message": problem}])
