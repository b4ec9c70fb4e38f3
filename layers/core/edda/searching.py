"""The search verb: question, candidates of two legs, fused, reranked, one page of them.

Whatever only makes hits better may be missing: a provider that gives no vector leaves the text leg, a reranker that
fails leaves the fused order, and the result says so.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeVar

from edda import paging
from edda.concurrency import Deadline
from edda.errors import (
    EddaError,
    EmbeddingRejected,
    InvalidRequest,
    ProviderMisconfigured,
    ProviderThrottled,
    ProviderUnavailable,
)
from edda.filters import Filter
from edda.fusing import Fusion, Scores, fuse, languages_of_model
from edda.highlighting import Span, highlights
from edda.models import Candidate, Hit, Passage, Tenant
from edda.ports import Embedder, Reranker
from edda.ranking import Key, PartScores, Ranked, ScoredBy, above, behind, grouped, ranked, reranked
from edda.reranking import rerank_all
from edda.store.conditions import compile_filter
from edda.store.database import HalfVector
from edda.store.search import SearchStore
from edda.terms import QueryTerms, query_terms
from edda.vectors import to_halfvec_binary

logger = logging.getLogger(__name__)
T = TypeVar("T")
Part = Literal["vector", "rerank"]

DEFAULT_DEPTH = 200
DEFAULT_FUSION = Fusion()
CHUNKS_EACH = 6  # candidates for each document asked for
DEEPER = 4  # times: these are not of enough documents
EMBEDDING_PATIENCE_S = 8.0  # where the text leg can answer alone; a cold in-process model takes three


class Mode(StrEnum):
    HYBRID = "hybrid"
    VECTOR = "vector"
    TEXT = "text"


SCORED_BY: dict[Mode, ScoredBy] = {Mode.HYBRID: "fused", Mode.VECTOR: "vector", Mode.TEXT: "text"}
# What thresholds are of: a fused score says where a hit stands among the candidates of its own query.
SAME_FOR_EVERY_QUERY: dict[Mode, ScoredBy] = {Mode.HYBRID: "vector", Mode.VECTOR: "vector", Mode.TEXT: "text"}


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is searched for, and how.

    `depth`: candidates of each leg, and how far pages go. `min_score` is of the reranker's score, else of the cosine,
    in mode text of BM25's; `min_scores` are of the parts that they name. `top_k` counts documents where hits are
    grouped by them. `rerank` None: if there is a reranker.
    """

    text: str
    top_k: int = 10
    mode: Mode = Mode.HYBRID
    filter: Filter | None = None
    depth: int = DEFAULT_DEPTH
    fusion: Fusion = DEFAULT_FUSION
    min_score: float | None = None
    min_scores: tuple[tuple[ScoredBy, float], ...] = ()
    group_by_document: bool = False
    hits_per_document: int = 3
    context: int = 0
    rerank: bool | None = None
    rerank_candidates: int | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Degraded:
    """What was left out, and why. `code` is the error's."""

    part: Part
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """A hit, how each part judged it, where the query's words are in it, and its neighbours."""

    hit: Hit
    scores: PartScores
    highlights: Sequence[Span] = ()
    before: Sequence[Passage] = ()
    after: Sequence[Passage] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page. `scored_by` is what `hit.score` is of; `model` and `reranker` are those that judged; `no_terms`: the
    query has no word that the text leg could look for; `languages`: those that the embedding model reads, None: all."""

    hits: Sequence[Found]
    mode: Mode
    scored_by: ScoredBy
    model: str | None
    reranker: str | None
    degraded: Sequence[Degraded]
    no_terms: bool
    next_cursor: str | None
    languages: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Reranking:
    """The reranker, how many candidates it reads unless a query says otherwise, and how long it may take."""

    reranker: Reranker
    candidates: int = 50
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Searching:
    """The verb of the search function."""

    store: SearchStore
    embedder: Embedder
    reranking: Reranking | None = None
    model_languages: str = ""  # that the embedding model reads, if its name does not tell

    @property
    def languages(self) -> frozenset[str] | None:
        """Those that the embedding model reads (ISO 639-1); None: all."""
        return languages_of_model(self.embedder.name, self.model_languages)

    async def search(self, tenant: Tenant, query: SearchQuery, deadline: Deadline) -> SearchResult:
        """The best passages: `top_k` of them, or all that match.

        Raises InvalidRequest (a cursor that is not of this search, a reranker that is not there), DatabaseUnavailable.
        Where nothing but the vector leg could find anything: EmbeddingRejected, ProviderUnavailable and
        ProviderMisconfigured, too.
        """
        return await _Search(self, tenant, query, deadline).run()


@dataclass(slots=True)
class _Search:
    """One search on its way."""

    verb: Searching
    tenant: Tenant
    query: SearchQuery
    deadline: Deadline
    degraded: list[Degraded] = field(default_factory=list)
    hits: dict[Key, Hit] = field(default_factory=dict)

    async def run(self) -> SearchResult:
        query = self.query
        reranking = self._reranking()
        identity = self._identity(reranking)
        cursor = paging.decode(query.cursor, identity) if query.cursor else None
        terms = query_terms(query.text)
        vector = await self._vector(has_terms=bool(terms.terms))
        candidates, depth = await self._candidates(vector, terms, cursor and cursor.depth)
        order = self._ranked(candidates, terms)
        scored_by = SCORED_BY[query.mode]
        is_reranked = False
        if reranking is not None:
            order, is_reranked = await self._reranked(order, reranking)
        if is_reranked:
            scored_by = "rerank"
        thresholds = list(query.min_scores)
        if query.min_score is not None and is_reranked == (reranking is not None):  # or it is of another scale
            thresholds.append(("rerank" if is_reranked else SAME_FOR_EVERY_QUERY[query.mode], query.min_score))
        took_part: dict[ScoredBy, bool] = {
            "vector": vector is not None,
            "text": query.mode is not Mode.VECTOR and bool(terms.terms),
            "fused": query.mode is Mode.HYBRID,
            "rerank": is_reranked,
        }
        order = above(order, [(part, least) for part, least in thresholds if took_part[part]])
        groups = grouped(order, query.hits_per_document) if query.group_by_document else [[one] for one in order]
        first = behind(groups, cursor and cursor.position, by_document=query.group_by_document)
        page, taken = await self._page(groups[first:])
        next_cursor = None
        if first + taken < len(groups):
            last = paging.Cursor(groups[first + taken - 1][0].position, depth)
            next_cursor = paging.encode(last, identity)
        return SearchResult(
            hits=await self._told(page, terms),
            mode=query.mode,
            scored_by=scored_by,
            model=None if vector is None else self.verb.embedder.name,
            reranker=reranking.reranker.name if reranking is not None and is_reranked else None,
            degraded=self.degraded,
            no_terms=query.mode is not Mode.VECTOR and not terms.terms,
            next_cursor=next_cursor,
            languages=self.verb.languages,
        )

    def _reranking(self) -> Reranking | None:
        """The reranker and how much it reads of this search. Raises InvalidRequest if it is wanted and not there."""
        query, reranking = self.query, self.verb.reranking
        needs_one = {
            "rerank": query.rerank,
            "min_score.rerank": any(part == "rerank" for part, _ in query.min_scores),
        }
        if reranking is None and (fields := [field for field, needs in needs_one.items() if needs]):
            problem = {"field": fields[0], "message": "this deployment has no reranker"}
            raise InvalidRequest("This deployment has no reranker.", problems=[problem])
        if reranking is None or query.rerank is False:
            return None
        candidates = query.rerank_candidates or reranking.candidates
        return replace(reranking, candidates=candidates if query.group_by_document else max(candidates, query.top_k))

    def _identity(self, reranking: Reranking | None) -> bytes:
        """All that the order of hits depends on."""
        asked = replace(self.query, cursor=None, context=0, top_k=0)
        reranked_by = None if reranking is None else (reranking.reranker.name, reranking.candidates)
        return repr((self.tenant.tenant_id, asked, self.verb.embedder.name, reranked_by)).encode()

    async def _vector(self, *, has_terms: bool) -> HalfVector | None:
        """The query's vector; None where it is not asked for, or cannot be had and the text leg can do without."""
        if self.query.mode is Mode.TEXT:
            return None
        may_miss = self.query.mode is Mode.HYBRID and has_terms
        until = self.deadline
        if may_miss:
            until = until.sooner(min(EMBEDDING_PATIENCE_S, until.remaining_s() / 2))

        async def ask() -> bytes:
            try:
                async with asyncio.timeout(until.remaining_s()):
                    (vector,) = await self.verb.embedder.embed([self.query.text], purpose="query", deadline=until)
            except TimeoutError:
                raise ProviderUnavailable("The embedding provider did not answer in time.") from None
            if isinstance(vector, EmbeddingRejected):
                raise vector
            return vector

        try:
            return HalfVector(to_halfvec_binary(await _once_more(ask)))
        except (EmbeddingRejected, ProviderUnavailable, ProviderMisconfigured) as error:
            if not may_miss:
                raise
            self._left_out("vector", error)
            return None

    async def _candidates(
        self, vector: HalfVector | None, terms: QueryTerms, depth: int | None
    ) -> tuple[list[Candidate], int]:
        """Of each leg that can be asked, and how deep they were searched: on the first page as deep as it takes, and on
        the next ones as on the first, or their order would be another one."""
        each = CHUNKS_EACH if self.query.group_by_document else 1  # documents are of several chunks
        is_first, depth = depth is None, depth or max(self.query.depth, self.query.top_k * each)
        looked_for = terms if self.query.mode is not Mode.VECTOR and (terms.terms or terms.phrases) else None
        if vector is None and looked_for is None:
            return [], depth
        condition = compile_filter(self.query.filter)
        before = -1
        while True:
            found = await self.verb.store.candidates(self.tenant.tenant_id, vector, looked_for, condition, depth)
            is_all = len(found) < depth or len(found) == before or depth >= paging.MAX_DEPTH
            has_enough = not self.query.group_by_document or len({one.document_id for one in found}) >= self.query.top_k
            if is_all or has_enough or not is_first:
                return found, depth
            before, depth = len(found), min(paging.MAX_DEPTH, depth * DEEPER)

    def _ranked(self, candidates: Sequence[Candidate], terms: QueryTerms) -> list[Ranked]:
        if self.query.mode is not Mode.HYBRID:
            return ranked(candidates, None)
        scores = [
            Scores(one.similarity, one.text_score, one.language, one.version_id.int, one.ordinal) for one in candidates
        ]
        return ranked(candidates, fuse(scores, terms, self.query.fusion, self.verb.languages))

    async def _reranked(self, order: list[Ranked], reranking: Reranking) -> tuple[list[Ranked], bool]:
        """The order after the reranker, and whether it is the reranker's."""
        until = self.deadline.sooner(min(reranking.timeout_s, self.deadline.remaining_s() / 2))
        await self._fetch(order[: reranking.candidates])
        read = [one for one in order[: reranking.candidates] if one.key in self.hits]
        order = read + order[reranking.candidates :]
        texts = [self.hits[one.key].text for one in read]

        async def ask() -> list[float]:
            return await rerank_all(reranking.reranker, self.query.text, texts, until)

        try:
            return reranked(order, await _once_more(ask)), True
        except Exception as error:  # a reranker only makes hits better: whatever is wrong with it costs no answer
            self._left_out("rerank", error)
            return order, False

    async def _page(self, groups: Sequence[Sequence[Ranked]]) -> tuple[list[Ranked], int]:
        """The hits of the first `top_k` groups of which anything is visible still, and how many were passed."""
        page: list[list[Ranked]] = []
        taken = 0
        while len(page) < self.query.top_k and taken < len(groups):
            next_ones = groups[taken : taken + self.query.top_k - len(page)]
            taken += len(next_ones)
            await self._fetch([one for group in next_ones for one in group])
            visible = ([one for one in group if one.key in self.hits] for group in next_ones)
            page += [group for group in visible if group]
        return [one for group in page for one in group], taken

    async def _fetch(self, wanted: Sequence[Ranked]) -> None:
        missing = [one.candidate for one in wanted if one.key not in self.hits]
        if missing:
            found = await self.verb.store.hits(self.tenant.tenant_id, missing)
            self.hits |= {(hit.version_id, hit.ordinal): hit for hit in found}

    async def _told(self, page: Sequence[Ranked], terms: QueryTerms) -> list[Found]:
        """The hits with all that is said of them."""
        hits = [replace(self.hits[one.key], score=one.score) for one in page]
        beside: Sequence[Sequence[Passage]] = [()] * len(hits)
        if self.query.context and hits:
            beside = await self.verb.store.neighbours(self.tenant.tenant_id, hits, self.query.context)
        return [
            Found(
                hit=hit,
                scores=one.scores,
                highlights=highlights(hit.text, hit.language, terms),
                before=[passage for passage in passages if passage.ordinal < hit.ordinal],
                after=[passage for passage in passages if passage.ordinal > hit.ordinal],
            )
            for one, hit, passages in zip(page, hits, beside, strict=True)
        ]

    def _left_out(self, part: Part, error: Exception) -> None:
        """Of an error that is not ours nothing is told: it may hold secrets."""
        known = error if isinstance(error, EddaError) else EddaError()
        # What does not pass by itself an operator must see, though the search was answered.
        level = logging.WARNING if isinstance(known, ProviderUnavailable | EmbeddingRejected) else logging.ERROR
        logger.log(level, "search degraded", extra={"part": part, "code": known.code}, exc_info=error)
        self.degraded.append(Degraded(part, known.code, known.message))


async def _once_more(ask: Callable[[], Awaitable[T]]) -> T:
    """A connection that died while the environment was frozen is no reason to give up; being throttled is."""
    try:
        return await ask()
    except ProviderThrottled:
        raise
    except ProviderUnavailable:
        await asyncio.sleep(0)
        return await ask()
