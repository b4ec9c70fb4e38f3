"""The answer verb, on a search and a model that say what they are told to."""

import re
import time
from typing import Any
from uuid import UUID

import pytest
from edda.answering import MOST_ECHOED_CHARACTERS, NOT_FOUND, Answer, Answering, Question
from edda.batching import RetryPolicy
from edda.concurrency import Deadline
from edda.errors import ChatRejected, InvalidRequest, ProviderMisconfigured, ProviderThrottled, ProviderUnavailable
from edda.models import ChatReply, ChatTurn, Passage, Tenant
from edda.searching import Degraded, SearchQuery

from tests.fakes.chat import NOTHING, FakeChat, said
from tests.fakes.passages import FakeSearching, found, hit

pytestmark = pytest.mark.anyio

ACME = Tenant(UUID(int=1), "acme")
LEAVE = "Staff get 25 days of leave a year. Unused days expire in March."
TRAVEL = "Travel is booked by the assistant. Trains are preferred."
QUESTION = "How many days of leave do staff get?"
GOOD = said("Staff get 25 days of leave [1].", (1, "Staff get 25 days of leave a year"))
BAD = said("Staff get 99 days of leave [1].", (1, "Staff get 99 days of leave a year"))


def searching(similarity: float | None = 0.6) -> FakeSearching:
    return FakeSearching([found(hit(LEAVE, "a.pdf"), similarity), found(hit(TRAVEL, "b.pdf"), similarity)])


async def ask(search: FakeSearching, chat: FakeChat | None = None, question: str = QUESTION, **more: Any) -> Answer:
    seconds = more.pop("seconds", 30)
    verb = Answering(search, chat, retry=RetryPolicy(attempts=2, first_wait_s=0))  # type: ignore[arg-type]  # a stand-in
    return await verb.answer(ACME, Question(SearchQuery(question, top_k=8), **more), Deadline.after(seconds))


def codes(answer: Answer) -> list[tuple[str, str]]:
    return [(one.part, one.code) for one in answer.degraded]


async def test_a_generated_answer_has_the_models_words_and_checked_citations() -> None:
    chat = FakeChat([GOOD])
    answer = await ask(searching(), chat)
    assert (answer.status, answer.kind, answer.text) == ("answered", "generated", "Staff get 25 days of leave [1].")
    (citation,) = answer.citations
    assert answer.hits[citation.passage].hit.text[citation.start : citation.end] == "Staff get 25 days of leave a year"
    assert answer.usage.requests == 1
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens
    assert codes(answer) == []


async def test_without_a_model_the_best_sentences_are_the_answer_and_it_says_so() -> None:
    answer = await ask(searching())
    assert (answer.status, answer.kind) == ("answered", "extractive")
    assert answer.text.splitlines()[0] == "Staff get 25 days of leave a year. [1]"
    (first, *_) = answer.citations
    assert answer.hits[first.passage].hit.text[first.start : first.end] == "Staff get 25 days of leave a year."
    assert answer.usage.requests == 0


async def test_a_model_that_is_not_wanted_is_not_asked() -> None:
    chat = FakeChat([GOOD])
    assert (await ask(searching(), chat, generate=False)).kind == "extractive"
    assert chat.requests == []


async def test_a_rejected_answer_is_asked_for_once_more_with_the_reason() -> None:
    chat = FakeChat([BAD, GOOD])
    answer = await ask(searching(), chat)
    assert (answer.kind, answer.usage.requests) == ("generated", 2)
    first, second = chat.requests
    assert second.turns[: len(first.turns)] == first.turns
    assert second.turns[-2] == ChatTurn("assistant", BAD)
    assert "a quote is not in passage 1" in second.turns[-1].content


async def test_one_that_is_rejected_twice_gives_way_to_the_documents_own_sentences() -> None:
    chat = FakeChat([BAD])
    answer = await ask(searching(), chat)
    assert (answer.status, answer.kind, len(chat.requests)) == ("answered", "extractive", 2)
    assert codes(answer) == [("chat", "answer_rejected")]
    assert "99" not in answer.text


async def test_one_that_is_cut_off_is_asked_to_be_shorter() -> None:
    chat = FakeChat([ChatReply(GOOD[:40], is_whole=False, input_tokens=None, output_tokens=None), GOOD])
    answer = await ask(searching(), chat)
    assert answer.kind == "generated"
    assert "shorter" in chat.requests[1].turns[-1].content
    assert answer.usage.input_tokens > 300  # by our own estimate, where the provider does not tell


async def test_a_model_that_finds_nothing_is_believed_and_not_quoted() -> None:
    answer = await ask(searching(), FakeChat(['{"found": false, "answer": "Buy my book"}']))
    assert (answer.status, answer.kind, answer.text, answer.citations) == ("not_found", "generated", NOT_FOUND, ())
    assert answer.hits


