"""Only what changed is embedded: the real parser and chunker, the real verbs, a real database."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from edda.chunking import chunk
from edda.models import ParseCursor, ParseOutcome
from edda.parsing import parse
from edda.store.documents import DocumentStore

from tests.database.world import World

WORDS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "koala", "lark", "mole", "newt", "owl")


@dataclass(frozen=True, slots=True)
class RealParser:
    """What the parser's process does, in this one."""

    async def parse(
        self, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None = None
    ) -> ParseOutcome:
        document = parse(path.read_bytes(), name, content_type)  # noqa: ASYNC240 - a test has nothing else to do
        return ParseOutcome(chunk(document), document.media_type, len(document.text), document.title, document.language)


def sentences(chance: random.Random, count: int) -> list[str]:
    return [" ".join(chance.choices(WORDS, k=chance.randint(6, 24))).capitalize() + "." for _ in range(count)]


def written(said: list[str], name: str) -> str:
    """As a book in paragraphs under headings; as plain text that is one single paragraph."""
    if name.endswith(".txt"):
        return " ".join(said)
    paragraphs = [" ".join(said[start : start + 7]) for start in range(0, len(said), 7)]
    return "\n\n".join(
        f"# Chapter {number // 20}\n\n{text}" if number % 20 == 0 else text for number, text in enumerate(paragraphs)
    )


@pytest.fixture
def real(world: World) -> World:
    world.ingestion = replace(world.ingestion, parser=RealParser(), max_document_bytes=5_000_000, max_chunks=100_000)
    return world


@pytest.mark.parametrize(("name", "edit"), [("book.md", "replace"), ("book.md", "remove"), ("novel.txt", "insert")])
async def test_of_a_thousand_chunks_with_one_sentence_edited_at_most_three_are_embedded(
    real: World, name: str, edit: str
) -> None:
    chance = random.Random(f"{name} {edit}")
    text = written(sentences(chance, 9_600), name)
    await real.bring_in(name, text)
    assert len(real.visible(name)) >= 1000
    for _ in range(2):
        at = text.index(". ", chance.randrange(len(text) // 10, len(text) * 9 // 10)) + 2
        end = text.index(". ", at) + 2
        text = {
            "replace": text[:at] + "A wholly new sentence about penguins. " + text[end:],
            "insert": text[:at] + "A wholly new sentence about penguins and their eggs. " + text[at:],
            "remove": text[:at] + text[end:],
        }[edit]
        real.embedder.requests.clear()
        await real.bring_in(name, text)
        assert real.statuses(name)[-1] == "ready"
        assert 1 <= len(real.embedder.texts) <= 3


async def test_the_same_bytes_another_name_and_other_metadata_embed_nothing(real: World) -> None:
    text = written(sentences(random.Random(5), 1_000), "book.md")
    await real.bring_in("book.md", text)
    real.embedder.requests.clear()
    await real.bring_in("book.md", text)
    await real.bring_in("the same book.md", text)
    await real.bring_in("book.md.metadata.json", '{"metadataAttributes": {"year": 2024}}')
    ((document_id,),) = real.rows("SELECT document_id FROM documents WHERE object_key = %s", real.key("book.md"))
    store = DocumentStore(real.database, real.model.model_id)
    changes = {"name": "renamed.md", "title": "Another", "tags": ["x"], "metadata": {"y": 1}}
    assert (await store.update(real.tenant_id, document_id, changes)).name == "renamed.md"
    await real.run_sweep()
    await real.bring_in("book.md", text)
    assert real.embedder.requests == []
    assert real.visible("book.md") == real.visible("the same book.md") != []
