"""Which language a text is in."""

import pytest
from edda.languages import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Red foxes were running in the meadow.", "en"),
        ("Der Hund ist im Garten.", "de"),
        ("猫が好きです。", "ja"),
        ("Die Gemeinde hat im vergangenen Jahr ein neues Schwimmbad gebaut, das für alle Bürger offen ist.", "de"),
        ("Der Zug fuhr um acht Uhr ab, und niemand war am Bahnhof.\n" * 200, "de"),
        ("تقع المكتبة الوطنية في وسط المدينة وتفتح أبوابها للزوار كل يوم من الصباح إلى المساء", "ar"),
        # A list of words may be in any language, whatever their letters are like.
        ("part_no,name,price_eur,stock\nPN-1,gasket,3.2,10\nPN-2,rotor blade,14,3\nPN-3,spindle,9,2", None),
        ("Blue whales sing.", None),
        ("4711 0815", None),
        ("", None),
    ],
)
def test_a_language_is_told_by_letters_and_function_words(text: str, language: str | None) -> None:
    assert language_of(text) == language