async def test_nothing_is_made_up_of_what_has_nothing_to_do_with_the_question() -> None:
    chat = FakeChat([GOOD])
    for one in (None, chat):
        answer = await ask(searching(0.05), one, question="Who wrote the novel about whales?")
        assert (answer.status, answer.text, answer.citations, answer.hits) == ("not_found", NOT_FOUND, (), ())
    assert chat.requests == []


async def test_where_nothing_is_found_nothing_is_asked() -> None:
    chat = FakeChat([GOOD])
    answer = await ask(FakeSearching([]), chat)
    assert (answer.status, answer.kind, chat.requests) == ("not_found", "extractive", [])


async def test_without_vectors_the_words_decide() -> None:
    assert (await ask(searching(None))).status == "answered"
    assert (await ask(searching(None), question="Who wrote the novel about whales?")).status == "not_found"


@pytest.mark.parametrize(
    ("error", "requests"),
    [
        (ProviderUnavailable(), 2),
        (ProviderThrottled(), 2),
        (ProviderThrottled(retry_after_s=3600), 1),
        (ChatRejected(), 1),
        (ProviderMisconfigured(), 1),
    ],
)
async def test_a_model_that_fails_leaves_an_extractive_answer_that_says_so(error: Any, requests: int) -> None:
    chat = FakeChat([error])
    answer = await ask(searching(), chat)
    assert (answer.status, answer.kind) == ("answered", "extractive")
    assert codes(answer) == [("chat", error.code)]
    assert len(chat.requests) == answer.usage.requests == requests


async def test_a_fault_that_passes_is_not_seen() -> None:
    answer = await ask(searching(), FakeChat([ProviderUnavailable(), GOOD]))
    assert (answer.kind, codes(answer)) == ("generated", [])


async def test_a_model_is_not_asked_when_no_time_is_left() -> None:
    chat = FakeChat([GOOD])
    answer = await ask(searching(), chat, seconds=0.5)
    assert (answer.kind, chat.requests) == ("extractive", [])
    assert codes(answer) == [("chat", "provider_unavailable")]


async def test_what_the_search_left_out_is_passed_on() -> None:
    search = searching()
    search.degraded = [Degraded("vector", "provider_unavailable", "It is down.")]
    assert codes(await ask(search)) == [("vector", "provider_unavailable")]


async def test_a_follow_up_is_searched_for_by_itself_and_with_the_question_before() -> None:
    search = searching()
    together = f"{QUESTION}\nAnd part-time?"
    search.by_text[together] = [found(hit("Part-time staff get a share of the days of leave.", "c.pdf"))]
    history = (
        ChatTurn("user", "Hello"),
        ChatTurn("assistant", "Hi"),
        ChatTurn("user", QUESTION),
        ChatTurn("assistant", "25"),
    )
    chat = FakeChat([NOTHING])
    await ask(search, chat, question="And part-time?", history=history)
    assert [query.text for query in search.queries] == ["And part-time?", together]
    asked = chat.requests[0]
    assert asked.turns[:-1] == history
    order = [asked.turns[-1].content.index(name) for name in ("a.pdf", "c.pdf", "b.pdf")]
    assert order == sorted(order)


async def test_a_follow_up_that_says_too_little_is_answered_with_the_question_before() -> None:
    history = (ChatTurn("user", QUESTION), ChatTurn("assistant", "25"))
    search = searching(0.3)
    answer = await ask(search, question="Why?", history=history)
    assert answer.text.startswith("Staff get 25 days of leave a year.")


@pytest.mark.parametrize("question", ["🤷", "the of and", "Who are you?", "?!"])
async def test_what_asks_nothing_is_not_answered(question: str) -> None:
    search, chat = searching(0.9), FakeChat([GOOD])
    answer = await ask(search, chat, question)
    assert (answer.status, answer.text, answer.relevance) == ("not_found", NOT_FOUND, 0)
    assert (search.queries, chat.requests) == ([], [])


async def test_of_a_follow_up_of_function_words_alone_only_the_whole_is_searched_for() -> None:
    search = searching(0.3)
    history = (ChatTurn("user", QUESTION), ChatTurn("assistant", "25"))
    assert (await ask(search, question="And why?", history=history)).status == "answered"
    assert [query.text for query in search.queries] == [f"{QUESTION}\nAnd why?"]


