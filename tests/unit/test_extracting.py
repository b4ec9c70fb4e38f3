"""Sentences that answer, and when nothing does."""

import time

import pytest
from edda.extracting import SENTENCES, asked_words, best_sentences, pieces, ranked_sentences, relevance
from edda.models import Hit

from tests.fakes.passages import hit, hits

LEAVE = "Staff get 25 days of paid leave a year. Unused days expire in March. The office closes at noon on Fridays."
TRAVEL = "Travel is booked by the team's assistant. Trains are preferred to planes."


def chosen(question: str, passages: list[Hit]) -> list[str]:
    best = best_sentences(ranked_sentences(question, passages), passages)
    return [passages[one.passage].text[one.start : one.end] for one in best]


def test_the_sentence_with_the_questions_words_is_the_first() -> None:
    assert chosen("How many days of paid leave do staff get?", hits(TRAVEL, LEAVE))[0] == LEAVE[:39]
    assert chosen("When does the office close on Fridays?", hits(LEAVE, TRAVEL))[0] == (
        "The office closes at noon on Fridays."
    )


def test_a_sentence_with_none_of_its_words_is_not_taken() -> None:
    assert chosen("Are trains preferred?", hits(TRAVEL)) == ["Trains are preferred to planes."]


def test_no_more_than_some_and_none_twice() -> None:
    texts = [f"Leave of kind {number} is paid." for number in range(9)]
    assert len(chosen("Which leave is paid?", hits(*texts))) == SENTENCES
    assert chosen("Which leave is paid?", hits(texts[0], texts[0], texts[0].upper())) == [texts[0]]


def test_scripts_without_spaces_have_sentences_and_words() -> None:
    text = "员工每年享有二十五天的带薪假期。办公室周五中午关门。"
    assert chosen("员工有多少天带薪假期？", hits(text))[0] == "员工每年享有二十五天的带薪假期。"


def test_a_table_is_taken_by_its_lines() -> None:
    rows = "\n".join(f"| part {number:04} | steel | {number * 7} g |" for number in range(40))
    assert chosen("What does part 0017 weigh?", hits(rows))[0] == "| part 0017 | steel | 119 g |"


def test_a_sentence_without_end_is_cut_between_words() -> None:
    text = "word " * 1000
    first, *_ = pieces(text)
    assert text[first.start : first.end].endswith("word")
    assert first.end - first.start <= 600
    assert all(one.end - one.start <= 600 for one in pieces("x" * 5000))


def test_what_has_nothing_to_do_with_the_question_is_not_relevant() -> None:
    passages = [hit(LEAVE), hit(TRAVEL, "travel.txt")]
    asked = ranked_sentences("How many days of paid leave do staff get?", passages)
    strange = ranked_sentences("Who wrote the novel about whales?", passages)
    assert relevance(asked, 0.6) > 0.5
    assert relevance(strange, 0.1) < 0.2
    assert relevance(asked, None) > relevance(strange, None)
    assert relevance([], -0.2) == 0


def test_a_question_without_words_finds_no_sentence() -> None:
    assert chosen("🤷", hits(LEAVE)) == []
    assert chosen("?!", hits(TRAVEL)) == []


@pytest.mark.parametrize("question", ["🤷", "?!", "the of and", "Who are you?", "Was ist das?", "\u202e\u200b?"])
def test_nothing_is_asked_by_function_words_alone(question: str) -> None:
    assert asked_words(question) == set()


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("How many days of leave are there?", {"days", "leave", "many"}),
        ('Where is "to be or not to be"?', {"to", "be", "or", "not", "where", "is"}),
        ("कर्मचारियों को कितने दिन की छुट्टी मिलती है?", {"दिन", "छुट्टी", "मिलती", "कर्मचा"}),  # not: को, की, है
        ("พนักงานมีวันลากี่วัน", {"พน", "ลา", "วั", "งา"}),
        ("직원은 휴가가 며칠입니까?", {"직원", "휴가", "며칠"}),
    ],
)
def test_what_is_asked_are_the_words_that_are_no_function_words(question: str, asked: set[str]) -> None:
    assert asked_words(question) >= asked
    assert not asked_words(question) & {"how", "of", "को", "की", "है"}


CSV = 'id,part,weight\n17,valve,119 g\n18,pump,2.5 kg\n19,"seal, red",7 g'


