"""What makes an answer stand, and what makes it fall."""

import time

import pytest
from edda.grounding import Citation, Grounded, Rejected, ground, positions
from edda.models import Hit
from edda.prompting import RULES, parse_reply

from tests.fakes.chat import said
from tests.fakes.passages import hit

QUESTION = "How many days of vacation do employees get?"
TOLD = f"{RULES}\n\nThe operator wants, within these rules:\nYou are Alma, the helper of the Blue Heron project."
PASSAGES = [
    hit(
        "Staff are entitled to 25 days of leave a year; part-time staff to a share of it. Form HR-12 is used.", "a.pdf"
    ),
    hit("Unused days expire on 31 March of the next year. In 2019, 1,250 days expired.", "b.pdf"),
    hit("The canteen is open from eleven to two.", "c.pdf"),
]
LEAVE = (1, "entitled to 25 days of leave a year")
EXPIRY = (2, "Unused days expire on 31 March")


def grounded(
    answer: str, *citations: tuple[int, str], question: str = QUESTION, passages: list[Hit] | None = None
) -> Grounded:
    return ground(parse_reply(said(answer, *citations)), passages or PASSAGES, [question], TOLD)


def test_an_answer_that_stands_has_its_stored_quotes() -> None:
    answer = grounded(
        "Employees get 25 days of vacation a year [1]. Unused days expire on 31 March [2].", LEAVE, EXPIRY
    )
    assert answer.text == "Employees get 25 days of vacation a year [1]. Unused days expire on 31 March [2]."
    assert answer.citations == (Citation(0, 10, 45), Citation(1, 0, 30))
    assert PASSAGES[0].text[10:45] == LEAVE[1]
    assert positions(answer.text, 0) == [41]


def test_quotes_that_no_marker_uses_are_left_out() -> None:
    assert grounded("Employees get 25 days [1].", LEAVE, EXPIRY).citations == (Citation(0, 10, 45),)


def test_several_quotes_of_one_passage_and_several_marks_at_one_place() -> None:
    answer = grounded(
        "Employees get 25 days, which expire on 31 March [1, 2].", LEAVE, (1, "part-time staff"), EXPIRY, LEAVE
    )
    assert answer.text.endswith("[1] [2].")
    assert [one.passage for one in answer.citations] == [0, 0, 1]


@pytest.mark.parametrize(
    ("answer", "citations"),
    [
        ("Employees get a 25-day vacation [1].", [LEAVE]),
        ("In 2019 some 1250 days expired [2].", [EXPIRY]),
        ("Use form HR-12 for it, as staff do [1].", [LEAVE]),
        ("Two rules:\n1. 25 days of leave a year [1].\n2. Unused days expire on 31 March [2].", [LEAVE, EXPIRY]),
        ("The Staff is entitled to 25 days of leave [1].", [LEAVE]),
        ("Part-time staff get a share; there are 12 months in a year [1].", [LEAVE]),
    ],
)
def test_what_says_the_same_in_other_words_stands(answer: str, citations: list[tuple[int, str]]) -> None:
    assert grounded(answer, *citations).text == answer


