"""The answer verb: a question in, an answer with citations out.

What was found is given to the chat model; what that writes is checked (see `grounding`) and, if it does not stand,
asked for once more, with the reason. If it still does not, or there is no chat model, or it fails, the best sentences
of the passages are the answer (see `extracting`), and the answer says so. If nothing that was found has to do with the
question, nothing is made up.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_lowercase
from typing import Literal
from uuid import UUID

from edda import extracting
from edda.batching import RetryPolicy
from edda.concurrency import Deadline
from edda.errors import ChatRejected, EddaError, InvalidRequest, ProviderMisconfigured, RetryableError
from edda.grounding import MARKER, Citation, Grounded, Rejected, ground
from edda.models import ChatReply, ChatRequest, ChatTurn, Hit, Tenant
from edda.neutralising import neutralise
from edda.ports import ChatModel
from edda.prompting import BudgetTooSmall, Prompt, again, build_prompt, fitting, parse_reply
from edda.searching import Degraded as SearchDegraded
from edda.searching import Found, Searching, SearchQuery
from edda.terms import is_of_script, query_terms
from edda.tokens import count_tokens
from edda.widening import AROUND, is_short, widened

logger = logging.getLogger(__name__)

# Below this nothing is answered: docs/answers.md has the figures. A chat model judges for itself what is given to it,
# and is spared only what has nothing to do with the question.
THRESHOLD = 0.33
CHAT_SHARE_OF_THRESHOLD = 0.6
# A follow-up together with the question before it is as relevant as it is by itself, over this, at most.
OWN_SHARE_OF_RELEVANCE = 0.8
FEW_WORDS = 2

NOT_FOUND = "I don't know: nothing that answers this was found in the documents."
# Of the question before, what a follow-up is searched with.
MOST_BEFORE_CHARACTERS = 1000
# Of a rejected answer, what the model is shown again.
MOST_ECHOED_CHARACTERS = 8000
# Of the time, kept for the answer without a model.
RESERVE_S = 1.0
_QUOTES = re.compile('["“”„«»「」]')
RETRY = RetryPolicy(attempts=2, first_wait_s=0.5, longest_wait_s=2.0)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how. `search` says where; its text is the question. `token_budget` is for all that a chat
    model is given."""

    search: SearchQuery
    history: tuple[ChatTurn, ...] = ()
    instructions: str = ""
    token_budget: int = 4000
    max_output_tokens: int = 800
    temperature: float | None = None
    generate: bool = True


@dataclass(frozen=True, slots=True)
class Degraded:
    """What is not as it should be: in the search, in the model's answer, or because of what stands in documents."""

    part: Literal["vector", "rerank", "chat", "links"]
    code: str
    message: str