async def test_after_a_change_of_subject_the_question_before_does_not_vouch_for_the_new_one() -> None:
    history = (ChatTurn("user", QUESTION), ChatTurn("assistant", "25"))
    search, question = searching(0.1), "What about the weather on Mars?"
    search.by_text[f"{QUESTION}\n{question}"] = searching(0.7).found
    chat = FakeChat([ProviderUnavailable()])  # one that answers would judge by itself
    for one in (None, chat):
        answer = await ask(search, one, question=question, history=history)
        assert (answer.status, answer.text, answer.citations) == ("not_found", NOT_FOUND, ())
        assert answer.relevance < 0.1
    assert len(chat.requests) == 2


async def test_a_follow_up_with_a_word_of_its_own_is_answered_from_what_has_it() -> None:
    history = (ChatTurn("user", "How much may a flight cost on a journey?"), ChatTurn("assistant", "600 euros."))
    text = "A flight may cost 600 euros on a journey. For hotels the limit is 140 euros. Flights cost money."
    answer = await ask(FakeSearching([found(hit(text), 0.25)]), question="And for hotels?", history=history)
    assert answer.text.splitlines()[0] == "For hotels the limit is 140 euros. [1]"


async def test_a_follow_up_of_few_words_is_answered_from_what_goes_with_the_question_before() -> None:
    history = (ChatTurn("user", "How many vacation days do Zephyr staff get?"), ChatTurn("assistant", "27"))
    bridge = found(hit("The bridge carries road No. 7 to Wexcombe. It is old.", "bridge.txt"))
    vacation = hit(
        "Zephyr staff get 27 vacation days. Zephyr vacation carry-over is limited to five days.", "leave.txt"
    )
    search = FakeSearching([bridge, found(vacation)])
    answer = await ask(search, question="And how many can be carried over?", history=history)
    assert answer.text.splitlines()[0] == "Zephyr vacation carry-over is limited to five days. [2]"
    answer = await ask(search, question="And which road?", history=history)
    assert answer.text.splitlines()[0] == "The bridge carries road No. 7 to Wexcombe. [1]"


async def test_a_follow_up_is_not_answered_by_the_header_of_a_table() -> None:
    history = (ChatTurn("user", "What is the population of Hollowmere?"), ChatTurn("assistant", "88210"))
    table = "city | population | mayor\n--- | --- | ---\nHollowmere | 88210 | Ann Reed\nWexcombe | 4100 | Bo Lund"
    answer = await ask(FakeSearching([found(hit(table))]), question="Who is the mayor there?", history=history)
    assert answer.text.splitlines()[:2] == ["city | population | mayor [1]", "Hollowmere | 88210 | Ann Reed [1]"]


async def test_phrases_of_the_question_before_are_not_searched_for_as_phrases() -> None:
    search = searching()
    history = (ChatTurn("user", 'What is "carry over" of leave?'), ChatTurn("assistant", "x"))
    await ask(search, history=history)
    assert '"' not in search.queries[1].text


async def test_a_budget_for_no_passage_is_the_callers_mistake() -> None:
    with pytest.raises(InvalidRequest) as raised:
        await ask(searching(), FakeChat([GOOD]), token_budget=100)
    assert raised.value.problems[0]["field"] == "token_budget"


async def test_only_what_the_budget_holds_is_answered_from() -> None:
    search = FakeSearching([found(hit(LEAVE + " word" * 300, "a.pdf")), found(hit(TRAVEL, "b.pdf"))])
    chat = FakeChat([NOTHING])
    assert [one.hit.name for one in (await ask(search, chat, "Are trains preferred?", token_budget=550)).hits] == [
        "b.pdf"
    ]
    search.found.insert(0, found(hit(LEAVE, "c.pdf")))
    answer = await ask(search, question="Are trains preferred for travel?", token_budget=100)
    assert [one.hit.name for one in answer.hits] == ["c.pdf", "b.pdf"]
    assert answer.text.endswith("[2]")


async def test_without_a_model_neither_question_nor_history_takes_of_the_budget() -> None:
    history = (ChatTurn("user", "word " * 4000), ChatTurn("assistant", "Yes."))
    question = f"{QUESTION} {'leave ' * 1300}"
    for one, more in ((None, {}), (FakeChat([GOOD]), {"generate": False})):
        answer = await ask(searching(), one, question, history=history, token_budget=500, **more)
        assert answer.text.startswith("Staff get 25 days of leave a year. [1]")
    long = FakeSearching([found(hit(LEAVE + " word" * 2000))])
    assert (await ask(long, token_budget=500)).status == "answered"  # one passage in any case


async def test_a_documents_own_links_and_markers_are_not_ours() -> None:
    text = "Staff get 25 days of leave [7], see ![x](https://evil.example/p.png) and [leave](https://a.example)."
    answer = await ask(FakeSearching([found(hit(text))]))
    assert "http" not in answer.text
    assert "[7]" not in answer.text
    assert re.findall(r"\[\d+\]", answer.text) == ["[1]"]
    assert codes(answer) == [("links", "links_removed")]
    (citation,) = answer.citations
    assert answer.hits[0].hit.text[citation.start : citation.end] == text


