"""The answer verb: a question in, an answer with citations out.

What was found is given to the chat model; what that writes is checked (see `grounding`) and, if it does not stand,
asked for once more, with the reason. If it still does not, or there is no chat model, or it fails, the best sentences
of the passages are the answer (see `extracting`), and the answer says so. If nothing that was found has to do with the
question, nothing is made up.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from edda import extracting
from edda.batching import RetryPolicy
from edda.concurrency import Deadline
from edda.errors import ChatRejected, EddaError, InvalidRequest, ProviderMisconfigured, RetryableError
from edda.filters import Filter
from edda.grounding import Citation, Grounded, Rejected, ground
from edda.models import ChatReply, ChatRequest, ChatTurn, Hit, Tenant
from edda.neutralising import neutralise
from edda.ports import ChatModel
from edda.prompting import BudgetTooSmall, Prompt, again, build_prompt, parse_reply
from edda.searching import Searching
from edda.tokens import count_tokens

logger = logging.getLogger(__name__)

# Below this nothing is answered: docs/answers.md has the figures. A chat model judges for itself what is given to it,
# and is spared only what has nothing to do with the question.
THRESHOLD = 0.33
CHAT_SHARE_OF_THRESHOLD = 0.6
# Where no vector was compared, the words alone tell.
WORDS_THRESHOLD = 0.25

NOT_FOUND = "I don't know: nothing that answers this was found in the documents."
# Of the time, kept for the answer without a model.
RESERVE_S = 1.0
RETRY = RetryPolicy(attempts=2, first_wait_s=0.5, longest_wait_s=2.0)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how. `token_budget` is for all that a chat model is given."""

    text: str
    history: tuple[ChatTurn, ...] = ()
    instructions: str = ""
    top_k: int = 8
    filter: Filter | None = None
    token_budget: int = 4000
    max_output_tokens: int = 800
    temperature: float | None = None
    generate: bool = True


