"""Zip containers (Office Open XML, OpenDocument, EPUB): their members under limits, and their XML without traps."""

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from posixpath import dirname, normpath
from typing import IO

from edda.errors import Corrupt, DecompressionLimit, Encrypted
from edda.formats.xml import Element, parse_xml

MAX_MEMBERS = 20_000
MAX_UNPACKED_BYTES = 1024**3
# Deflate cannot do better than 1:1,032. Real sheets of equal cells come near 1:200, but are not large.
MAX_RATIO = 250
_RATIO_MATTERS_BYTES = 32 * 1024**2


# What zipfile raises for a damaged archive; a RuntimeError means that a password is needed.
# What reading a damaged archive raises; NotImplementedError is zipfile's, for a compression it does not know.
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Relationship:
    """A link from one part of a package to another: `kind` is the last word of its type, `target` a member's name."""

    kind: str
    target: str
    external: bool


class Package:
    """An open zip whose members are found whatever their case, and read within limits."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        check_limits(archive)
        self._archive = archive
        self._members = {_canonical(info.filename): info for info in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return _canonical(name) in self._members

    def names(self, pattern: str = "") -> list[str]:
        """Names of members that fit a regular expression, in natural order (slide2 before slide10)."""
        fitting = [info.filename for key, info in self._members.items() if re.match(pattern, key)]
        return sorted(fitting, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])

    def read(self, name: str) -> bytes:
        """A member's bytes. Raises KeyError, Corrupt, Encrypted."""
        with self.stream(name) as member:
            return member.read()

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """A member as an open file, for members that may be large. Raises KeyError, Corrupt, Encrypted."""
        try:
            with self._archive.open(self._members[_canonical(name)]) as member:
                yield member
        except DAMAGE as error:
            raise Corrupt from error
        except RecursionError:
            raise
        except RuntimeError as error:  # a password is needed
            raise Encrypted from error

    def xml(self, name: str) -> Element | None:
        """A member's root element, None if there is no such member. Raises Corrupt."""
        return parse_xml(self.read(name)) if name in self else None

    def relationships(self, part: str) -> dict[str, Relationship]:
        """The links of a part, by id. A part without any has none; a broken list counts as none."""
        folder = dirname(part)
        try:
            root = self.xml(f"{folder}/_rels/{part.rpartition('/')[2]}.rels".lstrip("/"))
        except Corrupt:
            return {}
        found = {}
        for link in root if root is not None else ():
            target = link.get("Target", "")
            external = link.get("TargetMode") == "External"
            found[link.get("Id", "")] = Relationship(
                link.get("Type", "").rpartition("/")[2], target if external else resolve(folder, target), external
            )
        return found


@contextmanager
def open_package(data: bytes) -> Iterator[Package]:
    """Raises Corrupt, DecompressionLimit."""
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except DAMAGE as error:
        raise Corrupt from error
    with archive:
        yield Package(archive)


def check_limits(archive: zipfile.ZipFile) -> None:
    """Raises DecompressionLimit for an archive that unpacks to more, or to many times more, than a document does.

    zipfile never unpacks a member beyond the size it declares, so declared sizes can be believed.
    """
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if len(members) > MAX_MEMBERS or unpacked > MAX_UNPACKED_BYTES:
        raise DecompressionLimit
    if unpacked > _RATIO_MATTERS_BYTES and unpacked > MAX_RATIO * max(packed, 1):
        raise DecompressionLimit


def main_part_kind(archive: zipfile.ZipFile) -> str:
    """The folder of an Office package's main part ("word", "ppt", "xl"), "" for other archives, and for binary
    workbooks, whose main part is no XML."""
    names = {_canonical(name) for name in archive.namelist()}
    if "[content_types].xml" not in names and "_rels/.rels" not in names:
        return ""
    for folder, part in (("word", "document"), ("ppt", "presentation"), ("xl", "workbook")):
        if f"{folder}/{part}.xml" in names:
            return folder
    return _declared_kind(archive)


_MAIN_TYPES = (("word", "wordprocessingml."), ("ppt", "presentationml."), ("xl", "spreadsheetml."))


def _declared_kind(archive: zipfile.ZipFile) -> str:
    """The same from the list of content types: a few writers put the main part elsewhere."""
    try:
        types = archive.read("[Content_Types].xml").decode("utf-8", "replace")
    except (KeyError, RuntimeError, *DAMAGE):
        return ""
    for kind, word in _MAIN_TYPES:
        if re.search(rf"{re.escape(word)}[a-zA-Z.]*main\+xml", types):
            return kind
    return ""


def main_part(package: Package, default: str) -> str:
    """The name of an Office package's main part."""
    for link in package.relationships("").values():
        if link.kind == "officeDocument" and link.target in package:
            return link.target
    if default not in package:
        raise Corrupt
    return default


def core_title(package: Package) -> str | None:
    """The title in an Office package's properties."""
    try:
        root = package.xml("docProps/core.xml")
    except Corrupt:
        return None
    title = root.findtext(".//{http://purl.org/dc/elements/1.1/}title") if root is not None else None
    return title.strip() or None if title else None


def _canonical(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()


def resolve(folder: str, target: str) -> str:
    path = target if target.startswith("/") else f"{folder}/{target}"
    return normpath(path).lstrip("/")
