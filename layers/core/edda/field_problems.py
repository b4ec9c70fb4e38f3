"""What pydantic found wrong with what a caller sent, in plain words."""

from collections.abc import Iterable, Mapping
from typing import Any

PLAIN_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}
LENGTHS = {
    "string_too_short": ("min_length", "at least"),
    "too_short": ("min_length", "at least"),
    "string_too_long": ("max_length", ""),
    "too_long": ("max_length", ""),
}


def field_problems(errors: Iterable[Mapping[str, Any]], *, skip: int = 0) -> list[dict[str, str]]:
    """Where each mistake is, and what it is. `skip`: parts of the place that are no field's name; the first one is said
    where there is no other. Names of alternatives, which are in parentheses, are left out.
    """
    problems = []
    for error in errors:
        parts = [str(part) for part in error["loc"][skip:]]
        place = ".".join(part for part in parts if not part.startswith("(")) or str((*error["loc"], "body")[0])
        problems.append({"field": place, "message": _message(error)})
    return problems


def _message(error: Mapping[str, Any]) -> str:
    facts = error.get("ctx", {})
    if error["type"] in LENGTHS:
        limit, least = LENGTHS[error["type"]]
        unit = "characters" if isinstance(error.get("input"), str) else "items"
        return "is empty" if facts[limit] == 1 and least else f"must have {least or 'at most'} {facts[limit]} {unit}"
    # Pydantic's own words may quote what was sent.
    return PLAIN_WORDS.get(error["type"], "").format(**facts) or str(error["msg"]).removeprefix("Value error, ")
