"""PDF by pdfium: the text of each page in reading order, paragraphs, the outline as headings."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edda.errors import Corrupt, Encrypted
from edda.formats.draft import Draft

# pdfium marks a hyphen that only divides a word at the end of a line with U+FFFE (older: U+0002).
_DIVIDED_WORD = re.compile("[\ufffe\x02]\r?\n?")
_SINGLE_LETTER = re.compile("(?<=\\b\\w)[\ufffe\x02]\r?\n?")  # d-dimensional keeps its hyphen
_MAX_OUTLINE_ENTRIES = 20_000
_MUCH_TEXT = 4_000_000  # characters


def read_pdf(source: bytes | Path, draft: Draft) -> None:
    """Add the text of every page. Raises Encrypted, Corrupt."""
    read_pages(source, draft, 0, None)


def read_pages(source: bytes | Path, draft: Draft, first: int, most: int | None) -> int | None:
    """Add the text of `most` pages from the one with index `first`, or of fewer if they have much text.

    The index of the page after them, None after the last. Of a file only what these pages need is read. Raises
    Encrypted, Corrupt.
    """
    import pypdfium2 as pdfium
    from pypdfium2 import raw

    try:
        document = pdfium.PdfDocument(source)
    except pdfium.PdfiumError as error:
        code = getattr(error, "err_code", None)
        if code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY) or "password" in str(error).lower():
            raise Encrypted from error
        raise Corrupt from error
    try:
        draft.title = _title(document)
        outline = _outline(document)
        pages = len(document)
        end = pages if most is None else min(first + most, pages)
        for number in range(first, end):
            draft.page = number + 1
            _add_page(_page_text(document, number), outline.get(number, []), draft)
            if most is not None and draft.length > _MUCH_TEXT:
                end = number + 1
                break
        return end if end < pages else None
    finally:
        document.close()


def _title(document: Any) -> str | None:
    title = document.get_metadata_value("Title").replace("\x00", "").strip("\ufeff \t\r\n")
    return title or None


def _page_text(document: Any, number: int) -> str:
    """A page's text, "" for a page that is broken."""
    import pypdfium2 as pdfium

    try:
        page = document[number]
    except pdfium.PdfiumError:
        return ""
    try:
        text_page = page.get_textpage()
        try:
            text: str = text_page.get_text_range(errors="replace")
        finally:
            text_page.close()
    except pdfium.PdfiumError:
        return ""
    finally:
        page.close()
    return _DIVIDED_WORD.sub("", _SINGLE_LETTER.sub("-", text)).replace("\r\n", "\n")


def _outline(document: Any) -> dict[int, list[tuple[int, str]]]:
    """The document's own table of contents: for each page index the (level, title) of what begins there."""
    import pypdfium2 as pdfium

    entries: dict[int, list[tuple[int, str]]] = {}
    try:
        for count, bookmark in enumerate(document.get_toc(max_depth=6)):
            if count >= _MAX_OUTLINE_ENTRIES:
                break
            destination = bookmark.get_dest()
            page = destination.get_index() if destination is not None else None
            title = " ".join(bookmark.get_title().split())
            if page is not None and title:
                entries.setdefault(page, []).append((min(bookmark.level + 1, 6), title))
    except (pdfium.PdfiumError, ValueError, UnicodeError):
        return {}
    return entries


def _add_page(text: str, outline: list[tuple[int, str]], draft: Draft) -> None:
    """Paragraphs of a page. A line that reads like an entry of the outline is that heading."""
    headings = {_key(title): level for level, title in outline}
    for lines in _paragraphs(text):
        level = headings.pop(_key(" ".join(lines)), None) if len(lines) <= 3 else None
        if level is not None:
            draft.heading(" ".join(lines), level)
            continue
        start = 0
        for index, line in enumerate(lines):
            if (level := headings.pop(_key(line), None)) is not None:
                draft.paragraph("\n".join(lines[start:index]))
                draft.heading(line, level)
                start = index + 1
        draft.paragraph("\n".join(lines[start:]))


def _key(title: str) -> str:
    """Titles are compared without their numbering, white space and case: outlines often leave those out."""
    return re.sub(r"^[\divxIVX.\s]+(?=\D)|\W+", "", title).casefold()


def _paragraphs(text: str) -> Iterator[list[str]]:
    """The lines of each paragraph. pdfium knows lines only: a paragraph ends with a sentence on a short line."""
    lines = [line.strip() for line in text.split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    usual = lengths[int(len(lengths) * 0.8)] if lengths else 0
    paragraph: list[str] = []
    for line in lines:
        if line:
            paragraph.append(line)
        if paragraph and (not line or (len(line) < 0.8 * usual and line.endswith((".", "!", "?", ":", "。")))):
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph
