"""Bytes to a parsed document: clean text with its structure, or a DocumentError that says why not.

Pure: no network, no files, no clock. Hostile input can still cost memory and time without bounds, or crash native code:
run it under `adapters.parser_process`.
"""

from collections.abc import Callable, Iterator

from edda import media_types as kinds
from edda.decoding import clean, decode, decode_html
from edda.detecting import declared_charset, detect
from edda.errors import Corrupt, NoText
from edda.formats.draft import Draft
from edda.formats.plain import code_blocks, heading_title, markdown_blocks, plain_blocks, rst_blocks, table_blocks
from edda.languages import language_of
from edda.models import Block, BlockKind, ParsedDocument


def parse(data: bytes, name: str, content_type: str | None) -> ParsedDocument:
    """The text of a file and its structure. `name` and `content_type` count only where the bytes leave doubt.

    For text-like files (plain text, Markdown, source code, tables and data as text) the document's text is the file
    itself, decoded and cleaned, so that offsets are offsets into what the user wrote. For all others it is plain
    text without markup, blocks a blank line apart, cells a tab apart.

    Raises NoText, Encrypted, Corrupt, UnsupportedType, DecompressionLimit.
    """
    media_type = detect(data, name, content_type)
    charset = declared_charset(content_type)
    try:
        if media_type in _SOURCES:
            document = _parse_source(data, media_type, charset)
        else:
            document = _parse_formatted(data, media_type, charset)
    except RecursionError as error:
        raise Corrupt("The file is nested too deeply.") from error
    if not document.text.strip():
        raise NoText
    return document


def _parse_source(data: bytes, media_type: str, charset: str | None) -> ParsedDocument:
    text = clean(decode(data, charset))
    blocks = source_blocks(text, media_type)
    title = first_heading(text, blocks)
    language = None if media_type == kinds.CODE else language_of(text)
    return ParsedDocument(text, blocks, media_type, title, language)


def _parse_formatted(data: bytes, media_type: str, charset: str | None) -> ParsedDocument:
    draft = Draft()
    _read(data, media_type, charset, draft)
    text = draft.text
    title = " ".join(clean(draft.title).split()) if draft.title else first_heading(text, draft.blocks)
    return ParsedDocument(text, draft.blocks, media_type, title or None, language_of(text))


def _read(data: bytes, media_type: str, charset: str | None, draft: Draft) -> None:
    """Fill the draft. Readers are imported when they are needed: a child process starts faster."""
    if media_type == kinds.PDF:
        from edda.formats.pdf import read_pdf

        read_pdf(data, draft)
    elif media_type == kinds.HTML:
        from edda.formats.html import read_html

        read_html(decode_html(data, charset), draft)
    elif media_type == kinds.XML:
        from edda.formats.xml import read_xml

        read_xml(data, charset, draft)
    elif media_type in (kinds.EMAIL, kinds.MBOX):
        from edda.formats.mail import read_mail, read_mbox

        (read_mail if media_type == kinds.EMAIL else read_mbox)(data, draft)
    elif media_type == kinds.DOCX:
        from edda.formats.word import read_docx

        read_docx(data, draft)
    elif media_type == kinds.PPTX:
        from edda.formats.slides import read_pptx

        read_pptx(data, draft)
    elif media_type == kinds.XLSX:
        from edda.formats.sheets import read_xlsx

        read_xlsx(data, draft)
    elif media_type in (kinds.ODT, kinds.ODS, kinds.ODP):
        from edda.formats.opendocument import read_opendocument

        read_opendocument(data, draft)
    elif media_type == kinds.EPUB:
        from edda.formats.epub import read_epub

        read_epub(data, draft)
    elif media_type in (kinds.RTF, kinds.DOC, kinds.XLS, kinds.PPT, kinds.MSG):
        from edda.formats.legacy import read_legacy

        read_legacy(data, media_type, draft)
    else:
        raise AssertionError(media_type)


def source_blocks(text: str, media_type: str, *, is_start: bool = True) -> tuple[Block, ...]:
    """The structure of a text-like file, or of a part of it (`is_start`: the first) that begins with a line."""
    if media_type == kinds.MARKDOWN:
        return tuple(markdown_blocks(text, is_start=is_start))
    return tuple(_SOURCES[media_type](text))


def first_heading(text: str, blocks: tuple[Block, ...]) -> str | None:
    """The title of a document that does not name its own."""
    first = next((block for block in blocks[:20] if block.kind is BlockKind.HEADING), None)
    return heading_title(text, first) or None if first else None


_SOURCES: dict[str, Callable[[str], Iterator[Block]]] = {
    kinds.TEXT: plain_blocks,
    kinds.MARKDOWN: markdown_blocks,
    kinds.RST: rst_blocks,
    **dict.fromkeys((kinds.CSV, kinds.TSV), table_blocks),
    **dict.fromkeys((kinds.JSON, kinds.NDJSON, kinds.YAML, kinds.CODE), code_blocks),
}
# Of these the middle can be understood without the beginning. (In reStructuredText the levels of titles cannot. Of
# Markdown a middle that begins within fenced code cannot: docs/long-files.md.)
STREAMED = frozenset(_SOURCES) - {kinds.RST}
