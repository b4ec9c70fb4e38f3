"""The requests and answers of search."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from edda.api_models import FILTER_SCHEMA, OfAttributes, Reason, Request, attributes
from edda.errors import InvalidRequest
from edda.filters import parse_filter
from edda.fusing import Fusion
from edda.models import JsonObject
from edda.ranking import SCORE_DIGITS, ScoredBy
from edda.searching import DEFAULT_DEPTH, DEFAULT_FUSION, Found, Mode, SearchQuery, SearchResult

MAX_QUERY_CHARACTERS = 8000
MAX_TOP_K = 100
DEFAULT_TOP_K = 10
MAX_ASKED_DEPTH = 1000
MAX_RERANKED = 200
MAX_CONTEXT = 5
MAX_PER_DOCUMENT = 20
MAX_PASSAGES = 1000  # in one answer, neighbours too
# What gives hits a score in each mode, beside the reranker.
PARTS = {
    "hybrid": frozenset({"vector", "text", "fused"}),
    "vector": frozenset({"vector"}),
    "text": frozenset({"text"}),
}
Score = Annotated[float, AfterValidator(lambda score: round(score, SCORE_DIGITS))]


def without_nul(value: Any) -> Any:
    """What a person typed, as Postgres can take it."""
    return value.replace("\x00", "").strip() if isinstance(value, str) else value


Query = Annotated[
    str,
    BeforeValidator(without_nul),
    Field(
        min_length=1,
        max_length=MAX_QUERY_CHARACTERS,
        description='Words, an identifier, a question. What stands in "quotation marks" must be in every hit, its '
        "headings or its document's title, white space, case and typography apart (but in mode vector), unless a "
        "sentence is around it, which may quote in passing: there only what has no word to look for must. Punctuation "
        "alone is not looked for, symbols (🚀, €) are; a mark without its partner is a character like others, and "
        "there are no operators.",
        examples=["How many days of leave do I get?"],
    ),
]
FilterField = Annotated[Any, WithJsonSchema(FILTER_SCHEMA)]
Depth = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_ASKED_DEPTH,
        description="Candidates of each leg (at least `top_k`, six times as many grouped by document), and so how "
        "far pages go. Grouped by document, the first page looks deeper until it is full.",
    ),
]


class MinScores(Request):
    """What each of these parts must have given a hit. A part that the mode does not have is a mistake."""

    vector: float | None = None
    text: float | None = None
    fused: float | None = None
    rerank: float | None = None


# In parentheses: no part of the place of a mistake.
MinScore = Annotated[
    Annotated[float, Tag("(number)")] | Annotated[MinScores, Tag("(parts)")],
    Discriminator(lambda value: "(parts)" if isinstance(value, dict | MinScores) else "(number)"),
]


class FusionBody(Request):
    """How two scores become one. In mode hybrid only."""

    vector_weight: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="0 is words alone, 1 is vectors alone. For a query in a language that the model does not read "
            "vectors count less by themselves.",
        ),
    ] = DEFAULT_FUSION.vector_weight
    neighbour_weight: Annotated[
        float, Field(ge=0, le=1, description="How much of the scores of the passages beside it a passage is given.")
    ] = DEFAULT_FUSION.neighbour_weight


class SearchRequest(Request):
    """A question."""

    query: Query
    top_k: Annotated[
        int, Field(ge=1, le=MAX_TOP_K, description="Hits, or documents where hits are grouped by them.")
    ] = DEFAULT_TOP_K
    mode: Literal["hybrid", "vector", "text"] = Field(
        default="hybrid",
        description="vector: by meaning; text: by words (BM25, in each document's language); hybrid: both, fused.",
    )
    filter: FilterField = None
    depth: Depth = DEFAULT_DEPTH
    fusion: FusionBody = FusionBody()
    min_score: MinScore | None = Field(
        default=None,
        description="Hits below it are left out. A number is of what means the same for every question: the reranker's "
        "score where hits are reranked, else the cosine similarity, in mode text BM25's score. An object names the "
        "parts itself. A threshold of a part that was left out is left out with it.",
        examples=[0.3, {"rerank": 0.5}],
    )
    group_by: Literal["document"] | None = Field(
        default=None,
        description="document: `top_k` documents, in the order of their best hits, each with its best hits together.",
    )
    hits_per_document: Annotated[int, Field(ge=1, le=MAX_PER_DOCUMENT, description="Only with `group_by`.")] = 3
    context: Annotated[
        int, Field(ge=0, le=MAX_CONTEXT, description="Passages before and after each hit, from the same document.")
    ] = 0
    rerank: bool | None = Field(
        default=None, description="Whether the reranker reads the best candidates; null: if the deployment has one."
    )
    rerank_candidates: Annotated[int, Field(ge=1, le=MAX_RERANKED)] | None = Field(
        default=None, description="How many it reads if it does, at least `top_k`; null: as the deployment says."
    )
    cursor: Annotated[str, Field(max_length=200)] | None = Field(
        default=None,
        description="The next page: `next_cursor` of the page before, with the same search (`top_k` and `context` may "
        "differ, `top_k` not where hits are reranked).",
    )

    @model_validator(mode="after")
    def _is_not_too_much(self) -> Self:
        hits = self.top_k * (self.hits_per_document if self.group_by else 1)
        if hits * (1 + 2 * self.context) > MAX_PASSAGES:
            raise ValueError(
                f"hits and their neighbours may be {MAX_PASSAGES} at most: a smaller top_k, or less context"
            )
        return self

    def search_query(self) -> SearchQuery:
        """Raises InvalidFilter, and InvalidRequest for what would be ignored without a word."""
        if problems := list(self._ignored()):
            raise InvalidRequest(problems=problems)
        by_part: dict[Any, float] = {}
        if isinstance(self.min_score, MinScores):
            by_part = self.min_score.model_dump(exclude_none=True)
        return SearchQuery(
            text=self.query,
            top_k=self.top_k,
            mode=Mode(self.mode),
            filter=parse_filter(self.filter),
            depth=self.depth,
            fusion=Fusion(self.fusion.vector_weight, self.fusion.neighbour_weight),
            min_score=None if isinstance(self.min_score, MinScores) else self.min_score,
            min_scores=tuple(by_part.items()),
            group_by_document=self.group_by == "document",
            hits_per_document=self.hits_per_document,
            context=self.context,
            rerank=self.rerank,
            rerank_candidates=self.rerank_candidates,
            cursor=self.cursor,
        )

    def _ignored(self) -> Iterator[dict[str, str]]:
        """What means nothing in this mode, or without something else."""
        if self.group_by is None and "hits_per_document" in self.model_fields_set:
            yield {"field": "hits_per_document", "message": "needs group_by: document"}
        if self.mode != "hybrid" and "fusion" in self.model_fields_set:
            yield {"field": "fusion", "message": f"means nothing in mode {self.mode}, which has one score"}
        if isinstance(self.min_score, MinScores):
            there = PARTS[self.mode] if self.rerank is False else PARTS[self.mode] | {"rerank"}
            for part in sorted(self.min_score.model_fields_set - there):
                yield {"field": f"min_score.{part}", "message": "no hit of this search has such a score"}


class PartScoreBody(OfAttributes):
    """What one part gave this hit, and the how-many-eth among the candidates that made it, from 1."""

    rank: int
    score: Score


class PartScoresBody(OfAttributes):
    """How each part judged a hit; null where it was not asked, or has nothing to say of it."""

    vector: PartScoreBody | None = Field(description="Cosine similarity, -1 to 1.")
    text: PartScoreBody | None = Field(description="BM25, 0 and more.")
    fused: PartScoreBody | None = Field(description="0 is a mean candidate of this query: good for its order only.")
    rerank: PartScoreBody | None = Field(description="On the reranker's own scale.")


class SpanBody(OfAttributes):
    """Characters of the hit's `text`."""

    start: int
    end: int


