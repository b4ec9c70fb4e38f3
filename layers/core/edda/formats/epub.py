"""EPUB: the chapters in the order in which the book is read."""

from urllib.parse import unquote

from edda.decoding import decode_html
from edda.errors import Corrupt, Encrypted
from edda.formats.draft import Draft
from edda.formats.html import read_html
from edda.formats.opc import Package, open_package, resolve
from edda.formats.xml import Element, attribute, local

_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def read_epub(data: bytes, draft: Draft) -> None:
    """Raises Corrupt, Encrypted (a book with rights management), DecompressionLimit."""
    with open_package(data) as package:
        _refuse_encrypted(package)
        container = package.xml("META-INF/container.xml")
        paths = [attribute(node, "full-path") for node in _iterate(container) if local(node) == "rootfile"]
        book = package.xml(paths[0]) if paths and paths[0] else None
        if book is None or not paths[0]:
            raise Corrupt
        title = next((node.text for node in _iterate(book) if local(node) == "title" and node.text), None)
        draft.title = title.strip() or None if title else None
        folder = paths[0].rpartition("/")[0]
        for chapter in _spine(book, folder):
            if chapter in package:
                _read_chapter(package, chapter, draft)


def _read_chapter(package: Package, chapter: str, draft: Draft) -> None:
    title = draft.title
    try:
        read_html(decode_html(package.read(chapter)), draft)
    finally:
        draft.title = title or draft.title


def _spine(book: Element, folder: str) -> list[str]:
    """Names of the members that hold the chapters."""
    items = {attribute(node, "id"): attribute(node, "href") or "" for node in book.iter() if local(node) == "item"}
    order = [items.get(attribute(node, "idref")) for node in book.iter() if local(node) == "itemref"]
    return [resolve(folder, unquote(href.partition("#")[0])) for href in order if href]


def _refuse_encrypted(package: Package) -> None:
    """Scrambled fonts do not matter; anything else that is encrypted does."""
    for node in _iterate(package.xml("META-INF/encryption.xml")):
        if local(node) == "EncryptionMethod" and node.get("Algorithm") not in _FONT_OBFUSCATION:
            raise Encrypted


def _iterate(root: Element | None) -> list[Element]:
    return list(root.iter()) if root is not None else []
