"""`report.pdf.metadata.json` beside `report.pdf`: attributes of a document, as Bedrock Knowledge Bases write them.

{"metadataAttributes": {"year": 2024, "team": {"value": {"type": "STRING", "stringValue": "legal"}}}}
"""

import json
import math
from typing import Any

from edda.errors import InvalidMetadata

MAX_FILE_BYTES = 256 * 1024
MAX_ATTRIBUTES = 50  # this and the next two: Bedrock Knowledge Bases' quotas
MAX_KEY_CHARACTERS = 200
MAX_STRING_CHARACTERS = 2048
MAX_METADATA_BYTES = 16 * 1024  # as JSON: 100 hits with their metadata have to fit into an answer of 6 MB

TYPED_FIELDS: dict[str, tuple[str, Any]] = {
    "STRING": ("stringValue", str),
    "NUMBER": ("numberValue", (int, float)),
    "BOOLEAN": ("booleanValue", bool),
    "STRING_LIST": ("stringListValue", list),
}


def parse_object_metadata(data: bytes) -> dict[str, Any]:
    """The attributes as plain values. Raises InvalidMetadata that says what is wrong."""
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidMetadata(f"The metadata file is not JSON: {error}.") from None
    attributes = document.get("metadataAttributes") if isinstance(document, dict) else None
    if not isinstance(attributes, dict):
        raise InvalidMetadata('The metadata file has no object named "metadataAttributes".')
    return check_metadata({key: _plain(key, value) for key, value in attributes.items()})


def check_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """The same metadata, if it keeps the limits. Raises InvalidMetadata."""
    if len(metadata) > MAX_ATTRIBUTES:
        raise InvalidMetadata(f"There are {len(metadata)} metadata attributes; {MAX_ATTRIBUTES} are allowed.")
    for key, value in metadata.items():
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS or not _is_clean(key):
            raise InvalidMetadata(f"A metadata key must have 1 to {MAX_KEY_CHARACTERS} printable characters.")
        values = value if isinstance(value, list) else [value]
        if not all(_is_scalar(item) for item in values):
            raise InvalidMetadata(f"Metadata attribute {key!r} must be a string, number, boolean or list of these.")
        if any(isinstance(item, str) and (len(item) > MAX_STRING_CHARACTERS or not _is_clean(item)) for item in values):
            raise InvalidMetadata(
                f"Metadata attribute {key!r} must have at most {MAX_STRING_CHARACTERS} characters, and no NUL."
            )
    if len(json.dumps(metadata, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise InvalidMetadata(f"The metadata is larger than {MAX_METADATA_BYTES} bytes.")
    return metadata


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _plain(key: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    typed = value.get("value")
    if not isinstance(typed, dict) or str(typed.get("type")) not in TYPED_FIELDS:
        raise InvalidMetadata(f"Metadata attribute {key!r} has an unknown type.")
    kind = typed["type"]
    field, wanted = TYPED_FIELDS[kind]
    if not isinstance(typed.get(field), wanted):
        raise InvalidMetadata(f"Metadata attribute {key!r} of type {kind} needs a {field}.")
    return typed[field]


def _is_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)  # `1e999` is infinite; JSON, and Postgres with it, knows no such number
    return value is None or isinstance(value, str | int | bool)


def _is_clean(text: str) -> bool:
    """Postgres takes neither NUL nor a lone surrogate."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