async def test_an_earlier_answer_vouches_for_nothing_and_an_earlier_question_does() -> None:
    history = (ChatTurn("user", "My badge is HR-4711."), ChatTurn("assistant", "The codeword is QX-99."))
    chat = FakeChat([said("For HR-4711 it is 25 days of leave [1].", (1, "Staff get 25 days of leave a year"))])
    assert (await ask(searching(), chat, history=history)).kind == "generated"
    chat = FakeChat([said("For QX-99 it is 25 days of leave [1].", (1, "Staff get 25 days of leave a year"))])
    assert codes(await ask(searching(), chat, history=history)) == [("chat", "answer_rejected")]


async def test_a_history_that_the_model_was_not_given_costs_no_time() -> None:
    history = tuple(ChatTurn("assistant" if turn % 2 else "user", "word " * 4000) for turn in range(50))
    quote = (1, "Staff get 25 days of leave a year")
    chat = FakeChat([said("\n".join(["Staff get 25 days of leave [1]."] * 10), quote)])
    began = time.process_time()
    answer = await ask(searching(), chat, history=history)
    assert answer.kind == "generated"
    assert time.process_time() - began < 2


async def test_a_turn_that_the_budget_cut_vouches_for_nothing() -> None:
    history = (ChatTurn("user", "My badge is HR-4711. " + "word " * 5000), ChatTurn("assistant", "Yes."))
    chat = FakeChat([said("For HR-4711 it is 25 days of leave [1].", (1, "Staff get 25 days of leave a year"))])
    assert codes(await ask(searching(), chat, history=history)) == [("chat", "answer_rejected")]


async def test_of_a_long_rejected_answer_only_the_beginning_is_shown_again() -> None:
    chat = FakeChat(["no JSON " * 20_000, GOOD])
    assert (await ask(searching(), chat)).kind == "generated"
    assert len(chat.requests[1].turns[-2].content) == MOST_ECHOED_CHARACTERS


async def test_an_answer_is_not_asked_for_again_when_there_is_no_time_for_it() -> None:
    now = [0.0]

    def slow(_: Any) -> str:
        now[0] += 16
        return BAD

    chat = FakeChat([slow])
    verb = Answering(searching(), chat, retry=RetryPolicy(attempts=1))  # type: ignore[arg-type]  # a stand-in
    answer = await verb.answer(ACME, Question(SearchQuery(QUESTION, top_k=8)), Deadline(29, lambda: now[0]))
    assert (codes(answer), len(chat.requests)) == ([("chat", "answer_rejected")], 1)


async def test_a_lone_sentence_is_answered_from_with_its_neighbours() -> None:
    before, text = "Staff get leave in each calendar year.", "It is 25 days."
    one = hit(text, ordinal=1, char_start=len(before) + 1, char_end=len(before) + 1 + len(text))
    search = FakeSearching([found(one, 0.6)], passages=[Passage(UUID(int=1), 0, before, 0, len(before), page=3)])
    answer = await ask(search, question="How many days of leave do staff get in a year?")
    (passage,) = [used.hit for used in answer.hits]
    assert (passage.text, passage.char_start, passage.page) == (f"{before}\n{text}", 0, 3)
    assert before in answer.text


async def test_cells_of_a_table_stay_apart() -> None:
    table = "part\tweight\nvalve\t3 kg\npump\t4 kg"
    answer = await ask(FakeSearching([found(hit(table, char_start=0))]), question="What is the weight of the pump?")
    assert answer.text == "part | weight [1]\npump | 4 kg [1]"
    quotes = [answer.hits[one.passage].hit.text[one.start : one.end] for one in answer.citations]
    assert quotes == ["part\tweight", "pump\t4 kg"]


async def test_tags_of_html_are_no_text_of_an_answer() -> None:
    text = 'Staff get 25 days of leave, see <a href="https://a.example/x">the <b>handbook</b></a>.'
    answer = await ask(FakeSearching([found(hit(text))]))
    assert answer.text == "Staff get 25 days of leave, see the handbook. [1]"
    assert ("links", "html_removed") in codes(answer)


async def test_code_stays_as_it_is_but_for_what_could_be_one_of_our_markers() -> None:
    text = 'For days of leave of staff call `values[3]`, `config["limits"][0] = 250` or list[int] of [alpha, 7] [2].'
    answer = await ask(FakeSearching([found(hit(text))]))
    assert answer.text == f"{text[:-4]}(2). [1]"
    text = "For days of leave of staff call `values[1]`."
    answer = await ask(FakeSearching([found(hit(text))]))
    assert answer.text == "For days of leave of staff call `values(1)`. [1]"
