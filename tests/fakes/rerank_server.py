"""Servers on loopback that rerank by shared words, each in its provider's own words; faults as in provider_server."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.fakes.provider_server import ProviderServer, Reply, Request
from tests.fakes.reranker import overlap


class RerankServer(ProviderServer):
    """POST /rerank. `kind` is whose words it speaks."""

    def __init__(self, kind: str) -> None:
        super().__init__(dimensions=0)
        self.kind = kind

    def texts(self, body: dict[str, Any]) -> Sequence[str]:
        return TEXTS[self.kind](body)

    def answer(self, body: dict[str, Any]) -> Reply:
        query = body["queries"][0]["textQuery"]["text"] if self.kind == "bedrock" else body["query"]
        texts = self.texts(body)
        scored = sorted(((overlap(query, text), index) for index, text in enumerate(texts)), reverse=True)
        return Reply(json.dumps(ANSWERS[self.kind](scored)).encode())

    def refusal(self, text: str) -> Reply:
        return Reply(json.dumps({"message": f"invalid: {text}"}).encode(), status=422)


class TeiServer(RerankServer):
    """Refuses more than its batch size, as the real one does."""

    def __init__(self) -> None:
        super().__init__("tei")

    def _reply_to(self, request: Request) -> Reply:
        if len(self.texts(request.body)) > 32:
            return Reply(b'{"error":"batch size 33 > maximum allowed batch size 32"}', status=422)
        return super()._reply_to(request)


Scored = list[tuple[float, int]]
TEXTS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "cohere": lambda body: body["documents"],
    "jina": lambda body: body["documents"],
    "voyage": lambda body: body["documents"],
    "tei": lambda body: body["texts"],
    "bedrock": lambda body: [one["inlineDocumentSource"]["textDocument"]["text"] for one in body["sources"]],
}
ANSWERS: dict[str, Callable[[Scored], Any]] = {
    "cohere": lambda scored: {
        "id": "1",
        "results": [{"index": index, "relevance_score": score} for score, index in scored],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    },
    "jina": lambda scored: {
        "model": "jina-reranker-v2-base-multilingual",
        "usage": {"total_tokens": 9},
        "results": [{"index": index, "relevance_score": score} for score, index in scored],
    },
    "voyage": lambda scored: {
        "object": "list",
        "data": [{"relevance_score": score, "index": index} for score, index in scored],
        "model": "rerank-2.5",
        "usage": {"total_tokens": 9},
    },
    "tei": lambda scored: [{"index": index, "score": score} for score, index in scored],
    "bedrock": lambda scored: {"results": [{"index": index, "relevanceScore": score} for score, index in scored]},
}