@pytest.mark.parametrize(
    ("table", "question", "chosen_rows"),
    [
        (CSV, "What is the weight of the pump?", ["id,part,weight", "18,pump,2.5 kg"]),
        (CSV, "Which seal is red?", ["id,part,weight", '19,"seal, red",7 g']),
        (CSV.replace(",", "\t"), "What is the weight of the pump?", ["id\tpart\tweight", "18\tpump\t2.5 kg"]),
        (
            "Weighed dry.\n\n| part | note |\n|---|---|\n| valve | Steel. Opens at 3 bar. |\n| pump | Brass. Heavy. |",
            "What is the note on the pump?",
            ["| part | note |", "| pump | Brass. Heavy. |"],
        ),
        ("of | weight\n--- | ---\n2019 | 3 kg\n2020 | 4 kg", "What weight has 2020?", ["of | weight", "2020 | 4 kg"]),
        ("1,valve,red\n2,pump,blue\n3,seal,green", "Which pump?", ["2,pump,blue"]),  # no header is seen
    ],
)  # fmt: skip
def test_of_a_table_a_row_is_taken_with_its_header(table: str, question: str, chosen_rows: list[str]) -> None:
    assert chosen(question, [hit(table, char_start=0)]) == chosen_rows


def test_the_first_row_of_a_passage_from_the_middle_of_a_table_is_no_header() -> None:
    text = "valve,steel,red\npump,brass,blue\nseal,rubber,green"
    assert chosen("Is the pump of brass?", [hit(text)]) == ["pump,brass,blue"]


CITIES = (
    "| city | population | mayor |\n|---|---|---|\n| Hollowmere | 88210 | Ann Reed |\n| Wexcombe | 4100 | Bo Lund |"
)


def test_a_header_alone_is_no_answer_but_says_what_the_table_is_about() -> None:
    passages = [hit(CITIES, char_start=0)]
    sentences = ranked_sentences("Who is the mayor there?", passages)
    assert best_sentences(sentences, passages) == []
    assert relevance(sentences, None) > 0.5
    rows = ["| city | population | mayor |", "| Wexcombe | 4100 | Bo Lund |"]
    assert chosen("Who is the mayor of Wexcombe?", passages) == rows


def test_the_first_of_two_columns_of_names_and_values_is_a_row() -> None:
    text = "Contact\tAnn Reed\nRole\tMayor\nCity\tHollowmere"
    assert chosen("Who is the contact?", [hit(text, char_start=0)]) == ["Contact\tAnn Reed"]


REMEDIES = (
    "| Code | Meaning | Remedy |\n|---|---|---|\n| ERR-0x80070057 | The parameter is wrong | Check the path length |\n"
    "| ERR-0x80070005 | Access denied | Run as administrator |"
)


@pytest.mark.parametrize("code", ["0x80070005", "ERR-0x80070005"])
def test_the_row_of_another_code_is_no_answer(code: str) -> None:
    assert chosen(f"What is the remedy for error {code}?", [hit(REMEDIES, char_start=0)]) == [
        "| Code | Meaning | Remedy |",
        "| ERR-0x80070005 | Access denied | Run as administrator |",
    ]


LOG = """\
2026-11-20 10:00:01 INFO request 7be1a41c93d2f0aa done status=200
2026-11-20T10:00:02Z WARN request ec08693c7401f5ce failed. Retried. status=503
  at line 5 of the client
2026-11-20T10:00:03Z INFO request 90aa17c3be55d1f4 done status=200"""
LIST = "Facts:\n- Frobnicator colour: blue\n- Frobnicator weight: 12 kg,\n  without its stand\n- Its owner: Ann"
FIELDS = "Frobnicator colour: blue\nFrobnicator weight: 12 kg\nOwner: Ann"
STEPS = "1. Open the valve.\n2. Close the valve\n3. Call Ann"


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        (LOG, "What is the status of request ec08693c7401f5ce?", "\n".join(LOG.splitlines()[1:3])),
        (LIST, "What colour is the frobnicator?", "Frobnicator colour: blue"),
        (LIST, "What is the weight of the frobnicator?", "Frobnicator weight: 12 kg,\n  without its stand"),
        (FIELDS, "What colour is the frobnicator?", "Frobnicator colour: blue"),
        (STEPS, "When to close the valve?", "2. Close the valve"),
        ('{"id": 7, "of": "valve"}\n{"id": 8, "of": "pump"}', "What is the id of the pump?", '{"id": 8, "of": "pump"}'),
        (
            "Leave is 25 days a\nyear: for all of us.",
            "How many days of leave?",
            "Leave is 25 days a\nyear: for all of us.",
        ),
    ],
)
def test_an_item_of_a_list_a_field_and_an_entry_of_a_log_are_each_one(text: str, question: str, answer: str) -> None:
    assert chosen(question, hits(text))[0] == answer


def test_endings_of_a_word_in_y_do_not_matter() -> None:
    assert chosen("What can be carried?", hits("Rules are strict. One may carry five days.")) == [
        "One may carry five days."
    ]
    assert chosen("Which policy holds?", hits("Their policies are strict. Rain falls.")) == [
        "Their policies are strict."
    ]


def test_a_date_is_not_cut() -> None:
    text = "Resturlaub verfällt am 31. März des Folgejahres. Danach ist er weg."
    assert chosen("Wann verfällt der Resturlaub?", hits(text)) == [text[:48]]