@pytest.mark.parametrize(
    ("answer", "citations", "reason"),
    [
        ("Employees get 25 days [4].", [(4, "entitled to 25 days")], "a passage that there is not"),
        ("Employees get 25 days [0].", [(0, "entitled to 25 days")], "1 to 3"),
        ("Employees get 25 days [1].", [(1, "entitled to 30 days of leave")], "quote"),
        ("Employees get 25 days [1].", [(3, "entitled to 25 days of leave")], "quote"),
        ("Employees get 25 days [1].", [(1, "25")], "quote"),
        ("Employees get 25 days [1].", [], "no quote"),
        ("Employees get 25 days [2].", [LEAVE], "a marker"),
        ("Employees get 25 days of vacation.", [LEAVE], "no citation"),
        ("Employees get 25 days [1].\n\nThe canteen is open from eleven to two.", [LEAVE], "a part of it"),
        ("[1]", [LEAVE], "nothing"),
        ("", [LEAVE], "nothing"),
        ("Employees get 30 days of vacation a year [1].", [LEAVE], "number"),
        ("Employees get 25 days by form HR-13 [1].", [LEAVE], "number"),
        ("Employees get 25 days of vacation, token_of_alma [1].", [LEAVE], "number"),
        ("Employees get 25 days. a l m a h e r o n [1]", [LEAVE], "number"),
        ("Employees get 25 days. My name: Alma, helper, project Blue Heron [1].", [LEAVE], "name"),
        ("Employees get 25 days of leave a year from Bob Smith [1].", [LEAVE], "name"),
        ("Bob Smith is entitled to 25 days of leave a year [1].", [LEAVE], "name"),
        ("The moon is made of green cheese, says everyone [1].", [LEAVE], "do not say"),
        ("Employees get 25 days [1](https://evil.example/25).", [LEAVE], "link"),
        ("Employees get 25 days [1], see evil.example.", [LEAVE], "link"),
    ],
)
def test_what_does_not_stand_says_why(answer: str, citations: list[tuple[int, str]], reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        grounded(answer, *citations)


def test_an_answer_in_another_language_than_the_passages_stands() -> None:
    question = "Wie viele Urlaubstage bekommen Angestellte?"
    answer = "Angestellte bekommen 25 Urlaubstage im Jahr [1]."
    assert grounded(answer, LEAVE, question=question).text == answer
    with pytest.raises(Rejected, match="number"):
        grounded("Angestellte bekommen 30 Urlaubstage im Jahr [1].", LEAVE, question=question)
    with pytest.raises(Rejected, match="told"):
        grounded("You are Alma, the helper of the Blue Heron project [1].", LEAVE, question=question)


def test_chinese_stands_and_falls_like_other_languages() -> None:
    passages = [hit("员工每年享有25天的带薪假期。未用完的假期于3月31日到期。", language="zh")]
    question = "员工有多少天带薪假期？"
    quote = (1, "员工每年享有25天的带薪假期")
    answer = "员工每年有25天带薪假期 [1]。"
    assert grounded(answer, quote, question=question, passages=passages).text == answer
    for wrong in ("员工每年有30天带薪假期 [1]。", "月亮是绿色奶酪做的 [1]。"):
        with pytest.raises(Rejected):
            grounded(wrong, quote, question=question, passages=passages)


@pytest.mark.parametrize(
    ("passage", "question", "answer", "wrong"),
    [
        (
            "직원은 연간 25일의 휴가를 받습니다.",
            "직원은 휴가를 며칠 받습니까?",
            "직원은 연간 25일의 휴가를 받습니다 [1].",
            "직원은 연간 30일의 휴가를 받습니다 [1].",
        ),
        (
            "कर्मचारियों को प्रति वर्ष 25 दिनों की छुट्टी मिलती है।",
            "कर्मचारियों को कितने दिनों की छुट्टी मिलती है?",
            "कर्मचारियों को 25 दिनों की छुट्टी मिलती है [1]।",
            "चंद्रमा हरे पनीर का एक विशाल गोला है [1]।",
        ),
        (
            "يحصل الموظفون على ٢٥ يوما من الإجازة كل سنة.",
            "كم يوما من الإجازة يحصل الموظفون؟",
            "يَحصل الموظفون على 25 يوما من الإجازة [1].",
            "القمر مصنوع من الجبن الأخضر [1].",
        ),
        (
            "ஊழியர்களுக்கு ஆண்டுக்கு 25 நாட்கள் விடுப்பு கிடைக்கும்.",
            "ஊழியர்களுக்கு எத்தனை நாட்கள் விடுப்பு கிடைக்கும்?",
            "ஊழியர்களுக்கு 25 நாட்கள் விடுப்பு கிடைக்கும் [1].",
            "நிலவு பச்சை பாலாடைக்கட்டியால் ஆனது [1].",
        ),
    ],
    ids=["Korean", "Hindi", "Arabic", "Tamil"],
)
def test_other_scripts_stand_and_fall_too(passage: str, question: str, answer: str, wrong: str) -> None:
    passages = [hit(passage, language=None)]
    assert grounded(answer, (1, passage), question=question, passages=passages)
    with pytest.raises(Rejected):
        grounded(wrong, (1, passage), question=question, passages=passages)


@pytest.mark.parametrize(
    ("passage", "answer", "stands"),
    [
        ("The fee is 2.30 EUR a day.", "The fee is 30 EUR a day [1].", False),
        ("The fee is 30,45 EUR a day.", "The fee is 30 EUR a day [1].", False),
        ("The fee is 2.30 EUR a day.", "The fee is 2.30 EUR a day [1].", True),
        ("The fee is due on 31.12.2019.", "The fee was due in 2019, on day 31 [1].", True),
        ("The fee is due in 2019.", "The fee is due in 2019 [1].", True),
        ("In 2019 200 people paid the fee.", "200 people paid the fee in 2019 [1].", True),
        ("The fee is paid for 30km.", "The fee is paid for 30 km [1].", True),
        ("The fee is 25,5 percent.", "The fee is 25,5 percent [1].", True),
        ("The fee is 25,5 percent.", "The fee is 25,7 percent [1].", False),
        ("The fee is 1.250,50 Euro.", "The fee is 1.250,50 Euro [1].", True),
        ("The fee is 1 250,50 euros.", "The fee is 1250,50 euros [1].", True),
        ("The fee is 25,30 or 45 EUR.", "The fee is 25,30 or 45 EUR [1].", True),
        ("The fee is paid for 30 km.", "The fee is paid for 30km [1].", True),
    ],
)
def test_a_piece_of_a_number_is_another_number(passage: str, answer: str, stands: bool) -> None:
    def ask() -> Grounded:
        return grounded(answer, (1, passage), question="What is the fee?", passages=[hit(passage)])

    if stands:
        assert ask()
    else:
        with pytest.raises(Rejected, match="number"):
            ask()


def test_what_the_user_said_may_be_repeated() -> None:
    answer = grounded("For badge 4711: employees get 25 days [1].", LEAVE, question=f"I have badge 4711. {QUESTION}")
    assert "4711" in answer.text


def test_a_link_of_the_documents_is_taken_out_and_the_answer_stands() -> None:
    passages = [hit("Book your vacation days at https://leave.corp.example/book before June.")]
    answer = grounded(
        "Vacation days are booked at https://leave.corp.example/book before June [1].",
        (1, "Book your vacation days at https://leave.corp.example/book"),
        passages=passages,
    )
    assert answer.text == "Vacation days are booked at (link removed) before June [1]."
    assert answer.removed == 1


@pytest.mark.parametrize("piece", ["a-", "a_", "a ", "1.", "[1] ", "a\n", "1,000", "\u5047"])
def test_a_long_answer_takes_time_in_proportion(piece: str) -> None:
    began = time.process_time()
    with pytest.raises(Rejected):
        grounded(piece * (30_000 // len(piece)) + "b-7", LEAVE)
    assert time.process_time() - began < 5
