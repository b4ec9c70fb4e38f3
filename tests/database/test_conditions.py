"""Filters on a real Postgres mean what a plain Python reading of them means, whatever the keys and values are."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from edda.filters import parse_filter
from edda.store.conditions import compile_filter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.postgres import DatabaseUrls

TENANT = uuid4()
START = datetime(2026, 11, 1, tzinfo=UTC)


OWN = ["name", "title", "tags", "media_type", "language", "created_at"]


@dataclass(frozen=True, slots=True)
class Document:
    """One row, as a filter sees it."""

    document_id: UUID
    name: str
    title: str | None
    title_in_file: str | None
    tags: list[str]
    media_type: str | None
    language: str | None
    created_at: datetime
    metadata: dict[str, Any]


# The same meaning in plain Python ----------------------------------------------------------------------------------


def matches(raw: Any, document: Document) -> bool:
    if not raw:
        return True
    if "and" in raw:
        return all(matches(part, document) for part in raw["and"])
    if "or" in raw:
        return any(matches(part, document) for part in raw["or"])
    if "not" in raw:
        return not matches(raw["not"], document)
    field, operator, value = raw["field"], raw["op"], raw["value"]
    have = attribute(field, document)
    if field == "created_at":
        value = [instant(item) for item in value] if isinstance(value, list) else instant(value)
    return compare(operator, have, value)


def attribute(field: str, document: Document) -> Any:
    if field == "document_id":
        return str(document.document_id)
    if field == "title":
        return document.title if document.title is not None else document.title_in_file
    if field in OWN:
        return getattr(document, field)
    return document.metadata.get(field.removeprefix("metadata."))


def compare(operator: str, have: Any, value: Any) -> bool:
    match operator:
        case "ne" | "!=":
            return not same(have, value)
        case "not_in":
            return not any(same(have, item) for item in value)
        case "eq" | "=":
            return same(have, value)
        case "in":
            return any(same(have, item) for item in value)
        case "contains":
            if isinstance(have, list):
                return any(same(item, value) for item in have)
            return isinstance(have, str) and isinstance(value, str) and value in have
        case "starts_with":
            return isinstance(have, str) and have.startswith(value)
    if kind(have) != kind(value) or kind(have) not in {"string", "number", "date"}:
        return False
    left, right = exact(have), exact(value)
    return bool({"lt": left < right, "lte": left <= right, "gt": left > right, "gte": left >= right}[operator])


def same(left: Any, right: Any) -> bool:
    return kind(left) == kind(right) and kind(left) not in {"null", "list"} and bool(exact(left) == exact(right))


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "number", float: "number", list: "list", datetime: "date"}
    return names.get(type(value), "null")


def exact(value: Any) -> Any:
    """A number as JSON writes it: 1e23 is ten to the 23rd, which its binary float is not."""
    return Decimal(repr(value)) if kind(value) == "number" else value


def instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# Documents and filters that are likely to meet ---------------------------------------------------------------------

HOSTILE = [
    "author' = 'alice' OR '1'='1' --",
    "'; DROP TABLE documents; --",
    "%s",
    "%(f0)s",
    "%%",
    "?",
    "$1",
    "{}",
    "{left}",
    "\\",
    "\\'",
    '"',
    "a'b",
    "metadata.name",
    "name",
    "",
    " ",
    "\u0130stanbul",
    "straße",
    "50%",
    "a_b",
    "\U0001f600",
    "\uffff",
    "e\u0301",
    "true",
    "1",
]
KEYS = st.sampled_from([key for key in HOSTILE if key]) | st.text("abé\U0001f600", min_size=1, max_size=2)
STRINGS = st.sampled_from(HOSTILE) | st.text("abAB é\U0001f600\uffff", max_size=3)
NUMBERS = (
    st.integers(-2, 2)
    | st.sampled_from([10**23, 1e23, 10**40, -1.5, 0.1, 1e-300, 1e308, 1.0, -0.0])
    | st.floats(allow_nan=False, allow_infinity=False)
)
SCALARS = STRINGS | NUMBERS | st.booleans()
VALUES = SCALARS | st.none() | st.lists(STRINGS | NUMBERS, max_size=3)
DATES = st.integers(-2, 2).map(lambda days: START + timedelta(days=days))

DOCUMENTS = st.builds(
    Document,
    document_id=st.builds(uuid4),
    name=STRINGS,
    title=st.none() | STRINGS,
    title_in_file=st.none() | STRINGS,
    tags=st.lists(STRINGS, max_size=2),
    media_type=st.none() | STRINGS,
    language=st.none() | st.sampled_from(["en", "de"]),
    created_at=DATES,
    metadata=st.dictionaries(KEYS, VALUES, min_size=1, max_size=4),
)


def comparisons(fields: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    ordered = values.filter(lambda value: not isinstance(value, bool))
    texts = values.filter(lambda value: isinstance(value, str))

    def build(operators: list[str], right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries({"field": fields, "op": st.sampled_from(operators), "value": right})

    return st.one_of(
        build(["eq", "ne", "=", "!=", "contains"], values),
        build(["lt", "lte", "gt", "gte"], ordered),
        build(["in", "not_in"], st.lists(values, min_size=1, max_size=3)),
        build(["starts_with"], texts),
    )


METADATA_FIELDS = KEYS.map(lambda key: f"metadata.{key}")
OWN_FIELDS = st.sampled_from([field for field in OWN if field not in {"created_at", "tags"}])
WITH_TAGS = st.fixed_dictionaries({"field": st.just("tags"), "op": st.just("contains"), "value": STRINGS})
INSTANTS = st.fixed_dictionaries(
    {
        "field": st.just("created_at"),
        "op": st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte"]),
        "value": DATES.map(lambda date: date.isoformat())
        | st.sampled_from(["2026-11-01", "2026-11-02T01:00:00+01:00"]),
    }
)
FILTERS = st.recursive(
    comparisons(METADATA_FIELDS | OWN_FIELDS, SCALARS) | INSTANTS | WITH_TAGS,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(lambda some: {"and": some}),
        st.lists(parts, min_size=1, max_size=3).map(lambda some: {"or": some}),
        parts.map(lambda one: {"not": one}),
    ),
    max_leaves=6,
)


@pytest.fixture
def connection(database_urls: DatabaseUrls) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_urls.owner) as connection:
        connection.execute("INSERT INTO tenants (tenant_id, slug) VALUES (%s, 'acme')", [TENANT])
        connection.commit()
        yield connection


def found(connection: psycopg.Connection[Any], documents: list[Document], raw: Any) -> set[UUID]:
    """Which of these documents satisfy the filter, according to Postgres."""
    with connection.transaction(force_rollback=True):
        for document in documents:
            insert(connection, document)
        return select(connection, raw)


def select(connection: psycopg.Connection[Any], raw: Any) -> set[UUID]:
    condition = compile_filter(parse_filter(raw))
    query = sql.SQL(
        "SELECT d.document_id FROM documents d LEFT JOIN document_versions v USING (document_id) WHERE {}"
    ).format(condition.clause)
    return {row[0] for row in connection.execute(query, condition.values)}


def insert(connection: psycopg.Connection[Any], document: Document) -> None:
    connection.execute(
        "INSERT INTO documents (document_id, tenant_id, object_key, name, title, tags, metadata, created_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [
            document.document_id,
            TENANT,
            f"acme/{document.document_id}",
            document.name,
            document.title,
            document.tags,
            Jsonb(document.metadata),
            document.created_at,
        ],
    )
    connection.execute(
        "INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at, "
        "media_type, language, title) VALUES (%s, %s, %s, '', '', now(), %s, %s, %s)",
        [
            uuid4(),
            TENANT,
            document.document_id,
            document.media_type,
            document.language,
            document.title_in_file,
        ],
    )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(DOCUMENTS, min_size=1, max_size=4), raw=FILTERS)
def test_postgres_and_python_agree(connection: psycopg.Connection[Any], documents: list[Document], raw: Any) -> None:
    expected = {document.document_id for document in documents if matches(raw, document)}
    assert found(connection, documents, raw) == expected


def neighbours(have: Any) -> list[Any]:
    """Values to compare with what a document has: it, a part of it, and what is nearly it."""
    match have:
        case bool():
            return [have, not have, int(have), str(have).lower()]
        case int() | float():
            return [have, have + 1, -have, float(have) if abs(have) < 1e300 else 0, str(have)]
        case str():
            blind = [have.replace(letter, wildcard) for letter in have[:2] for wildcard in "_%"]
            return [have, have[1:], have[:-1], have[1:-1], have + "%", have + "x", have.upper(), "%", "", *blind]
        case list():
            return [*(near for item in have for near in neighbours(item)), ""]
    return ["", 0, False]


def comparisons_with(field: str, value: Any) -> Iterator[Any]:
    """Every operator that takes this value."""
    if field == "tags":
        if isinstance(value, str):
            yield {"field": field, "op": "contains", "value": value}
        return
    for operator in ("eq", "ne", "contains"):
        yield {"field": field, "op": operator, "value": value}
    for operator in ("in", "not_in"):
        yield {"field": field, "op": operator, "value": [value]}
    if not isinstance(value, bool):
        for operator in ("lt", "lte", "gt", "gte"):
            yield {"field": field, "op": operator, "value": value}
    if isinstance(value, str):
        yield {"field": field, "op": "starts_with", "value": value}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=DOCUMENTS)
def test_postgres_and_python_agree_where_it_is_close(connection: psycopg.Connection[Any], document: Document) -> None:
    """Two things drawn apart hardly ever meet, so here each comparison is made from what the document has."""
    fields = [*(f"metadata.{key}" for key in document.metadata), *OWN[:-1]]
    filters = [
        raw
        for field in fields
        for value in neighbours(attribute(field, document))
        for raw in comparisons_with(field, value)
    ]
    with connection.transaction(force_rollback=True):
        insert(connection, document)
        for raw in filters:
            assert (document.document_id in select(connection, raw)) == matches(raw, document), raw


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=DOCUMENTS, data=st.data())
def test_a_filter_made_from_a_document_finds_it(
    connection: psycopg.Connection[Any], document: Document, data: st.DataObject
) -> None:
    """Agreement over filters that match nothing would prove little."""
    scalars = {key: value for key, value in document.metadata.items() if isinstance(value, str | int | float)}
    parts: list[Any] = [{"field": "name", "op": "eq", "value": document.name}]
    parts += [{"field": f"metadata.{key}", "op": "in", "value": [value, 7]} for key, value in scalars.items()]
    parts += [{"field": "tags", "op": "contains", "value": tag} for tag in document.tags]
    parts += [{"field": "document_id", "op": "eq", "value": str(document.document_id).upper()}]
    raw = {"and": data.draw(st.permutations(parts))}
    assert found(connection, [document], raw) == {document.document_id}
    assert found(connection, [document], {"not": raw}) == set()


@pytest.mark.parametrize("key", [key for key in HOSTILE if key])
@pytest.mark.parametrize("operator", ["eq", "lt", "contains", "starts_with"])
def test_nothing_a_caller_writes_is_in_the_sql(key: str, operator: str) -> None:
    raw = {"field": f"metadata.{key}", "op": operator, "value": key}
    condition = compile_filter(parse_filter(raw))
    harmless = compile_filter(parse_filter({"field": "metadata.k", "op": operator, "value": "v"}))
    assert condition.clause == harmless.clause
    assert key in condition.values.values()


@pytest.mark.parametrize("operator", ["eq", "lt", "lte", "gt", "gte", "in", "contains", "starts_with", "ne", "not_in"])
def test_another_type_satisfies_only_ne_and_not_in(connection: psycopg.Connection[Any], operator: str) -> None:
    others: list[dict[str, Any]] = [{}, {"k": None}, {"k": ["x"]}, {"k": {"v": "v"}}, {"k": True}, {"k": 1}]
    documents = [Document(uuid4(), "n", None, None, [], None, None, START, metadata) for metadata in others]
    raw = {"field": "k", "op": operator, "value": ["v"] if operator in {"in", "not_in"} else "v"}
    expected = {document.document_id for document in documents} if operator in {"ne", "not_in"} else set()
    assert found(connection, documents, raw) == expected


def test_a_list_of_a_thousand_is_quick_enough(connection: psycopg.Connection[Any]) -> None:
    document = Document(uuid4(), "n", None, None, [], None, None, START, {"k": 999})
    raw = {"or": [{"field": "k", "op": "in", "value": list(range(1000))}] * 100}
    assert found(connection, [document], raw) == {document.document_id}
