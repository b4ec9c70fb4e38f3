"""What is quoted is in every candidate, word for word."""

import pytest
from edda.errors import InvalidRequest
from edda.terms import query_terms

from tests.database.shelf import Shelf
from tests.postgres import MODEL_DIMENSIONS

PHRASES = [
    ("the quick brown", {0, 1, 2}),
    ("ERR-0x80070057", {4}),
    ("a.b(c)|d*", {5}),
    ("straße ÄNDERN", {6}),
    ("東京大学", {7}),
    ("quick fox", set()),
    ("unheard passage", set()),
    ("quick-brown", set()),
    ("10 km", {9}),
    ("port 80", {10}),
    ("rport 80", set()),
    ("airport 80", {9, 19}),
    ("80-81", {11}),
    ("max_size", {11}),
    ("MaxSize", {12}),
    ("maxsize", {12}),
    ("猫", {13}),
    ("学で学", {7}),
    ("Café Müller", {14, 15}),
    ("Mu\u0308ller", {14, 15}),
    ("Müll", set()),
    ("iPhone", {16}),
    ("を買", {16}),
    ("rock n roll", {17}),
    ("ลาพักร้อน", {18}),
    ("quote's end – now", {20}),
    ("efficient", {20}),
    ("eﬃcient", {20}),
    ("contains 80% grass", {21}),
    ("word con", set()),
    ("tains 80%", set()),
    ("🚀", {21}),
]


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
@pytest.mark.parametrize(("phrase", "wanted"), PHRASES)
async def test_a_quoted_phrase_is_held_by_every_candidate(
    shelf: Shelf, phrase: str, wanted: set[int], exact_up_to: int
) -> None:
    texts = [
        "The quick brown fox",
        "he saw THE\n  Quick\tbrown dog, and the quick",
        "x the quick brown",
        "To be or not to be, that is the question",
        "failed with err-0x80070057 twice",
        "call a.b(c)|d* now",
        "die Straße\nändern wir",
        "彼は東京大学で学んだ",
        "the brown quick thing; be to not or",
        "airport\u2028 80, 10\u00a0km away",
        "(port 80)",
        "80-81-82, my_max_size_1",
        "maxSize",
        "白い猫が好き",
        "das Café Müller",
        "das CAFE\u0301 Mu\u0308ller",
        "iPhoneを買った",
        "rock 'n'roll, rock n roll",
        "สิทธิ์ลาพักร้อนสิบห้าวัน",
        "a port, and airport 80",
        "the eﬃcient “inner” quote’s end - now",
        "this con\u200btains 80% gra\u00adss \u00ad🚀",
    ]
    await shelf.add(texts)
    quoted = query_terms(f'other words "{phrase}"')
    assert quoted.phrases == (phrase,)
    for vector in (None, [1.0] * MODEL_DIMENSIONS):
        found = await shelf.ask(vector, quoted, exact_up_to=exact_up_to)
        assert {ordinal for _, ordinal in found} == wanted
    two = query_terms(f'"{phrase}" "the"')
    found = await shelf.ask(None, two, exact_up_to=exact_up_to)
    assert {ordinal for _, ordinal in found} == {n for n in wanted if "the" in texts[n].lower()}


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
async def test_a_phrase_may_be_in_the_title_or_the_headings(shelf: Shelf, exact_up_to: int) -> None:
    await shelf.add(["first words", "second words"], title="Flumgart Observations", headings=("The Who", "Cats"))
    await shelf.add(["Flumgart observed, The cats"])
    for phrase in ("flumgart observations", "Cats", "the who"):
        for vector in (None, [1.0] * MODEL_DIMENSIONS):
            found = await shelf.ask(vector, query_terms(f'"{phrase}" "words"'), exact_up_to=exact_up_to)
            assert {ordinal for _, ordinal in found} == {0, 1}
    for phrase in ("Observations The", "Who Cats", "cats first"):  # not across them
        assert await shelf.ask(None, query_terms(f'"{phrase}"'), exact_up_to=exact_up_to) == {}


IDENTIFIERS = [
    ("cfg_v2.ini", r"C:\Turbine\cfg_v2.ini"),
    ("PN-1001", "PN-1001-A"),
    ("4711-0815", "4711-0815/7"),
    ("10.0.0.1", "http://10.0.0.1:8080/"),
    ("v1.2.3", "v1.2.3-beta"),
    ("example.com", "user@example.com"),
    ("bar_baz", "foo_bar_baz"),
    ("b.c", "a.b.c"),
    ("dog", "the dog's"),
    ("homme", "l'homme"),
]


@pytest.mark.parametrize("exact_up_to", [20_000, 0])
async def test_a_phrase_may_be_part_of_a_longer_identifier(shelf: Shelf, exact_up_to: int) -> None:
    await shelf.add([f"see {text} below" for _, text in IDENTIFIERS])
    await shelf.add(["PN 1001 4711 0815 10 0 1 v1 2 3 bar baz b c example com cfg v2 ini hommes dogs"])
    for number, (phrase, _) in enumerate(IDENTIFIERS):
        found = await shelf.ask(None, query_terms(f'"{phrase}"'), exact_up_to=exact_up_to)
        assert [ordinal for _, ordinal in found] == [number], phrase


async def test_no_more_than_sixteen_phrases_are_sought(shelf: Shelf) -> None:
    await shelf.add([" ".join(f"p{n}" for n in range(17))])
    assert len(await shelf.ask(None, query_terms(" ".join(f'"p{n}" "p{n}"' for n in range(16))))) == 1
    with pytest.raises(InvalidRequest, match="no more than 16 quoted phrases, this one 17"):
        await shelf.ask(None, query_terms(" ".join(f'"p{n}"' for n in range(17))))


async def test_a_phrase_of_words_that_too_many_chunks_have_is_refused(shelf: Shelf) -> None:
    await shelf.add([f"house number {n}" for n in range(31)])
    assert len(await shelf.ask(None, query_terms('"house number"'), 100, most_read=31)) == 31
    assert len(await shelf.ask(None, query_terms('"house number 17"'), most_read=30)) == 1
    with pytest.raises(InvalidRequest):
        await shelf.ask(None, query_terms('"house number"'), most_read=30)


async def test_a_phrase_of_function_words_is_found_by_reading_what_matches(shelf: Shelf) -> None:
    """No chunk in their language has a term of them."""
    await shelf.add(["To be or  not\nto be, that is the question", "not to be found", "Sein oder nicht"])
    quoted = query_terms('"to be or not to be"')
    for vector in (None, [1.0] * MODEL_DIMENSIONS):
        assert {ordinal for _, ordinal in await shelf.ask(vector, quoted)} == {0}
        with pytest.raises(InvalidRequest):  # too many would have to be read
            await shelf.ask(vector, quoted, most_read=2)


async def test_a_phrase_of_two_letters_between_others_is_found(shelf: Shelf) -> None:
    """Thai has no spaces between words, and terms of three and four letters."""
    await shelf.add(["เขาจะไปโรงเรียน", "เขาอยู่บ้าน", "ไป"])
    assert {ordinal for _, ordinal in await shelf.ask(None, query_terms('"ไป"'))} == {0, 2}