class PassageBody(OfAttributes):
    """A passage beside a hit."""

    chunk_id: UUID
    ordinal: int
    text: str
    char_start: int
    char_end: int
    page: int | None


class HitBody(OfAttributes):
    """A passage found. `score` is what it was ranked by (see `scored_by`); higher is better."""

    document_id: UUID
    chunk_id: UUID
    ordinal: int
    name: str
    title: str | None
    page: int | None
    heading_path: list[str]
    text: str
    char_start: int
    char_end: int
    language: str | None
    metadata: JsonObject
    tags: list[str]
    score: Score = Field(
        description="In mode hybrid, without a reranker, it says where the hit stands among the candidates of this "
        "query (0 is a mean one) and nothing beyond: for what is the same for every query see `scores`."
    )
    scores: PartScoresBody
    highlights: list[SpanBody] = Field(description="Where the query's words and phrases are, in order.")
    before: list[PassageBody] = Field(description="`context` passages before it, in order.")
    after: list[PassageBody]

    @classmethod
    def of(cls, found: Found) -> Self:
        """As it was found."""
        return cls.model_validate(attributes(found.hit, cls) | attributes(found, cls))


class DegradedBody(OfAttributes, Reason):
    """A part that was left out, and why."""

    part: Literal["vector", "rerank"]


class SearchBody(OfAttributes):
    """The best passages, best first; and what happened."""

    hits: list[HitBody]
    mode: Literal["hybrid", "vector", "text"]
    scored_by: ScoredBy = Field(
        description="What `score` is: the same as that part's entry in `scores`. Where it is `rerank`, hits that the "
        "reranker has not read come last: their `scores.rerank` is null, and `score` is what they had without it."
    )
    model: str | None = Field(description="The embedding model that compared them; null if none did.")
    reranker: str | None = Field(description="The reranker that ordered them; null if none did.")
    degraded: list[DegradedBody] = Field(
        description="Empty if all went as asked. `code` is that of the problem it would have been: "
        "provider_unavailable, provider_throttled, provider_misconfigured, embedding_rejected, internal_error."
    )
    no_terms: bool = Field(
        description="The query has no word to look for (only emoji or function words, say): the text leg found "
        "nothing, but for what holds a quoted phrase."
    )
    next_cursor: str | None = Field(
        description="Ask for the next page with it; null at the end of the candidates, of which there are at least "
        "min(`depth`, matching), but in mode text only of those with a word of the query. Grouped by document these "
        "may be of few documents: then a larger `depth`, or `top_k` on the first page, finds more."
    )

    @classmethod
    def of(cls, result: SearchResult) -> Self:
        """As it was found."""
        hits = [HitBody.of(found) for found in result.hits]
        return cls.model_validate(attributes(result, cls) | {"mode": result.mode.value, "hits": hits})
