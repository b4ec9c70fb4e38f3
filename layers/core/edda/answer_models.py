"""The requests and answers of the answer endpoint."""

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, field_validator

from edda.api_models import OfAttributes, Reason, Request, attributes
from edda.filters import parse_filter
from edda.models import ChatTurn, Hit
from edda.search_models import MAX_QUERY_CHARACTERS, FilterField, HitBody, without_nul
from edda.searching import Mode, SearchQuery

if TYPE_CHECKING:  # api and search have these models in their document, and answer nothing
    from edda.answering import Answer, Question
    from edda.grounding import Citation

DEFAULT_PASSAGES = 8
MAX_PASSAGES = 50
MAX_TURNS = 50
MAX_TURN_CHARACTERS = 20_000
MAX_INSTRUCTIONS_CHARACTERS = 4_000
MIN_TOKEN_BUDGET, DEFAULT_TOKEN_BUDGET, MAX_TOKEN_BUDGET = 500, 4_000, 100_000
MIN_OUTPUT_TOKENS, DEFAULT_OUTPUT_TOKENS, MAX_OUTPUT_TOKENS = 50, 800, 4_000


class Turn(Request):
    """What was said before, by the user or in an answer."""

    role: Literal["user", "assistant"]
    content: Annotated[
        str,
        BeforeValidator(without_nul),
        Field(min_length=1, max_length=MAX_TURN_CHARACTERS, examples=["And part-time?"]),
    ]


class AnswerRequest(Request):
    """A question."""

    question: Annotated[
        str,
        BeforeValidator(without_nul),
        Field(min_length=1, max_length=MAX_QUERY_CHARACTERS, examples=["How many days of leave do I get?"]),
    ]
    history: Annotated[list[Turn], Field(max_length=MAX_TURNS)] = Field(
        default=[],
        description="The conversation before, oldest first: user and assistant in turn. A follow-up is searched for "
        "by itself and together with the question before it.",
    )
    instructions: Annotated[str, BeforeValidator(without_nul), Field(max_length=MAX_INSTRUCTIONS_CHARACTERS)] = Field(
        default="",
        description="For the chat model: tone, form, what the service is about. They cannot lift the rules that an "
        "answer is checked by. Whatever a model is told it may repeat in other words: put no secret here.",
    )
    top_k: Annotated[
        int, Field(ge=1, le=MAX_PASSAGES, description="Passages to answer from, if the budget holds them.")
    ] = DEFAULT_PASSAGES
    mode: Literal["hybrid", "vector", "text"] = Field(default="hybrid", description="As for search.")
    filter: FilterField = None
    rerank: bool | None = Field(default=None, description="As for search.")
    token_budget: Annotated[
        int,
        Field(
            ge=MIN_TOKEN_BUDGET,
            le=MAX_TOKEN_BUDGET,
            description="Tokens, by our estimate, of all that the chat model is given: rules (about 350), "
            "instructions, a quarter at most for the newest turns of the history, and passages in their order as long "
            "as they fit. Where no model is asked, of the passages alone.",
        ),
    ] = DEFAULT_TOKEN_BUDGET
    max_output_tokens: Annotated[int, Field(ge=MIN_OUTPUT_TOKENS, le=MAX_OUTPUT_TOKENS)] = DEFAULT_OUTPUT_TOKENS
    temperature: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Of the chat model; null: its own. Some models refuse it."
    )
    generate: bool = Field(default=True, description="false: an extractive answer, though there may be a chat model.")

    @field_validator("history")
    @classmethod
    def _turns_alternate(cls, history: list[Turn]) -> list[Turn]:
        roles = [turn.role for turn in history]
        if roles and (roles[0] != "user" or roles[-1] != "assistant" or any(a == b for a, b in pairwise(roles))):
            raise ValueError("user and assistant in turn, from a user's to an assistant's; the question comes after")
        return history

    def to_question(self) -> "Question":
        """Raises InvalidFilter."""
        from edda.answering import Question

        return Question(
            search=SearchQuery(
                text=self.question,
                top_k=self.top_k,
                mode=Mode(self.mode),
                filter=parse_filter(self.filter),
                rerank=self.rerank,
            ),
            history=tuple(ChatTurn(turn.role, turn.content) for turn in self.history),
            instructions=self.instructions,
            token_budget=self.token_budget,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            generate=self.generate,
        )


class CitationBody(BaseModel):
    """What proves the answer where its marker stands: `quote` is characters `char_start` to `char_end` of the text that
    was read from this version of the document, as it is stored; only white space between two passages that were short
    may be other."""

    marker: int = Field(description="n of [n] in the answer, which is also the n-th of `hits`.")
    positions: list[int] = Field(description="Where its markers begin in the answer, in characters.")
    document_id: UUID
    version_id: UUID
    chunk_id: UUID
    name: str
    title: str | None
    page: int | None = Field(description="Where the passage begins; the quote may stand further on.")
    heading_path: list[str] = Field(description="Where the passage that was found begins; as above.")
    char_start: int
    char_end: int
    quote: str

    @classmethod
    def of(cls, citation: "Citation", hit: Hit, text: str) -> Self:
        """As it was checked."""
        from edda.grounding import positions

        place = {
            "marker": citation.passage + 1,
            "positions": positions(text, citation.passage),
            "char_start": hit.char_start + citation.start,
            "char_end": hit.char_start + citation.end,
            "quote": hit.text[citation.start : citation.end],
        }
        return cls.model_validate(attributes(hit, cls) | place)


class ChatUsageBody(OfAttributes):
    """What the chat model took, rejected answers included; tokens as the provider counts them, or by our estimate."""

    requests: int
    input_tokens: int
    output_tokens: int


class AnswerDegradedBody(OfAttributes, Reason):
    """What is not as it should be. vector, rerank: as for search. chat: the answer is extractive because the chat model
    failed, or was rejected for good (answer_rejected). links: links were left out (links_removed), or HTML
    (html_removed)."""

    part: Literal["vector", "rerank", "chat", "links"]


class AnswerBody(BaseModel):
    """An answer, and what it stands on."""

    status: Literal["answered", "not_found"] = Field(
        description="not_found: nothing that answers the question was found, or nothing is asked (function words or "
        "emoji alone); `answer` says so, in English."
    )
    kind: Literal["generated", "extractive"] = Field(
        description="Who decided: a chat model whose citations were checked, or the rule that picks sentences."
    )
    answer: str = Field(
        description="Plain text with markers [n]: no link, image or HTML. Of an extractive answer, each line is a "
        "sentence or a row of a document, a header of a table before its rows."
    )
    citations: list[CitationBody]
    hits: list[HitBody] = Field(
        description="The passages that it was made from, best first; short ones with those around them as one."
    )
    relevance: float = Field(description="How sure it is that the hits have to do with the question, about 0 to 1.")
    model: str | None = Field(description="The chat model, if it was asked.")
    usage: ChatUsageBody
    degraded: list[AnswerDegradedBody]

    @classmethod
    def of(cls, answer: "Answer", model: str | None) -> Self:
        """As it was made; `model` is the one there is."""
        made = {
            "answer": answer.text,
            "citations": [CitationBody.of(one, answer.hits[one.passage].hit, answer.text) for one in answer.citations],
            "hits": [HitBody.of(found) for found in answer.hits],
            "relevance": round(answer.relevance, 3),
            "model": model if answer.usage.requests else None,
        }
        return cls.model_validate(attributes(answer, cls) | made)
