"""What each format becomes."""

import itertools

import pytest
from edda.errors import DocumentError, Encrypted
from edda.models import Block, BlockKind, ParsedDocument
from edda.parsing import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import files


def outline(document: ParsedDocument) -> list[tuple[str, int, str]]:
    """(kind, level, text) of each block."""
    return [(block.kind.value, block.level, document.text[block.start : block.end]) for block in document.blocks]


def parsed(data: str | bytes, name: str, content_type: str | None = None) -> ParsedDocument:
    return parse(data.encode() if isinstance(data, str) else data, name, content_type)


# --- text that is its own source ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.csv", "a.tsv", "a.json", "a.ndjson", "a.yaml", "a.py"])
def test_offsets_are_offsets_into_the_users_own_file(name: str) -> None:
    source = 'Größe: "1"\n\n  indented,\ttab\n\nend 😀\n'
    document = parse(("\ufeff" + source.replace("\n", "\r\n")).encode(), name, None)
    assert document.text == source


def test_markdown_has_headings_lists_tables_and_fences() -> None:
    source = (
        "---\ntitle: x\n---\n# One\ntext\nmore\n\nTwo\n---\n- a\n- b\n\n```sh\n# no heading\n\nls\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n### Three ###\n"
    )
    document = parsed(source, "a.md")
    assert outline(document) == [
        ("code", 0, "---\ntitle: x\n---"),
        ("heading", 1, "# One"),
        ("paragraph", 0, "text\nmore"),
        ("heading", 2, "Two\n---"),
        ("list", 0, "- a\n- b"),
        ("code", 0, "```sh\n# no heading\n\nls\n```"),
        ("table", 0, "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("heading", 3, "### Three ###"),
    ]
    assert document.title == "One"


def test_restructured_text_has_titles_in_the_order_of_their_adornments() -> None:
    source = "=====\nGuide\n=====\n\nFirst\n-----\n\ntext::\n\n    code\n\n    more\n\n- item\n\nDeeper\n~~~~~~\n\nSecond\n------\n"  # noqa: E501
    assert outline(parsed(source, "a.rst")) == [
        ("heading", 1, "=====\nGuide\n====="),
        ("heading", 2, "First\n-----"),
        ("paragraph", 0, "text::"),
        ("code", 0, "    code\n\n    more"),
        ("list", 0, "- item"),
        ("heading", 3, "Deeper\n~~~~~~"),
        ("heading", 2, "Second\n------"),
    ]


def test_plain_text_has_a_paragraph_between_blank_lines() -> None:
    assert outline(parsed("one\ntwo\n \n\nthree\n", "a.txt")) == [
        ("paragraph", 0, "one\ntwo"),
        ("paragraph", 0, "three"),
    ]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.py", "a.csv", "a.html", "a.xml", "a.eml"])
@given(source=st.text(alphabet="#=-~`|: \n\tab<>/p&.é😀\u0301", max_size=120))
@settings(max_examples=60, deadline=None)
def test_blocks_are_in_order_within_the_text_and_cover_it(name: str, source: str) -> None:
    try:
        document = parsed(source, name)
    except DocumentError:
        return
    edges = [edge for block in document.blocks for edge in (block.start, block.end)]
    assert edges == sorted(edges)
    covered = "".join(document.text[block.start : block.end] for block in document.blocks)
    assert "".join(covered.split()) == "".join(document.text.split())
    assert all(document.text[block.start : block.end].strip() for block in document.blocks)


# --- HTML and XML ------------------------------------------------------------------------------------------------


def test_html_becomes_blocks_of_plain_text() -> None:
    page = """<!doctype html><title>Ropes</title><script>var a = "<p>no";</script><style>p {}</style>
    <h1>Hemp</h1><p>Strong <b>and</b>&nbsp;cheap,<br>they say.<ul><li>one<li>two <i>more</i></ul>
    <table><tr><th>Rope<th>Price<tr><td>Hemp<td>2&nbsp;<b>EUR</b></table><pre>a  b
  c</pre><!-- hidden --><div>last"""
    document = parsed(page, "a.html")
    assert outline(document) == [
        ("heading", 1, "Ropes"),
        ("heading", 1, "Hemp"),
        ("paragraph", 0, "Strong and\u00a0cheap,\nthey say."),
        ("list", 0, "one\ntwo more"),
        ("table", 0, "Rope\tPrice\nHemp\t2 EUR"),
        ("code", 0, "a  b\n  c"),
        ("paragraph", 0, "last"),
    ]
    assert document.title == "Ropes"


def test_a_table_that_lays_out_a_page_is_no_table() -> None:
    page = "<table><tr><td>menu<td><h1>Title</h1><table><tr><td>1<td>2</table><p>text</table>"
    assert outline(parsed("<html>" + page, "a.html")) == [
        ("paragraph", 0, "menu"),
        ("heading", 1, "Title"),
        ("table", 0, "1\t2"),
        ("paragraph", 0, "text"),
    ]


def test_ruby_keeps_the_word_and_drops_how_it_is_said() -> None:
    assert parsed("<html><ruby>東<rp>(<rt>とう<rp>)</ruby><ruby>京<rt>きょう</ruby>です", "a.html").text == "東京です"


@pytest.mark.parametrize(
    "markup", ["<![if !IE]>text<![endif]>", "<!>text", "</>text", "<a b='text", "<![CDATA[text]]>"]
)
def test_broken_html_is_read_as_far_as_it_goes(markup: str) -> None:
    parsed(f"<html><p>first {markup} last", "a.html")


def test_xml_is_its_text_a_line_for_each_element() -> None:
    source = "<?xml version='1.0'?><a><b>one</b><b>two <i>and</i> a half</b>&nbsp;<c x='no'/></a>"
    assert parsed(source, "a.xml").text == "one\ntwo and a half"


def test_xml_reads_no_file_of_ours() -> None:
    source = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>before &x; after</a>'
    assert parsed(source, "a.xml").text == "before after"


def test_xml_that_is_not_well_formed_is_taken_as_it_stands() -> None:
    assert "half" in parsed("<?xml version='1.0'?><a>half", "a.xml").text


# --- mail --------------------------------------------------------------------------------------------------------


def test_mail_has_its_subject_text_and_people() -> None:
    source = (
        b"From: =?ISO-8859-1?Q?Keld_J=F8rn?= <keld@example.org>\r\nTo: a@example.org\r\n"
        b"Subject: =?utf-8?B?R3LDtsOfZQ==?=\r\nDate: Mon, 1 Jun 2009 04:28:28 +0000\r\n"
        b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"Sch=F6ne =\r\nGr=FC=DFe\r\n"
    )
    document = parse(source, "a.eml", None)
    assert outline(document) == [
        ("heading", 1, "Größe"),
        ("paragraph", 0, "Schöne Grüße"),
        (
            "paragraph",
            0,
            "From: Keld Jørn <keld@example.org>\nTo: a@example.org\nDate: Mon, 1 Jun 2009 04:28:28 +0000",
        ),
    ]


def test_every_readable_part_of_a_mail_is_read_and_others_are_named() -> None:
    source = """Subject: Parts
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: multipart/alternative; boundary=y

--y
Content-Type: text/plain

plain
--y
Content-Type: text/html

<p>rich
--y--
--x
Content-Type: message/rfc822

Subject: Inner
From: b@example.org

inside
--x
Content-Type: application/pdf
Content-Disposition: attachment; filename="tides.pdf"

%PDF
--x--
"""
    text = parsed(source, "a.eml").text
    assert text == "Parts\n\nplain\n\nrich\n\ninside\n\nSubject: Inner\nFrom: b@example.org\n\nAttachment: tides.pdf"


def test_an_encrypted_mail_is_encrypted() -> None:
    with pytest.raises(Encrypted):
        parsed("Subject: x\nFrom: a\nContent-Type: multipart/encrypted; boundary=x\n\n--x\n\nsecret\n--x--\n", "a.eml")


def test_a_mailbox_is_every_mail_in_it() -> None:
    one = "From a@example.org Mon Jun 01 04:28:28 2009\nFrom: a@example.org\nSubject: {}\n\n{}\n\n"
    document = parsed(one.format("First", "one\n>From here") + one.format("Second", "two"), "a.mbox")
    assert [text for kind, _, text in outline(document) if kind == "heading"] == ["First", "Second"]
    assert "one\nFrom here" in document.text


# --- Office ------------------------------------------------------------------------------------------------------


def test_word_has_headings_lists_tables_notes_boxes_and_headers() -> None:
    body = (
        files.word_paragraph("Harbour", "Title1")
        + '<w:p><w:pPr><w:numPr><w:ilvl w:val="0"/></w:numPr></w:pPr><w:r><w:t>item</w:t></w:r></w:p>'
        + "<w:p><w:r><w:t>kept</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:tab/><w:t>added</w:t></w:r></w:ins>"
        "<w:r><w:pict><w:txbxContent><w:p><w:r><w:t>in a box</w:t></w:r></w:p></w:txbxContent></w:pict></w:r></w:p>"
        "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc>"
        "</w:tr></w:tbl>"
    )
    document = parse(
        files.docx(
            body,
            ("f", "footnotes", "footnotes.xml"),
            ("h", "header", "header1.xml"),
            ("s", "styles", "styles.xml"),
            parts={
                "footnotes.xml": files.word_part(
                    "footnotes",
                    '<w:footnote w:type="separator"><w:p/></w:footnote><w:footnote>'
                    + files.word_paragraph("a footnote")
                    + "</w:footnote>",
                ),
                "header1.xml": files.word_part("hdr", files.word_paragraph("a header")),
                "styles.xml": files.word_part(
                    "styles",
                    '<w:style w:styleId="Base"><w:name w:val="heading 2"/></w:style>'
                    '<w:style w:styleId="Title1"><w:name w:val="Mine"/><w:basedOn w:val="Base"/></w:style>',
                ),
            },
        ),
        "a.docx",
        None,
    )
    assert outline(document) == [
        ("heading", 2, "Harbour"),
        ("list", 0, "item"),
        ("paragraph", 0, "kept\tadded"),
        ("paragraph", 0, "in a box"),
        ("table", 0, "a\tb"),
        ("paragraph", 0, "a footnote"),
        ("paragraph", 0, "a header"),
    ]


def test_an_html_part_of_a_word_file_is_read() -> None:
    data = files.docx('<w:altChunk r:id="c"/>', ("c", "aFChunk", "c.html"), parts={"c.html": "<html><h1>Inside</h1>"})
    assert outline(parse(data, "a.docx", None)) == [("heading", 1, "Inside")]


def test_slides_have_numbers_titles_groups_tables_and_notes() -> None:
    table = "<a:tbl><a:tr><a:tc><a:txBody><a:p><a:r><a:t>1</a:t></a:r></a:p></a:txBody></a:tc></a:tr></a:tbl>"
    data = files.pptx(
        files.shape("Opening", "title") + f"<p:grpSp>{files.shape('grouped')}</p:grpSp>",
        f"<p:graphicFrame>{table}</p:graphicFrame>" + files.shape("7", "sldNum"),
        parts={
            "ppt/slides/_rels/slide0.xml.rels": files.relationships(("n", "notesSlide", "../notes/notes0.xml")),
            "ppt/notes/notes0.xml": files.notes("say hello"),
        },
    )
    document = parse(data, "a.pptx", None)
    assert outline(document) == [
        ("heading", 1, "Opening"),
        ("paragraph", 0, "grouped"),
        ("paragraph", 0, "say hello"),
        ("table", 0, "1"),
    ]
    assert [block.page for block in document.blocks] == [1, 1, 1, 2]


def test_a_workbook_has_iso_dates_plain_numbers_and_its_gaps() -> None:
    rows = (
        '<row><c r="B2" t="s"><v>0</v></c><c r="D2" t="inlineStr"><is><t>in line</t></is></c></row>'
        '<row><c r="B3" s="1"><v>43363</v></c><c r="C3" s="2"><v>43363.75</v></c><c r="D3"><v>0.1000000000000001</v></c>'  # noqa: E501
        '<c r="E3" t="b"><v>1</v></c><c r="F3" s="3"><v>0.5</v></c></row>'
    )
    styles = (
        '<numFmts><numFmt numFmtId="164" formatCode="[$-409]d\\-mmm\\-yy h:mm"/></numFmts>'
        '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="20"/></cellXfs>'
    )
    strings = "<si><r><t>To</t></r><r><t>kyo</t></r><rPh><t>とうきょう</t></rPh></si>"
    document = parse(files.xlsx(rows, strings=strings, styles=styles), "a.xlsx", None)
    assert outline(document) == [
        ("heading", 1, "Prices"),
        ("table", 0, "Tokyo\t\tin line\n2018-09-20\t2018-09-20 18:00:00\t0.1\tTRUE\t12:00:00"),
    ]
    assert {block.page for block in document.blocks} == {1}


def test_opendocument_has_headings_lists_tables_and_footnotes() -> None:
    body = (
        '<text:h text:outline-level="2">Head</text:h><text:p>one<text:s text:c="2"/>two<text:note><text:note-citation>1'
        "</text:note-citation><text:note-body><text:p>note</text:p></text:note-body></text:note></text:p>"
        "<text:list><text:list-item><text:p>item</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>a</text:p></table:table-cell>"
        "<table:table-cell><text:p>b</text:p></table:table-cell></table:table-row></table:table>"
    )
    assert outline(parse(files.odt(body), "a.odt", None)) == [
        ("heading", 2, "Head"),
        ("paragraph", 0, "one  two"),
        ("paragraph", 0, "note"),
        ("list", 0, "item"),
        ("table", 0, "a\tb"),
    ]


def test_a_book_is_read_in_the_order_of_its_spine() -> None:
    document = parse(files.epub("<html><h1>One</h1><p>first", "<html><h1>Two</h1>"), "a.epub", None)
    assert outline(document) == [("heading", 1, "One"), ("paragraph", 0, "first"), ("heading", 1, "Two")]
    assert document.title == "A Book"


def test_rich_text_is_read() -> None:
    assert parsed(r"{\rtf1\ansi\ansicpg1252 Gr\'fc\'dfe\par \u937?mega}", "a.rtf").text.split() == ["Grüße", "Ωmega"]


# --- PDF ---------------------------------------------------------------------------------------------------------


def test_each_page_of_a_pdf_is_known() -> None:
    document = parse(files.pdf("Page one.", "", "Page three."), "a.pdf", None)
    assert [(block.page, document.text[block.start : block.end]) for block in document.blocks] == [
        (1, "Page one."),
        (3, "Page three."),
    ]


def test_the_outline_of_a_pdf_gives_its_headings() -> None:
    entries = (
        "1000 0 obj <</Type /Outlines /First 1001 0 R /Last 1001 0 R>> endobj\n"
        "1001 0 obj <</Title (Tide tables) /Parent 1000 0 R /Dest [12 0 R /Fit]>> endobj\n"
    )
    document = parse(files.pdf("Tide tables", "Tide tables", outline=entries), "a.pdf", None)
    assert [(block.kind, block.page) for block in document.blocks] == [
        (BlockKind.PARAGRAPH, 1),
        (BlockKind.HEADING, 2),
    ]


# --- all of them -------------------------------------------------------------------------------------------------


def test_nul_bytes_are_gone_before_offsets_are_taken() -> None:
    document = parsed("# He\x00ad\n\nbo\x00dy", "a.md")
    assert document.blocks == (Block(BlockKind.HEADING, 0, 6, 1), Block(BlockKind.PARAGRAPH, 8, 12))
    assert document.title == "Head"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The harbour master keeps the books of the harbour, and nobody else may read them.", "en"),
        ("Der Hafenmeister führt die Bücher des Hafens, und niemand sonst darf sie lesen.", "de"),
        ("Капитан порта ведёт книги порта, и никто другой не может их читать.", "ru"),
        ("港務長は港の帳簿をつけており、他の誰もそれを読むことはできません。", "ja"),
        ("12 345 678", None),
    ],
)
def test_the_language_is_named_if_it_is_clear(text: str, language: str | None) -> None:
    assert parsed(text, "a.txt").language == language


@pytest.mark.parametrize(
    "data",
    [
        files.docx(files.word_paragraph("Text of a Word file.")),
        files.pptx(files.shape("Text of a slide.")),
        files.xlsx('<row><c t="inlineStr"><is><t>Text of a cell.</t></is></c></row>'),
        files.pdf("Text of a page."),
        files.odt("<text:p>Text</text:p>"),
        files.epub("<p>Text"),
    ],
    ids=["docx", "pptx", "xlsx", "pdf", "odt", "epub"],
)
def test_a_damaged_file_never_ends_in_an_unknown_error(data: bytes) -> None:
    """Cut off, and with one byte changed, at many places."""
    step = max(1, len(data) // 60)
    for position in range(0, len(data), step):
        for damaged in (data[:position], data[:position] + b"\x00" + data[position + 1 :], data[position:]):
            try:
                parse(damaged, "file", None)
            except DocumentError:
                continue


def test_the_same_bytes_give_the_same_document() -> None:
    data = files.docx("".join(itertools.repeat(files.word_paragraph("again"), 20)))
    assert parse(data, "a.docx", None) == parse(data, "b.docx", "text/plain")
