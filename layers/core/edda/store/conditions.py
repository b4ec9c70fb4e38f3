"""Filters as SQL. Everything a caller wrote, keys included, travels as a query parameter, never in the text.

The queries these conditions go into call documents `d` and document_versions `v`. Each comparison is made two-valued
with IS TRUE, so that NOT means what it says for rows that lack the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from edda.filters import And, Comparison, DocumentField, Filter, MetadataField, Not, Operator, Or, Scalar
from edda.models import DocumentStatus


@dataclass(frozen=True, slots=True)
class Condition:
    """A boolean SQL expression and the values of its named placeholders."""

    clause: sql.Composable
    values: dict[str, Any]


# As in `_view` of documents.py: without a version, an upload is waited for until its time is up.
STATUS = sql.SQL("COALESCE(v.status, CASE WHEN d.upload_expires_at < now() THEN 'failed' ELSE 'waiting' END)")

TEXTS: dict[DocumentField, sql.SQL] = {
    DocumentField.NAME: sql.SQL("d.name"),
    DocumentField.TITLE: sql.SQL("COALESCE(d.title, v.title)"),
    DocumentField.MEDIA_TYPE: sql.SQL("v.media_type"),
    DocumentField.LANGUAGE: sql.SQL("v.language"),
}
# psycopg sends each Python type as its own SQL type; the casts are for arrays.
OTHERS: dict[DocumentField, tuple[sql.SQL, sql.SQL]] = {
    DocumentField.DOCUMENT_ID: (sql.SQL("d.document_id"), sql.SQL("uuid")),
    DocumentField.CREATED_AT: (sql.SQL("d.created_at"), sql.SQL("timestamptz")),
}
COMPARE: dict[Operator, LiteralString] = {
    Operator.EQ: "{left} = {right}",
    Operator.LT: "{left} < {right}",
    Operator.LTE: "{left} <= {right}",
    Operator.GT: "{left} > {right}",
    Operator.GTE: "{left} >= {right}",
    Operator.IN: "{left} = ANY ({right}::{type}[])",
}
# Of text: in the C collation, whose order is that of the code points.
COMPARE_TEXT: dict[Operator, LiteralString] = COMPARE | {
    Operator.CONTAINS: "strpos({left}, {right}) > 0",
    Operator.STARTS_WITH: "starts_with({left}, {right})",
}
OPPOSITES = {Operator.NE: Operator.EQ, Operator.NOT_IN: Operator.IN}
NEVER = sql.SQL("false")


def compile_filter(filter_: Filter | None) -> Condition:
    """The filter as a condition on `d` and `v`; without one, a condition that is always true."""
    if filter_ is None:
        return Condition(sql.SQL("true"), {})
    compiler = _Compiler()
    return Condition(compiler.compile(filter_), compiler.values)


def with_status(condition: Condition, status: DocumentStatus | None) -> Condition:
    """The condition, and that the document's newest version stands here. For queries whose `v` may be missing."""
    if status is None:
        return condition
    clause = sql.SQL("({}) AND {} = %(status)s").format(condition.clause, STATUS)
    return replace(condition, clause=clause, values={**condition.values, "status": str(status)})


class _Compiler:
    """Numbers the placeholders f0, f1, ... as it meets their values."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def compile(self, filter_: Filter) -> sql.Composable:
        match filter_:
            case And(parts):
                return self._joined(" AND ", parts)
            case Or(parts):
                return self._joined(" OR ", parts)
            case Not(part):
                return sql.SQL("NOT {}").format(self.compile(part))
            case Comparison(operator=operator) if operator in OPPOSITES:
                return sql.SQL("NOT {}").format(self.compile(replace(filter_, operator=OPPOSITES[operator])))
            case Comparison():
                return sql.SQL("(({}) IS TRUE)").format(self._comparison(filter_))

    def _joined(self, word: LiteralString, parts: Sequence[Filter]) -> sql.Composable:
        return sql.SQL("({})").format(sql.SQL(word).join([self.compile(part) for part in parts]))

    def _comparison(self, comparison: Comparison) -> sql.Composable:
        where, operator = comparison.field, comparison.operator
        if isinstance(where, MetadataField):
            return self._in_metadata(where.key, operator, comparison.value)
        if where is DocumentField.TAGS:
            return sql.SQL("{} = ANY (d.tags)").format(self._placeholder(comparison.value))  # `contains` alone
        if where in OTHERS:
            left, type_ = OTHERS[where]
            return self._compared(COMPARE[operator], left, comparison.value, type_)
        return self._in_text(TEXTS[where], operator, comparison.value)

    def _in_text(self, left: sql.Composable, operator: Operator, value: Scalar | tuple[Scalar, ...]) -> sql.Composable:
        if isinstance(value, tuple):
            value = tuple(item for item in value if isinstance(item, str))
        elif not isinstance(value, str):
            return NEVER
        collated = sql.SQL('({} COLLATE "C")').format(left)
        return self._compared(COMPARE_TEXT[operator], collated, value, sql.SQL("text"))

    def _in_metadata(self, key: str, operator: Operator, value: Scalar | tuple[Scalar, ...]) -> sql.Composable:
        name = self._placeholder(key)
        json = sql.SQL("(d.metadata -> {}::text)").format(name)
        text = sql.SQL("(d.metadata ->> {}::text)").format(name)
        is_type = sql.SQL("jsonb_typeof({}) = {} AND {}")
        if operator in {Operator.EQ, Operator.IN}:
            # jsonb compares by type first, and numbers by their value.
            values = [Jsonb(item) for item in value] if isinstance(value, tuple) else Jsonb(value)
            return self._compared(COMPARE[operator], json, values, sql.SQL("jsonb"))
        if operator is Operator.CONTAINS:
            element = sql.SQL("{} @> {}").format(json, self._placeholder(Jsonb(value)))
            in_list = is_type.format(json, sql.SQL("'array'"), element)
            if not isinstance(value, str):
                return in_list
            in_text = is_type.format(json, sql.SQL("'string'"), self._in_text(text, operator, value))
            return sql.SQL("({}) OR ({})").format(in_list, in_text)
        if isinstance(value, str):
            return is_type.format(json, sql.SQL("'string'"), self._in_text(text, operator, value))
        numbers = self._compared(COMPARE[operator], json, Jsonb(value), sql.SQL("jsonb"))
        return is_type.format(json, sql.SQL("'number'"), numbers)

    def _compared(self, form: LiteralString, left: sql.Composable, value: Any, type_: sql.SQL) -> sql.Composable:
        if isinstance(value, tuple):
            value = list(value)
        return sql.SQL(form).format(left=left, right=self._placeholder(value), type=type_)

    def _placeholder(self, value: Any) -> sql.Placeholder:
        name = f"f{len(self.values)}"
        self.values[name] = value
        return sql.Placeholder(name)
