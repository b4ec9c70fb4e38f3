"""Files read in parts make the chunks that they make as a whole, however often the reading is broken off."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from edda.chunking import chunk
from edda.models import Chunk
from edda.parsing import parse
from edda.parts import Limits, ReadPart, read_part

from tests.fakes import files

WORDS = "harbour tide rope anchor ledger master crane lantern cargo pilot winter storm bell quay toll".split()  # noqa: SIM905
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("novel.txt", paragraphs(1, 800_000)),
        ("book.md", markdown(2, 800_000)),
        ("table.csv", rows(3, 800_000)),
        ("events.jsonl", objects(4, 800_000)),
        ("one-paragraph.txt", "\n".join(sentences(5, 800_000))),
        ("pages.txt", "\f".join(sentences(6, 800_000)).replace("Rope", "\nRope")),
    ],
    ids=lambda value: value[:20],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_text_in_parts_makes_the_chunks_of_the_whole(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    """Where the text does not repeat itself; and at the end of a line there is hardly a difference."""
    text = text.replace("tide", "tíde")
    path = tmp_path / name
    path.write_bytes(text.encode(encoding).replace(b"\n", b"\r\n" if encoding == "cp1252" else b"\n"))
    whole = parse(path.read_bytes(), name, None)
    parts = list(in_parts(path))
    assert len(parts) > 4
    assert joined(parts) == [seen(one) for one in chunk(whole)]
    assert parts[-1].characters == len(whole.text)
    assert {part.title for part in parts} == {whole.title}
    assert {part.media_type for part in parts} == {whole.media_type}
    assert all(len(json.dumps(part.state)) < 5_000 for part in parts)


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
