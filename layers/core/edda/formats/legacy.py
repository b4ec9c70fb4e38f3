"""RTF, Outlook messages and Office files of before 2007, by kreuzberg."""

import re

from edda.errors import Corrupt, Encrypted, UnsupportedType
from edda.formats.draft import Draft
from edda.languages import TEXT_ONLY

_PASSWORD = re.compile(r"password|encrypt", re.IGNORECASE)
_OUTDATED = re.compile(r"magic number|unsupported.*version|version.*unsupported|BIFF[2-5]", re.IGNORECASE)


def read_legacy(data: bytes, media_type: str, draft: Draft) -> None:
    """Add the text of a file in one of kreuzberg's formats. Raises Encrypted, UnsupportedType, Corrupt."""
    import kreuzberg

    config = kreuzberg.ExtractionConfig(
        **TEXT_ONLY,
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    try:
        result = kreuzberg.extract_bytes_sync(data, media_type, config)
    except kreuzberg.KreuzbergError as error:
        raise _our_error(str(error)) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise _our_error(str(error)) from error
    title = result.metadata.get("title") or result.metadata.get("subject")
    draft.title = title.strip() or None if isinstance(title, str) else None
    if media_type == "application/vnd.ms-excel" and result.tables:
        _add_sheets(result, draft)
        return
    for paragraph in re.split(r"\n\s*\n", result.content):
        draft.paragraph(paragraph)


def _add_sheets(result: object, draft: Draft) -> None:
    """A heading and a table for each sheet; sheets count as pages."""
    # kreuzberg ships no types of what it returns.
    names = result.metadata.get("sheet_names") or []  # type: ignore[attr-defined]
    for table in result.tables:  # type: ignore[attr-defined]
        draft.page = table.page_number
        if table.page_number <= len(names):
            draft.heading(names[table.page_number - 1], 1)
        draft.table(table.cells)


def _our_error(message: str) -> Exception:
    if _PASSWORD.search(message):
        return Encrypted()
    if _OUTDATED.search(message):
        return UnsupportedType()
    return Corrupt()