@dataclass(slots=True)
class Usage:
    """Of the chat model, for this answer: by the provider's count or, where it does not tell, by our estimate."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """`hits` are the passages that it was made from: marker [n] in the text stands for the n-th.

    `kind` tells who had the last word: a chat model, or the rule for sentences.
    """

    status: Literal["answered", "not_found"]
    kind: Literal["generated", "extractive"]
    text: str
    citations: tuple[Citation, ...]
    hits: tuple[Found, ...]
    relevance: float
    usage: Usage
    degraded: tuple[Degraded, ...]


@dataclass(frozen=True, slots=True)
class _Searched:
    """What a search for `asked` brought. `similarity` is the best cosine; None where no vector was compared, or by a
    model that cannot read the question. `own`: of a question together with the one before it, its own words."""

    asked: str
    own: Collection[str]
    hits: Sequence[Found]
    similarity: float | None
    degraded: Sequence[SearchDegraded]


def new_mark() -> str:
    """Nobody who wrote a document knows it. Letters alone: each takes as many tokens of the budget as the other."""
    return f"<{''.join(secrets.choice(ascii_lowercase) for _ in range(12))}>"


@dataclass(frozen=True, slots=True)
class Answering:
    """The verb of the answer function. Without a `chat` model every answer is extractive."""

    searching: Searching
    chat: ChatModel | None = None
    threshold: float = THRESHOLD
    retry: RetryPolicy = RETRY
    mark: Callable[[], str] = new_mark

    async def answer(self, tenant: Tenant, question: Question, deadline: Deadline) -> Answer:
        """Answer from this tenant's documents.

        Raises InvalidRequest for a budget that holds no passage, and what a search raises.
        """
        return await _Answer(self, tenant, question, deadline).run()


@dataclass(slots=True)
class _Answer:
    """One answer on its way."""

    verb: Answering
    tenant: Tenant
    question: Question
    deadline: Deadline
    usage: Usage = field(default_factory=Usage)
    degraded: list[Degraded] = field(default_factory=list)
    relevance: float = 0.0

    async def run(self) -> Answer:
        searched = await self._search()
        hits = await self._widened(_interleaved([one.hits for one in searched])[: self.question.search.top_k])
        if not hits:
            return self._answer("not_found", "extractive", NOT_FOUND)
        chat = self.verb.chat if self.question.generate else None
        prompt = self._prompt([found.hit for found in hits]) if chat is not None else None
        passages = prompt.passages if prompt else fitting([found.hit for found in hits], self.question.token_budget)
        used = tuple(found for found in hits if found.hit in passages)
        ranked = [extracting.ranked_sentences(one.asked, passages, one.own) for one in searched]
        judged = [
            extracting.relevance(sentences, one.similarity) for sentences, one in zip(ranked, searched, strict=True)
        ]
        least, at_most = self.verb.threshold, max(judged)
        if len(judged) > 1:  # the question before does not vouch for one that has nothing to do with it
            judged[1] = min(judged[1], judged[0] / OWN_SHARE_OF_RELEVANCE)
        self.relevance = max(judged)
        if chat is not None and prompt is not None and at_most >= CHAT_SHARE_OF_THRESHOLD * least:
            try:
                grounded = await self._generated(chat, prompt)
            except _Unanswered as reason:
                self.degraded.append(reason.degraded)
            else:
                if grounded is None:
                    return self._answer("not_found", "generated", NOT_FOUND, hits=used)
                self._note_links(grounded.removed)
                return self._answer("answered", "generated", grounded.text, grounded.citations, used)
        # A follow-up is answered by itself, and with the question before it only if it says too little. One of very few
        # words may mean anything: what has one of them and goes with the question before is asked first.
        tried = list(zip(ranked, judged, strict=True))
        if len(tried) > 1 and len(searched[0].own) <= FEW_WORDS:
            tried.insert(0, ([one for one in ranked[1] if one.has_own], judged[1]))
        for sentences, judgement in tried:
            if judgement >= least and (best := extracting.best_sentences(sentences, passages)):
                text = self._quoted(best, passages)
                citations = tuple(Citation(one.passage, one.start, one.end) for one in best)
                return self._answer("answered", "extractive", text, citations, used)
        return self._answer("not_found", "extractive", NOT_FOUND)

    def _answer(
        self,
        status: Literal["answered", "not_found"],
        kind: Literal["generated", "extractive"],
        text: str,
        citations: tuple[Citation, ...] = (),
        hits: tuple[Found, ...] = (),
    ) -> Answer:
        return Answer(status, kind, text, citations, hits, self.relevance, self.usage, tuple(self.degraded))

    async def _search(self) -> list[_Searched]:
        """What is found for the question; for a follow-up, also for the question before and this one together. Nothing
        is searched for that asks nothing."""
        query = self.question.search
        own = extracting.asked_words(query.text)
        asked = [(query.text, own)]
        before = [turn.content for turn in self.question.history if turn.role == "user"]
        if before:
            # A phrase that was quoted then need not be in the answer now.
            earlier = _QUOTES.sub(" ", before[-1])[-MOST_BEFORE_CHARACTERS:]
            together = f"{earlier}\n{query.text}"
            own = extracting.asked_words(query.text, together)
            asked = [(query.text, own), (together, own)] if own else [(together, own)]
        searched = []
        for text, own in asked:
            if not extracting.asked_words(text):
                continue
            result = await self.verb.searching.search(self.tenant, replace(query, text=text), self.deadline)
            cosines = [one.scores.vector.score for one in result.hits if one.scores.vector is not None]
            similarity = max(cosines, default=None) if _reads(result.languages, text) else None
            searched.append(_Searched(text, own, result.hits, similarity, result.degraded))
        for left_out in searched[0].degraded if searched else ():
            self.degraded.append(Degraded(left_out.part, left_out.code, left_out.message))
        return searched

    async def _widened(self, hits: Sequence[Found]) -> Sequence[Found]:
        short = [found.hit for found in hits if is_short(found.hit)]
        if not short:
            return hits
        beside = await self.verb.searching.store.neighbours(self.tenant.tenant_id, short, AROUND)
        around = dict(zip(((hit.version_id, hit.ordinal) for hit in short), beside, strict=True))
        return widened(hits, [around.get((found.hit.version_id, found.hit.ordinal), ()) for found in hits])

    def _prompt(self, hits: Sequence[Hit]) -> Prompt:
        question = self.question
        try:
            return build_prompt(
                question.search.text,
                hits,
                question.history,
                instructions=question.instructions,
                budget=question.token_budget,
                mark=self.verb.mark(),
            )
        except BudgetTooSmall as small:
            message = f"Not one passage fits into so few tokens; the shortest needs {small.needed} in all."
            raise InvalidRequest(problems=[{"field": "token_budget", "message": message}]) from None

    async def _generated(self, chat: ChatModel, prompt: Prompt) -> Grounded | None:
        """What the model answers, if it stands; None: it found nothing. Raises _Unanswered."""
        question = self.question
        # Nothing that a document made an earlier answer say is vouched for by that answer.
        before = [turn.content for turn in prompt.turns[:-1] if turn.role == "user"]
        asked = [question.search.text, *before]
        turns, reason = prompt.turns, ""
        for tries in range(2):
            left_s = self.deadline.remaining_s()
            request = ChatRequest(prompt.system, turns, question.max_output_tokens, question.temperature)
            reply = await self._reply(chat, request)
            try:
                draft = parse_reply(reply.text)
                if not draft.found:
                    return None
                return ground(draft, prompt.passages, asked, prompt.system)
            except (Rejected, ValueError) as error:
                reason = str(error) if reply.is_whole else "it was cut off: it must be shorter."
            logger.info("answer rejected", extra={"reason": reason})
            if tries or self.deadline.remaining_s() - RESERVE_S < left_s - self.deadline.remaining_s():
                break  # or there is less time than it took
            turns = again(prompt, reply.text[:MOST_ECHOED_CHARACTERS], reason)
        raise _Unanswered("answer_rejected", f"What the chat model wrote was rejected: {reason}")

    async def _reply(self, chat: ChatModel, request: ChatRequest) -> ChatReply:
        """One reply, with patience for what passes. Raises _Unanswered."""
        until = Deadline(self.deadline.at_s - RESERVE_S, self.deadline.clock)
        failures = 0
        while True:
            self.usage.requests += 1
            try:
                reply = await chat.reply(request, until)
            except RetryableError as error:
                failures += 1
                wait_s = self.verb.retry.wait_s(failures, error.retry_after_s)
                if failures == self.verb.retry.attempts or wait_s >= until.remaining_s():
                    raise _Unanswered.of(error) from error
                await asyncio.sleep(wait_s)
            except (ChatRejected, ProviderMisconfigured) as error:
                # A wrong key or model does not pass: an operator must see it though the question was answered.
                level = logging.ERROR if isinstance(error, ProviderMisconfigured) else logging.WARNING
                logger.log(level, "no answer from the chat model", extra={"code": error.code}, exc_info=error)
                raise _Unanswered.of(error) from error
            else:
                sent = [request.system, *(turn.content for turn in request.turns)]
                self.usage.input_tokens += _known(reply.input_tokens, *sent)
                self.usage.output_tokens += _known(reply.output_tokens, reply.text)
                return reply

    def _quoted(self, best: Sequence[extracting.Sentence], passages: Sequence[Hit]) -> str:
        """The sentences as plain text, one a line, each with its marker."""
        lines, removed, has_html = [], 0, False
        markers = {one.passage + 1 for one in best}
        for one in best:
            hit = passages[one.passage]
            cells = hit.text[one.start : one.end].strip().split("\t")
            inert = neutralise(" | ".join(" ".join(cell.split()) for cell in cells), hit.text)
            lines.append(f"{_without_markers(inert.text, markers)} [{one.passage + 1}]")
            removed += inert.removed
            has_html = has_html or inert.has_html
        self._note_links(removed)
        if has_html:
            message = "HTML is left out of the answer; quotes and hits have the stored text."
            self.degraded.append(Degraded("links", "html_removed", message))
        return "\n".join(lines)

    def _note_links(self, removed: int) -> None:
        if removed:
            message = "Links are left out of the answer; quotes and hits have the stored text."
            self.degraded.append(Degraded("links", "links_removed", message))


class _Unanswered(Exception):
    """There is no generated answer; an extractive one is given instead."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.degraded = Degraded("chat", code, message)

    @classmethod
    def of(cls, error: EddaError) -> "_Unanswered":
        return cls(error.code, error.message)


