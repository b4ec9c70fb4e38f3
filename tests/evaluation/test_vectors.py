"""Vectors that an earlier evaluation had are not asked for again."""

from pathlib import Path

from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected

from evaluation.vectors import RememberingEmbedder
from tests.fakes.embedder import FakeEmbedder


async def test_a_text_is_embedded_once_also_by_the_next_run(tmp_path: Path) -> None:
    fake, until = FakeEmbedder(), Deadline.after(60)
    first = RememberingEmbedder(fake, tmp_path / "vectors.sqlite", "here")
    vectors = await first.embed(["one", "two", "one"], purpose="document", deadline=until)
    await first.aclose()
    assert vectors == await fake.embed(["one", "two", "one"], purpose="document", deadline=until)
    asked = len(fake.requests)
    again = RememberingEmbedder(fake, tmp_path / "vectors.sqlite", "here")
    assert list(await again.embed(["two", "one"], purpose="document", deadline=until)) == [vectors[1], vectors[0]]
    assert len(fake.requests) == asked
    await again.embed(["three", "one"], purpose="document", deadline=until)
    assert fake.requests[asked:] == [["three"]]
    await again.aclose()
    elsewhere = RememberingEmbedder(fake, tmp_path / "vectors.sqlite", "elsewhere")
    await elsewhere.embed(["one"], purpose="document", deadline=until)
    assert fake.requests[asked + 1 :] == [["one"]]
    await elsewhere.aclose()


async def test_queries_and_refusals_are_not_remembered(tmp_path: Path) -> None:
    fake, until = FakeEmbedder(), Deadline.after(60)
    embedder = RememberingEmbedder(fake, tmp_path / "vectors.sqlite", "here")
    await embedder.embed(["what?"], purpose="query", deadline=until)
    await embedder.embed(["what?"], purpose="query", deadline=until)
    assert len(fake.requests) == 2
    for _ in range(2):
        fake.script.append({"a bad one": EmbeddingRejected()})
        (refused,) = await embedder.embed(["a bad one"], purpose="document", deadline=until)
        assert isinstance(refused, EmbeddingRejected)
    assert len(fake.requests) == 4
    await embedder.aclose()
