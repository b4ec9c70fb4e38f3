"""Files read in parts make the chunks that they make as a whole, however often the reading is broken off."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from edda.chunking import chunk
from edda.errors import Corrupt, DocumentError, DocumentTooLarge, NoText, TooManyChunks, UnsupportedType
from edda.models import Chunk
from edda.parsing import parse
from edda.parts import Limits, ReadPart, read_part

from tests.fakes import files
from tests.words import WORDS

PART_BYTES, PART_PAGES = 128 * 1024, 8
LIMITS = Limits(200, 30, 100_000, PART_BYTES, PART_PAGES, whole_bytes=1_000_000)


def sentences(seed: int, characters: int) -> Iterator[str]:
    chance = random.Random(seed)
    while characters > 0:
        sentence = " ".join(chance.choices(WORDS, k=chance.randint(5, 20))).capitalize() + f" {chance.random():.5f}."
        characters -= len(sentence)
        yield sentence


def paragraphs(seed: int, characters: int) -> str:
    """Prose, its paragraphs wrapped."""
    chance = random.Random(seed)
    text = "".join(f"{one}{chance.choice(' ' * 5 + '|')}" for one in sentences(seed, characters))
    return text.replace("|", "\n\n").replace("Harbour ", "\n")


def markdown(seed: int, characters: int) -> str:
    chance = random.Random(seed)
    blocks = []
    for count, sentence in enumerate(sentences(seed, characters)):
        if count % 60 == 0:
            blocks.append(f"{'#' * chance.randint(1, 4)} Chapter {count}")
        kind = chance.random()
        if kind < 0.05:
            blocks.append("```\n# no heading\n\n" + sentence + "\n```")
        elif kind < 0.1:
            blocks.append("\n".join(f"- {one}" for one in sentence.split()))
        else:
            blocks.append(sentence)
    return "---\nkind: book\n---\n\n" + "\n\n".join(blocks)


def rows(seed: int, characters: int) -> str:
    return "\n".join(one.replace(" ", ",") for one in sentences(seed, characters))


def objects(seed: int, characters: int) -> str:
    lines = enumerate(sentences(seed, characters))
    return "\n".join(json.dumps({"id": number, "text": one}) for number, one in lines)


def in_parts(path: Path, limits: Limits = LIMITS, name: str | None = None) -> Iterator[ReadPart]:
    """Each part is read by somebody who knows of the earlier ones only what went through the database."""
    state = None
    while True:
        part = read_part(path, name or path.name, None, state, limits)
        yield part
        if part.state is None:
            return
        state = json.loads(json.dumps(part.state))


def joined(parts: list[ReadPart]) -> list[tuple[object, ...]]:
    return [seen(one) for part in parts for one in part.chunks]


def seen(one: Chunk) -> tuple[object, ...]:
    """All that makes a chunk but its ordinal, which the parent counts."""
    return one.text, one.char_start, one.char_end, one.tokens, one.page, one.heading_path, one.content_hash


TEXTS = {
    "novel.txt": paragraphs(1, 600_000),
    "book.md": markdown(2, 600_000),
    "table.csv": rows(3, 600_000),
    "events.jsonl": objects(4, 600_000),
    "one-paragraph.txt": "\n".join(sentences(5, 600_000)),
    "pages.txt": "\f".join(sentences(6, 600_000)).replace("Rope", "\nRope"),
}


@pytest.mark.parametrize(
    ("name", "encoding"),
    [*((name, "utf-8") for name in TEXTS), *(("novel.txt", other) for other in ("utf-8-sig", "utf-16", "cp1252"))],
)
def test_a_text_in_parts_makes_the_chunks_of_the_whole(tmp_path: Path, name: str, encoding: str) -> None:
    """As any does that does not repeat itself."""
    text = TEXTS[name]
    text = text.replace("tide", "tíde")
    path = tmp_path / name
    path.write_bytes(text.encode(encoding).replace(b"\n", b"\r\n" if encoding == "cp1252" else b"\n"))
    whole = parse(path.read_bytes(), name, None)
    parts = list(in_parts(path))
    assert len(parts) >= 4
    assert joined(parts) == [seen(one) for one in chunk(whole)]
    assert parts[-1].characters == len(whole.text)
    assert {part.title for part in parts} == {whole.title}
    assert {part.media_type for part in parts} == {whole.media_type}
    assert all(len(json.dumps(part.state)) < 5_000 for part in parts)


def test_sentences_in_parts_are_those_of_the_whole_but_for_short_ones_where_a_part_begins(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text(TEXTS[path.name])
    parts = list(in_parts(path, LIMITS._replace(strategy="sentence")))
    assert len(parts) >= 4
    whole = {seen(one) for one in chunk(parse(path.read_bytes(), path.name, None), strategy="sentence")}
    assert len(whole) > 1_000
    assert len(whole ^ set(joined(parts))) < 10 * len(parts)


def test_fixed_chunks_begin_anew_with_each_part_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text(TEXTS[path.name])
    parts = list(in_parts(path, LIMITS._replace(strategy="fixed", overlap_tokens=0)))
    assert len(parts) >= 4
    chunks = [one for part in parts for one in part.chunks]
    assert "".join("".join(one.text for one in chunks).split()) == "".join(TEXTS[path.name].split())
    assert [one.char_start for one in chunks] == sorted(one.char_start for one in chunks)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_text_whose_lines_end_as_on_an_old_macintosh_makes_the_chunks_of_the_whole(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(rows(3, 300_000).replace("\n", "\r").encode(encoding))
    parts = list(in_parts(path))
    assert len(parts) > 2
    assert joined(parts) == [seen(one) for one in chunk(parse(path.read_bytes(), path.name, None))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_no_part_ends_within_the_end_of_a_line(tmp_path: Path, encoding: str) -> None:
    text = "x" * (PART_BYTES // len("x".encode(encoding)) - 1) + "\r\n" + "y" * 1_000
    path = tmp_path / "notes.txt"
    path.write_bytes(text.encode(encoding))
    parts = list(in_parts(path))
    assert len(parts) > 1
    assert parts[-1].characters == len(text) - 1


def test_pages_in_parts_make_the_chunks_of_the_whole(tmp_path: Path) -> None:
    pages = [" ".join(sentences(number, 1_500)) for number in range(60)]
    path = tmp_path / "book.pdf"
    path.write_bytes(files.pdf(*pages))
    whole = parse(path.read_bytes(), "book.pdf", None)
    parts = list(in_parts(path))
    assert len(parts) > 6
    assert joined(parts) == [seen(one) for one in chunk(whole)]
    assert parts[-1].characters == len(whole.text)
    assert [one.page for part in parts for one in part.chunks][-1] == 60


def test_pages_without_text_are_nothing_to_speak_of(tmp_path: Path) -> None:
    """As scanned ones: in the whole they leave no gap either."""
    blank = [""] * (3 * PART_PAGES)
    texts = [" ".join(sentences(number, 1_500)) for number in range(2 * PART_PAGES)]
    path = tmp_path / "book.pdf"
    path.write_bytes(files.pdf(*blank, *texts[:PART_PAGES], *blank, *texts[PART_PAGES:]))
    whole = parse(path.read_bytes(), "book.pdf", None)
    parts = list(in_parts(path))
    assert joined(parts) == [seen(one) for one in chunk(whole)]
    assert parts[-1].characters == len(whole.text)


def test_the_outline_of_a_pdf_goes_on_in_later_parts(tmp_path: Path) -> None:
    pages = ["Tide tables", *(" ".join(sentences(number, 1_500)) for number in range(30))]
    outline = (
        "1000 0 obj <</Type /Outlines /First 1001 0 R /Last 1001 0 R /Count 1>> endobj\n"
        "1001 0 obj <</Title (Tide tables) /Parent 1000 0 R /Dest [10 0 R /Fit]>> endobj\n"
    )
    path = tmp_path / "book.pdf"
    path.write_bytes(files.pdf(*pages, outline=outline))
    chunks = [one for part in in_parts(path) for one in part.chunks]
    assert {one.heading_path for one in chunks} == {("Tide tables",)}


@pytest.mark.parametrize("separator", ["", " ", "\r", "\N{IDEOGRAPHIC FULL STOP}", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp932"])
def test_a_line_longer_than_a_part_loses_nothing(tmp_path: Path, separator: str, encoding: str) -> None:
    words = ["tide", "harbour", "見本", "rope", "がある"]
    text = separator.join(random.Random(7).choices(words, k=90_000)) + separator
    if encoding == "cp932":
        text = text.replace("\N{GRINNING FACE}", "。")
    path = tmp_path / "line.txt"
    path.write_bytes(text.encode(encoding))
    parts = list(in_parts(path, name="line.txt"))
    chunks = [one for part in parts for one in part.chunks]
    clean = text.replace("\r", "\n")
    assert len(parts) > 2
    assert parts[-1].characters == len(clean)
    covered = 0
    for one in chunks:
        assert one.text == clean[one.char_start : one.char_end]
        assert one.tokens <= 200
        assert not clean[covered : one.char_start].strip()
        covered = max(covered, one.char_end)
    assert not clean[covered:].strip()


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "gb18030", "utf-32-be"])
def test_the_encoding_of_a_long_text_is_told_as_that_of_a_short_one(tmp_path: Path, encoding: str) -> None:
    """Letters beyond ASCII come late."""
    line = (
        "本年的会议在上海举行，大家都来了。"
        if encoding == "gb18030"
        else "Суда стоят в гавани, и прилив несёт их к берегу."
    )
    ascii_lines = "" if encoding == "utf-32-be" else "\n".join(sentences(8, 1_200_000))
    text = ascii_lines + "\n" + "\n".join(f"{line} {number}" for number in range(4_000))
    path = tmp_path / "notes.txt"
    path.write_bytes(text.encode(encoding))
    parts = list(in_parts(path))
    assert len(parts) > 1
    assert parts[-1].chunks[-1].text.endswith(f"{line} 3999")
    assert parts[-1].characters == len(text)


def test_a_replacement_character_is_no_damage(tmp_path: Path) -> None:
    """Somebody else's bad luck with a charset, written down as valid UTF-8."""
    text = "\n".join(sentences(9, 300_000)).replace(" ", " \ufffd", 40).replace("tide", "tíde", 20)
    path = tmp_path / "notes.txt"
    path.write_bytes(text.encode())
    parts = list(in_parts(path))
    assert len(parts) > 1
    assert "\ufffd" in parts[0].chunks[0].text
    assert joined(parts) == [seen(one) for one in chunk(parse(path.read_bytes(), "notes.txt", None))]