def _reads(languages: frozenset[str] | None, question: str) -> bool:
    """Whether the embedding model, which reads these (None: all), can read the question's script. If not, all texts are
    near each other to it; a language that is written alike has words and names in common with one that it knows."""
    asked = query_terms(question).languages
    return languages is None or not asked or any(is_of_script(one, languages) for one in asked)


def _without_markers(text: str, ours: Collection[int]) -> str:
    """A document's own [2] as (2), for it is none of our markers; an index, as of values[3], only if it is one of
    `ours`."""

    def plain(own: re.Match[str]) -> str:
        is_index = own.start() > 0 and (text[own.start() - 1].isalnum() or text[own.start() - 1] in "_])")
        return own[0] if is_index and int(own[1]) not in ours else f"({own[1]})"

    return MARKER.sub(plain, text)


def _interleaved(lists: Sequence[Sequence[Found]]) -> list[Found]:
    """The first of each, the second of each, and so on; each passage once."""
    merged: dict[tuple[UUID, int], Found] = {}
    for place in range(max(map(len, lists), default=0)):
        for found in lists:
            if place < len(found):
                merged.setdefault((found[place].hit.version_id, found[place].hit.ordinal), found[place])
    return list(merged.values())


def _known(count: int | None, *texts: str) -> int:
    return sum(map(count_tokens, texts)) if count is None else count
