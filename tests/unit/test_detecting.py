"""Which type a file is: bytes are believed before names; and what cannot be read says why."""

import pytest
from edda.errors import Corrupt, Encrypted, NoText, UnsupportedType
from edda.parsing import parse

from tests.fakes import files

OLE_START = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@pytest.mark.parametrize("name", ["report.txt", "report", "report.docx", "report.html", "report.zip", "a\n+😀.pdf"])
@pytest.mark.parametrize("content_type", [None, "text/plain", "image/png", "nonsense"])
def test_the_name_and_the_content_type_of_a_pdf_do_not_matter(name: str, content_type: str | None) -> None:
    document = parse(files.pdf("Tide tables"), name, content_type)
    assert (document.media_type, document.text) == ("application/pdf", "Tide tables")


@pytest.mark.parametrize("name", ["minutes.doc", "minutes.pdf", "minutes.txt", "minutes"])
def test_a_word_file_by_any_other_name_is_a_word_file(name: str) -> None:
    assert parse(files.docx(files.word_paragraph("Minutes")), name, "application/msword").text == "Minutes"


def test_html_by_the_name_of_a_spreadsheet_is_html() -> None:
    """Many a program exports "Excel" like that."""
    document = parse(b"<html><table><tr><td>Kiel<td>4.2</table>", "prices.xls", None)
    assert (document.media_type, document.text) == ("text/html", "Kiel\t4.2")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("From: a@example.org\nTo: b@example.org\nSubject: Ropes\n\nHemp.", "message/rfc822"),
        ("<?xml version='1.0'?><note>Hemp</note>", "application/xml"),
        ("<!DOCTYPE html><p>Hemp", "text/html"),
        ("Hemp: a rope.\nTo be sold.", "text/plain"),
    ],
)
def test_text_without_an_extension_is_known_by_how_it_starts(data: str, kind: str) -> None:
    assert parse(data.encode(), "attachment", None).media_type == kind


@pytest.mark.parametrize(
    ("name", "content_type", "kind"),
    [
        ("a.md", "text/plain", "text/markdown"),
        ("a", "text/markdown; charset=utf-8", "text/markdown"),
        ("a.py", None, "text/x-source"),
        ("Makefile", None, "text/x-source"),
        ("a.jsonl", None, "application/x-ndjson"),
        ("a.unknown", "text/csv", "text/csv"),
        ("a.unknown", None, "text/plain"),
    ],
)
def test_where_bytes_say_text_the_extension_decides_and_then_the_content_type(
    name: str, content_type: str | None, kind: str
) -> None:
    assert parse(b"some text, of no kind", name, content_type).media_type == kind


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "picture.txt"),
        (b"\x1f\x8b\x08" + bytes(100), "text.txt"),
        (files.zipped({"a.txt": "text", "b.txt": "text"}), "archive.zip"),
        (b"\x7fELF" + bytes(100), "program"),
        (bytes(range(256)) * 10, "unknown.txt"),
        (b"ID3" + bytes(100), "song.mp3"),
    ],
)
def test_files_without_text_are_unsupported(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedType):
        parse(data, name, "text/plain")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (files.docx(files.word_paragraph("x" * 5000))[:300], "cut.docx"),
        (b"This is no zip file!\n", "text.odt"),
        (b"%PDF-1.7\nnot at all", "broken.pdf"),
        (OLE_START + b"\xff" * 600, "broken.doc"),
        (files.zipped({"[Content_Types].xml": "<a/>", "word/document.xml": "<not closed"}), "broken.docx"),
        (files.zipped({"mimetype": "application/epub+zip", "META-INF/container.xml": "<a/>"}), "broken.epub"),
    ],
)
def test_damaged_files_are_corrupt(data: bytes, name: str) -> None:
    with pytest.raises(Corrupt):
        parse(data, name, None)


def test_a_locked_opendocument_is_encrypted() -> None:
    with pytest.raises(Encrypted):
        parse(files.odt("<text:p>x</text:p>", encrypted=True), "a.odt", None)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.html", "a.json", "a.pdf", "a.docx", "a"])
@pytest.mark.parametrize("data", [b"", b" \r\n\t ", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00\x00\x00"])
def test_empty_and_blank_files_have_no_text_whatever_they_are_called(data: bytes, name: str) -> None:
    with pytest.raises(NoText):
        parse(data, name, None)


@pytest.mark.parametrize(
    ("data", "name"),
    [(files.pdf(""), "scan.pdf"), (files.docx(""), "a.docx"), (files.xlsx(""), "a.xlsx"), (files.pptx(""), "a.pptx")],
)
def test_a_document_of_pictures_alone_has_no_text(data: bytes, name: str) -> None:
    with pytest.raises(NoText):
        parse(data, name, None)