def test_damaged_utf_8_is_still_utf_8(tmp_path: Path) -> None:
    text = "\n".join(sentences(9, 300_000)).replace("tide", "tíde")
    path = tmp_path / "notes.txt"
    path.write_bytes(text.encode() + b"\xff\xfe end\n" + text.encode()[:-1] + b"\xc3")
    parts = list(in_parts(path))
    assert parts[-1].chunks[-1].text.endswith("\ufffd")
    assert "tíde" in parts[-1].chunks[-1].text or "tíde" in parts[-1].chunks[-2].text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("titles.rst", "\n".join(sentences(10, 300_000)).encode()),
        ("page.html", b"<html><p>" + "<p>".join(sentences(11, 300_000)).encode()),
        (
            "mail.txt",
            b"\n".join(one.encode("iso2022_jp") + "見本".encode("iso2022_jp") for one in sentences(12, 300_000)),
        ),
    ],
    ids=["rst", "html", "iso-2022"],
)
def test_what_cannot_be_read_from_its_middle_is_one_part_and_limited(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    (part,) = in_parts(path)
    assert len(part.chunks) > 300
    with pytest.raises(DocumentTooLarge):
        read_part(path, name, None, None, LIMITS._replace(whole_bytes=len(data) - 1))


def test_blank_parts_are_nothing_to_speak_of(tmp_path: Path) -> None:
    path = tmp_path / "late.txt"
    path.write_text("\n" * 500_000 + "Only this." + "\n" * 500_000)
    parts = list(in_parts(path))
    assert [(one.text, one.char_start) for part in parts for one in part.chunks] == [("Only this.", 500_000)]


@pytest.mark.parametrize("blank", [b"\0", b"\n"])
def test_what_is_binary_behind_its_blank_beginning_is_no_text(tmp_path: Path, blank: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(blank * 150_000 + random.Random(14).randbytes(150_000))
    with pytest.raises(UnsupportedType):
        read_part(path, "image", None, None, LIMITS)


def test_texts_that_repeat_themselves_are_cut_nevertheless(tmp_path: Path) -> None:
    """No place in them is better than any other."""
    path = tmp_path / "same.csv"
    path.write_text("harbour,tide,rope\n" * 40_000)
    parts = list(in_parts(path))
    chunks = [one for part in parts for one in part.chunks]
    assert len(parts) > 4
    assert sum(one.text.count("\n") + 1 for one in chunks) >= 40_000
    assert chunks[-1].char_end == 18 * 40_000 - 1


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"%PDF-1.7\nnot at all", Corrupt), (files.pdf("", ""), NoText), (b"", NoText), (b"\n" * 10, NoText)],
)
def test_what_is_wrong_with_the_whole_is_said_at_the_first_part(
    tmp_path: Path, data: bytes, error: type[DocumentError]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(error):
        read_part(path, "file", None, None, LIMITS)


def test_no_part_may_make_more_chunks_than_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("\n".join(sentences(13, 400_000)))
    counts = [len(part.chunks) for part in in_parts(path)]
    state = read_part(path, "notes.txt", None, None, LIMITS).state
    with pytest.raises(TooManyChunks):
        read_part(path, "notes.txt", None, state, LIMITS._replace(max_chunks=counts[1] - 1))
