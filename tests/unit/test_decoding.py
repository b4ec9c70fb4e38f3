"""Charsets: what is believed, what is guessed, and what never gets through."""

import pytest
from edda.decoding import clean, decode, decode_html, is_binary, lookup
from hypothesis import given
from hypothesis import strategies as st

GERMAN = "Größe und Übermaß: die schöne Müllerin aß heiße Brötchen."
RUSSIAN = "Все люди рождаются свободными и равными в своём достоинстве и правах."
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια."
HEBREW = "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם."
ARABIC = "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق."
THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ"
POLISH = "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności. Zażółć gęślą jaźń."
CZECH = "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv."
TURKISH = "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar."
CHINESE = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。"
TRADITIONAL = "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心。"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."
ENGLISH = "It’s a “smart” quotation – for £5."


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_and_is_dropped(encoding: str) -> None:
    assert decode(RUSSIAN.encode(encoding), declared="iso-8859-1") == RUSSIAN


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [ENGLISH, GERMAN, RUSSIAN, JAPANESE])
def test_wide_text_without_a_mark_is_seen_by_its_zeros(encoding: str, text: str) -> None:
    assert decode((text + "\r\n").encode(encoding)) == text + "\r\n"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", GERMAN),
        ("cp1252", ENGLISH),
        ("cp1251", RUSSIAN),
        ("koi8-r", RUSSIAN),
        ("iso8859-5", RUSSIAN),
        ("cp866", RUSSIAN),
        ("cp1253", GREEK),
        ("iso8859-8", HEBREW),
        ("cp1256", ARABIC),
        ("cp874", THAI),
        ("iso8859-2", POLISH),
        ("cp1250", POLISH),
        ("cp1250", CZECH),
        ("cp1254", TURKISH),
        ("gb18030", CHINESE),
        ("big5", TRADITIONAL),
        ("cp932", JAPANESE),
        ("euc_jp", JAPANESE),
        ("iso2022_jp", JAPANESE),
        ("cp949", KOREAN),
    ],
)
def test_a_legacy_charset_is_guessed_from_the_letters(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_text_of_a_mainframe_is_read() -> None:
    text = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG, said the operator.\n" * 3
    assert decode(text.encode("cp500")).split() == text.split()


def test_valid_utf8_beats_a_declaration() -> None:
    assert decode(GERMAN.encode(), declared="iso-8859-1") == GERMAN


def test_a_declaration_beats_the_guess() -> None:
    assert decode(GREEK.encode("cp1253"), declared="windows-1253") == GREEK


def test_a_declaration_that_cannot_be_true_is_not_believed() -> None:
    assert decode(GERMAN.encode("cp1252"), declared="koi8-r-with-nonsense") == GERMAN
    assert decode(JAPANESE.encode("cp932"), declared="euc-jp") == JAPANESE


def test_latin_1_means_windows_1252_as_in_browsers() -> None:
    assert decode(ENGLISH.encode("cp1252"), declared="ISO-8859-1") == ENGLISH
    assert lookup("gb2312") == "gb18030"
    assert lookup("no-such-charset") is None
    assert lookup("base64") is None


def test_bytes_that_fit_nothing_are_replaced_and_the_rest_is_kept() -> None:
    broken = "Die Größe ändert sich nie, sagt das Maß. ".encode() * 3 + b"\xff\xfe" + " Übermaß".encode()
    assert decode(broken) == "Die Größe ändert sich nie, sagt das Maß. " * 3 + "\ufffd\ufffd Übermaß"


def test_a_replacement_character_that_somebody_wrote_is_no_damage() -> None:
    assert decode("a \ufffd b \ufffd; Größe, schön".encode() + b"\xff") == "a \ufffd b \ufffd; Größe, schön\ufffd"


def test_utf8_cut_off_within_a_character_is_still_utf8() -> None:
    assert decode((RUSSIAN * 2).encode()[:-2] + b"\xd1").endswith("\ufffd")


@pytest.mark.parametrize(
    "head",
    [
        '<meta charset="windows-1251">',
        "<meta http-equiv='Content-Type' content='text/html; charset=windows-1251'>",
        "<meta charset=no-such-thing><meta charset=cp1251>",
        "<!-- " + "x" * 50_000 + " --><meta charset=windows-1251>",
    ],
)
def test_html_says_its_charset_wherever_it_stands(head: str) -> None:
    page = f"<html><head>{head}</head><body>Да</body></html>".encode("cp1251")
    assert "Да" in decode_html(page)


def test_html_in_utf16_may_claim_what_it_likes() -> None:
    page = f'<html><meta charset="iso-8859-1"><p>{RUSSIAN}</p>'.encode("utf-16-le")
    assert RUSSIAN in decode_html(page)


@pytest.mark.parametrize("data", [bytes(range(256)) * 4, b"\x7fELF" + bytes(200), b"\x00" * 50 + b"abc" * 5])
def test_binary_is_seen(data: bytes) -> None:
    assert is_binary(data)


@pytest.mark.parametrize("data", [b"a few\x00 NULs \x00 in a text of some length " * 3, GERMAN.encode("utf-16"), b""])
def test_text_with_a_few_nuls_and_utf16_are_not_binary(data: bytes) -> None:
    assert not is_binary(data)


def test_cleaning_takes_out_what_databases_do_not_take() -> None:
    assert clean("\ufeffone\r\ntwo\rthree\x00\x07\ttab\ud800\x85end") == "one\ntwo\nthree\ttab\ufffd\nend"


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_clean_text_is_storable_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()  # no lone surrogate
    assert not any(character < " " and character not in "\n\t" for character in cleaned)
    assert clean(cleaned) == cleaned


@given(st.binary(max_size=300))
def test_any_bytes_become_some_text(data: bytes) -> None:
    clean(decode(data)).encode()
