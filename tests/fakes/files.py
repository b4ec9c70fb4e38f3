"""Small files made on the spot: Office packages, PDFs, bombs."""

import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO

_CONTENT_TYPES = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
_RELATIONSHIPS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_NAMESPACES = f'xmlns:w="{_WORD}" xmlns:a="{_DRAWING}" xmlns:p="{_SLIDE}" xmlns:r="{_OFFICE}"'


def zipped(members: Mapping[str, str | bytes]) -> bytes:
    """A zip file, its members compressed."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def relationships(*links: tuple[str, str, str]) -> str:
    """A list of links: (id, last word of the type, target)."""
    entries = "".join(
        f'<Relationship Id="{identifier}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for identifier, kind, target in links
    )
    return f'<Relationships xmlns="{_RELATIONSHIPS}">{entries}</Relationships>'


def docx(body: str, *links: tuple[str, str, str], parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """A Word document with this XML in its body, and other parts that it links to (names without `word/`)."""
    others = {f"word/{name}": content for name, content in (parts or {}).items()}
    return zipped(
        {
            "[Content_Types].xml": _CONTENT_TYPES,
            "_rels/.rels": relationships(("r1", "officeDocument", "word/document.xml")),
            "word/document.xml": f"<w:document {_NAMESPACES}><w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": relationships(*links),
            **others,
        }
    )


def word_part(root: str, content: str) -> str:
    """Another part of a Word document: footnotes, header, styles."""
    return f"<w:{root} {_NAMESPACES}>{content}</w:{root}>"


def word_paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def pptx(*slides: str, parts: Mapping[str, str] | None = None) -> bytes:
    """A presentation; each slide is the XML within its tree of shapes."""
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": _CONTENT_TYPES,
        "_rels/.rels": relationships(("r1", "officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f"<p:presentation {_NAMESPACES}><p:sldIdLst>"
        + "".join(f'<p:sldId id="{number}" r:id="s{number}"/>' for number in range(len(slides)))
        + "</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relationships(
            *((f"s{number}", "slide", f"slides/slide{number}.xml") for number in range(len(slides)))
        ),
    }
    for number, shapes in enumerate(slides):
        members[f"ppt/slides/slide{number}.xml"] = (
            f"<p:sld {_NAMESPACES}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"
        )
    return zipped({**members, **(parts or {})})


def shape(text: str, placeholder: str = "") -> str:
    role = f'<p:nvSpPr><p:nvPr><p:ph type="{placeholder}"/></p:nvPr></p:nvSpPr>' if placeholder else ""
    return f"<p:sp>{role}<p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"


def notes(text: str) -> str:
    return f"<p:notes {_NAMESPACES}><p:cSld><p:spTree>{shape(text, 'body')}</p:spTree></p:cSld></p:notes>"


def xlsx(rows: str, *, strings: str = "", styles: str = "", prolog: str = "") -> bytes:
    """A workbook of one sheet, "Prices": the XML of its rows, of shared strings and of styles."""
    return zipped(
        {
            "[Content_Types].xml": _CONTENT_TYPES,
            "_rels/.rels": relationships(("r1", "officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>'
            '<sheet name="Prices" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": relationships(
                ("r1", "worksheet", "worksheets/sheet1.xml"),
                ("r2", "sharedStrings", "sharedStrings.xml"),
                ("r3", "styles", "styles.xml"),
            ),
            "xl/sharedStrings.xml": f'<sst xmlns="{_SHEET}">{strings}</sst>',
            "xl/styles.xml": f'<styleSheet xmlns="{_SHEET}">{styles}</styleSheet>',
            "xl/worksheets/sheet1.xml": f'{prolog}<worksheet xmlns="{_SHEET}"><sheetData>{rows}</sheetData></worksheet>',  # noqa: E501
        }
    )


def odt(body: str, *, encrypted: bool = False) -> bytes:
    """An OpenDocument text with this XML as its text."""
    lock = "<manifest:encryption-data/>" if encrypted else ""
    namespaces = " ".join(
        f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for prefix, name in (("office", "office"), ("text", "text"), ("table", "table"), ("draw", "drawing"))
    )
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "META-INF/manifest.xml": '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:'  # noqa: E501
            f'1.0"><manifest:file-entry>{lock}</manifest:file-entry></manifest:manifest>',
            "content.xml": f"<office:document-content {namespaces}><office:body><office:text>{body}</office:text>"
            "</office:body></office:document-content>",
        }
    )


def epub(*chapters: str) -> bytes:
    """A book; each chapter is a whole XHTML document."""
    numbers = range(len(chapters))
    items = "".join(f'<item id="c{n}" href="chapter%20{n}.xhtml"/>' for n in numbers)
    spine = "".join(f'<itemref idref="c{n}"/>' for n in numbers)
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',  # noqa: E501
            "OEBPS/book.opf": f"<package><metadata><title>A Book</title></metadata><manifest>{items}</manifest>"
            f"<spine>{spine}</spine></package>",
            **{f"OEBPS/chapter {n}.xhtml": chapter for n, chapter in enumerate(chapters)},
        }
    )


def pdf(*pages: str, outline: str = "") -> bytes:
    """A PDF with a line of text on each page. `outline` may hold further objects, the first of which is number
    1000, the outline's root."""
    streams = [f"BT /F 12 Tf 72 720 Td ({text}) Tj ET".encode() for text in pages]
    return pdf_of_streams([zlib.compress(stream) for stream in streams], "/FlateDecode", outline)


def pdf_of_streams(streams: list[bytes], filters: str, outline: str = "") -> bytes:
    """A PDF whose pages have these content streams, encoded with these filters."""
    kids = " ".join(f"{10 + 2 * number} 0 R" for number in range(len(streams)))
    root = "/Outlines 1000 0 R" if outline else ""
    parts = [
        b"%PDF-1.5\n",
        f"1 0 obj <</Type /Catalog /Pages 2 0 R {root}>> endobj\n".encode(),
        f"2 0 obj <</Type /Pages /Kids [{kids}] /Count {len(streams)}>> endobj\n".encode(),
        b"3 0 obj <</Type /Font /Subtype /Type1 /BaseFont /Helvetica>> endobj\n",
        outline.encode(),
    ]
    for number, stream in enumerate(streams):
        page, content = 10 + 2 * number, 11 + 2 * number
        parts += [
            f"{page} 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {content} 0 R "
            "/Resources <</Font <</F 3 0 R>>>>>> endobj\n".encode(),
            f"{content} 0 obj <</Length {len(stream)} /Filter [{filters}]>> stream\n".encode(),
            stream,
            b"\nendstream endobj\n",
        ]
    return b"".join([*parts, b"trailer <</Root 1 0 R>>\n%%EOF\n"])