@dataclass(frozen=True, slots=True)
class Degraded:
    """What is not as it should be, and what was done instead. `code` is stable."""

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
    hits: tuple[Hit, ...]
    relevance: float
    usage: Usage
    degraded: tuple[Degraded, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a search brought. `asked` is what the search was for."""

    asked: str
    hits: list[Hit]
    similarity: float | None


@dataclass(frozen=True, slots=True)
class Answering:
    """The verb of the answer function. Without a `chat` model every answer is extractive."""

    searching: Searching
    chat: ChatModel | None = None
    threshold: float = THRESHOLD
    retry: RetryPolicy = RETRY
    mark: Callable[[], str] = lambda: f"<{secrets.token_hex(6)}>"

    async def answer(self, tenant: Tenant, question: Question, deadline: Deadline) -> Answer:
        """Answer from this tenant's documents.

        Raises InvalidRequest for a budget that holds no passage, and what a search raises.
        """
        found = await self._search(tenant, question, deadline)
        hits = _interleaved([one.hits for one in found])[: question.top_k]
        usage, degraded = Usage(), []
        relevance = 0.0
        if hits:
            prompt = self._prompt(question, hits)
            ranked = [extracting.ranked_sentences(one.asked, prompt.passages) for one in found]
            judged = [
                extracting.relevance(sentences, one.similarity) for sentences, one in zip(ranked, found, strict=True)
            ]
            relevance = max(judged)
            least = self._least(found[0])
            if self.chat is not None and question.generate and relevance >= CHAT_SHARE_OF_THRESHOLD * least:
                try:
                    grounded = await self._generated(self.chat, question, prompt, deadline, usage)
                except _Unanswered as reason:
                    degraded.append(reason.degraded)
                else:
                    return _generated_answer(grounded, prompt, relevance, usage)
            # A follow-up is judged by itself, and with the question before it only if it says too little.
            for sentences, one in zip(ranked, judged, strict=True):
                if one >= least and (best := extracting.best_sentences(sentences, prompt.passages)):
                    return _extractive_answer(best, prompt, relevance, usage, degraded)
        return Answer("not_found", "extractive", NOT_FOUND, (), (), relevance, usage, tuple(degraded))

    async def _search(self, tenant: Tenant, question: Question, deadline: Deadline) -> list[_Found]:
        """What is found for the question; for a follow-up, also for the question before and this one together."""
        asked = [question.text]
        before = [turn.content for turn in question.history if turn.role == "user"]
        if before:
            asked.append(f"{before[-1]}\n{question.text}")
        found = []
        for text in asked:
            hits = await self.searching.search(tenant, text, question.top_k, question.filter, deadline)
            found.append(_Found(text, hits, max((hit.score for hit in hits), default=None)))
        return found

    def _prompt(self, question: Question, hits: Sequence[Hit]) -> Prompt:
        try:
            return build_prompt(
                question.text,
                hits,
                question.history,
                instructions=question.instructions,
                budget=question.token_budget,
                mark=self.mark(),
            )
        except BudgetTooSmall as small:
            message = f"Not one passage fits into so few tokens; the shortest needs {small.needed} in all."
            raise InvalidRequest(problems=[{"field": "token_budget", "message": message}]) from None

    def _least(self, found: _Found) -> float:
        return WORDS_THRESHOLD if found.similarity is None else self.threshold

    async def _generated(
        self, chat: ChatModel, question: Question, prompt: Prompt, deadline: Deadline, usage: Usage
    ) -> Grounded | None:
        """What the model answers, if it stands; None: it found nothing. Raises _Unanswered."""
        until = Deadline(deadline.at_s - RESERVE_S, deadline.clock)
        asked = [question.text, *(turn.content for turn in question.history)]
        turns, reason = prompt.turns, ""
        for _ in range(2):
            request = ChatRequest(prompt.system, turns, question.max_output_tokens, question.temperature)
            reply = await self._reply(chat, request, until, usage)
            try:
                draft = parse_reply(reply.text)
                if not draft.found:
                    return None
                return ground(draft, prompt.passages, asked, prompt.system)
            except (Rejected, ValueError) as error:
                reason = str(error) if reply.is_whole else "it was cut off: it must be shorter."
            logger.info("answer rejected", extra={"reason": reason})
            turns = again(prompt, reply.text, reason)
        raise _Unanswered("answer_rejected", f"What the chat model wrote was rejected twice: {reason}")

    async def _reply(self, chat: ChatModel, request: ChatRequest, until: Deadline, usage: Usage) -> ChatReply:
        """One reply, with patience for what passes. Raises _Unanswered."""
        failures = 0
        while True:
            usage.requests += 1
            try:
                reply = await chat.reply(request, until)
            except RetryableError as error:
                failures += 1
                wait_s = self.retry.wait_s(failures, error.retry_after_s)
                if failures == self.retry.attempts or wait_s >= until.remaining_s():
                    raise _Unanswered.of(error) from error
                await asyncio.sleep(wait_s)
            except (ChatRejected, ProviderMisconfigured) as error:
                level = logging.ERROR if isinstance(error, ProviderMisconfigured) else logging.INFO
                logger.log(level, "no answer from the chat model", extra={"code": error.code, "reason": error.message})
                raise _Unanswered.of(error) from error
            else:
                sent = [request.system, *(turn.content for turn in request.turns)]
                usage.input_tokens += _known(reply.input_tokens, *sent)
                usage.output_tokens += _known(reply.output_tokens, reply.text)
                return reply


class _Unanswered(Exception):
    """There is no generated answer; an extractive one is given instead."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.degraded = Degraded(code, message)

    @classmethod
    def of(cls, error: EddaError) -> "_Unanswered":
        return cls(error.code, error.message)


def _generated_answer(grounded: Grounded | None, prompt: Prompt, relevance: float, usage: Usage) -> Answer:
    if grounded is None:
        return Answer("not_found", "generated", NOT_FOUND, (), prompt.passages, relevance, usage, ())
    degraded = _links_removed(grounded.removed)
    return Answer(
        "answered", "generated", grounded.text, grounded.citations, prompt.passages, relevance, usage, degraded
    )


def _extractive_answer(
    best: Sequence[extracting.Sentence], prompt: Prompt, relevance: float, usage: Usage, degraded: Sequence[Degraded]
) -> Answer:
    lines, removed = [], 0
    for one in best:
        hit = prompt.passages[one.passage]
        inert = neutralise(" ".join(hit.text[one.start : one.end].split()), hit.text)
        # A document's own [2] is none of our markers.
        lines.append(f"{inert.text.replace('[', '(').replace(']', ')')} [{one.passage + 1}]")
        removed += inert.removed
    return Answer(
        "answered",
        "extractive",
        "\n".join(lines),
        tuple(Citation(one.passage, one.start, one.end) for one in best),
        prompt.passages,
        relevance,
        usage,
        (*degraded, *_links_removed(removed)),
    )


def _links_removed(count: int) -> tuple[Degraded, ...]:
    if not count:
        return ()
    return (Degraded("links_removed", "Links are left out of the answer; the quotes and hits have the stored text."),)


def _interleaved(lists: Sequence[Sequence[Hit]]) -> list[Hit]:
    """The first of each, the second of each, and so on; each passage once."""
    found: dict[tuple[object, int], Hit] = {}
    for place in range(max(map(len, lists), default=0)):
        for hits in lists:
            if place < len(hits):
                found.setdefault((hits[place].version_id, hits[place].ordinal), hits[place])
    return list(found.values())


def _known(count: int | None, *texts: str) -> int:
    return sum(map(count_tokens, texts)) if count is None else count