def test_a_further_sentence_says_more_than_one_common_word() -> None:
    text = "Backups are kept for 30 days. The cat sat on the mat and watched the birds for a long time."
    assert chosen("How long are backups kept?", hits(text)) == [text[:29]]


def test_prose_with_commas_is_no_table() -> None:
    text = "Staff, trainees too, get leave\nof 25 days, by contract, in each\ncalendar year, if they ask."
    assert chosen("How many days of leave do trainees get?", hits(text)) == [text]


LONG = ["-" * 100_000 + "x|", "a," * 50_000, '"' * 100_000, "a" + "." * 100_000, "a|\n" * 10_000, "a_" * 50_000]


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_a_long_passage_takes_time_in_proportion(text: str) -> None:
    began = time.process_time()
    chosen("What of E-1042 or a_b?", [hit(f"{text}\n{text}", char_start=0)])
    assert time.process_time() - began < 5


ERRORS = (
    "E-1042 means that the pump is blocked. E-1043 means that the pump is too hot. Open the valve of the pump then."
)


def test_another_code_is_no_answer_where_the_one_asked_for_stands() -> None:
    assert chosen("What does E-1042 mean?", hits(ERRORS)) == ["E-1042 means that the pump is blocked."]
    assert chosen("What of the pump and its valve at e-1043?", hits(ERRORS)) == [
        "E-1043 means that the pump is too hot.",
        "Open the valve of the pump then.",
    ]


def test_another_code_may_have_other_letters_and_digits() -> None:
    text = (
        "ERR-0x80070057 means a wrong path. ERR-0x8007000E means that memory was full. A relay of 24V costs 9 euros. \
A relay of 12V costs 7 euros."
    )
    assert chosen("What does ERR-0x80070057 mean?", hits(text)) == ["ERR-0x80070057 means a wrong path."]
    assert chosen("What does a relay of 24V cost?", hits(text)) == ["A relay of 24V costs 9 euros."]


def test_a_long_question_takes_time_in_proportion() -> None:
    passages = hits(*("\n".join(f"- item e-{at}{place} word{at:x}x." for at in range(60)) for place in range(50)))
    for question in (" ".join(f"word{n:x}x" for n in range(2000)), " ".join(f"e-{n}" for n in range(1000, 3000))):
        began = time.process_time()
        ranked_sentences(question, passages)
        assert time.process_time() - began < 0.7


def test_two_codes_may_be_asked_for_and_one_that_is_nowhere_counts_by_its_parts() -> None:
    assert len(chosen("E-1042 or E-1043?", hits(ERRORS))) == 2
    assert chosen("What does PUMP_STALL_07 mean?", hits("The stall of a pump has the code 07.", TRAVEL)) == [
        "The stall of a pump has the code 07."
    ]


@pytest.mark.parametrize(
    "question",
    [
        "What does error ERR-0x80079999 mean?",
        "What is the price of XJ-999/Z?",
        "How many inhabitants had the village in the year 1999?",
        "How much are 12,345 bearings?",
    ],
)
def test_a_number_that_stands_nowhere_is_not_answered_with_another(question: str) -> None:
    texts = (
        "Error ERR-0x80070057 means that a parameter is incorrect.",
        "The price of XJ-900/A is 12 EUR.",
        "In the year 1709 the village had 139 inhabitants.",
        "12,346 bearings are 500 EUR.",
    )
    assert chosen(question, hits(*texts)) == []


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("What does error 80070057 mean?", "Error ERR-80070057 means that a parameter is incorrect."),
        ("How many inhabitants had the village in 1709?", "In the year 1709 the village had 139 inhabitants."),
        ("How much are 12345 bearings?", "12,345 bearings are 500 EUR."),
    ],
)
def test_a_number_that_stands_there_is_answered(question: str, text: str) -> None:
    assert chosen(question, hits(text)) == [text]


FAQ = """# Lumora lamp FAQ

## How do I reset the Lumora lamp?
Hold the button for ten seconds.

## What is the warranty of the Lumora lamp?
The warranty lasts 24 months.

## Is the Lumora lamp waterproof?
No. The Lumora lamp is rated IP20."""


@pytest.mark.parametrize("text", [FAQ, FAQ.replace("# ", "").replace("#", "")])
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How do I reset the Lumora lamp?", "Hold the button for ten seconds."),
        ("What is the warranty of the Lumora lamp?", "The warranty lasts 24 months."),
        ("Is the Lumora lamp waterproof?", "No."),
    ],
)
def test_what_stands_below_a_heading_or_a_question_answers_it(question: str, answer: str, text: str) -> None:
    assert chosen(question, hits(text))[0] == answer


def test_an_item_that_ends_with_a_semicolon_is_no_question() -> None:
    text = "Staff have:\n- 25 days of leave a year;\n- a phone of their own."
    assert chosen("How many days of leave a year?", hits(text))[0] == "25 days of leave a year;"
