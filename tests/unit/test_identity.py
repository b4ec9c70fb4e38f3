"""Names that follow from content."""

from uuid import RFC_4122, UUID

from edda.identity import chunk_ids, content_hash
from hypothesis import given
from hypothesis import strategies as st

ACME, GLOBEX = UUID(int=1), UUID(int=2)

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=30)


def ids(tenant_id: UUID, lines: list[str]) -> list[UUID]:
    return chunk_ids(tenant_id, [content_hash(line) for line in lines])


def test_names_never_change() -> None:
    """They are stored: another release must make the same ones."""
    assert content_hash("hello") == UUID("2cf24dba-5fb0-a30e-26e8-3b2ac5b9e29e")
    assert ids(ACME, ["hello", "hello"]) == [
        UUID("0afd1156-98bc-8859-a616-906f2e912923"),
        UUID("9e88efc5-ceb5-8593-a82e-ead05aa7bd84"),
    ]


@given(texts)
def test_the_same_content_has_the_same_ids(lines: list[str]) -> None:
    assert ids(ACME, lines) == ids(ACME, list(lines))


@given(texts)
def test_no_two_chunks_of_a_document_have_one_id(lines: list[str]) -> None:
    assert len(set(ids(ACME, lines))) == len(lines)


@given(texts)
def test_no_two_tenants_have_one_id(lines: list[str]) -> None:
    assert set(ids(ACME, lines)).isdisjoint(ids(GLOBEX, lines))


@given(texts, st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 30))
def test_an_inserted_chunk_changes_only_its_own_id(lines: list[str], new: str, place: int) -> None:
    edited = [*lines[:place], new, *lines[place:]]
    assert set(ids(ACME, lines)) < set(ids(ACME, edited))


@given(texts)
def test_every_id_is_a_uuid_of_ones_own_kind(lines: list[str]) -> None:
    for one in ids(ACME, lines):
        assert (one.variant, one.version) == (RFC_4122, 8)


def test_texts_that_look_alike_are_not_alike() -> None:
    assert content_hash("e\u0301") != content_hash("\u00e9")
    assert content_hash("a") != content_hash("a ")
