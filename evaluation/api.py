"""What an evaluation asks of Edda, all of it by the public API: over HTTP, or of functions in this process.

`Route` is where the requests go. Nothing here knows which of the two it is.
"""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from evaluation.judged import Item
from local.client import ApiError, json_of
from local.errors import StepFailed

PAGE = 100
DIRECT_LIMIT_BYTES = 4_000_000  # Lambda takes 6 MB, of base64
CORPUS_ID = "corpus_id"  # the metadata that tells which document of the corpus it is
DIGEST = "corpus_sha256"  # ... and what was uploaded of it
BUSY = frozenset({429, 502, 503, 504})
TRIES = 6


class Route(Protocol):
    """A way to Edda."""

    @property
    def http(self) -> httpx.Client:
        """With address and key; may be used from `side_by_side` threads."""

    @property
    def side_by_side(self) -> int:
        """Requests at the same time."""

    def work(self, *, last: bool) -> None:
        """Work on what was uploaded, where nobody else does; `last`: until nothing is left to do."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found, with its context if that was asked for. `parts` is how it scored in each part of the search, as
    the answer says it."""

    item_id: str
    chunk_id: str
    start: int
    end: int
    score: float
    parts: Any


class Api:
    """One tenant's view."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def upload(self, item: Item) -> None:
        """Send a document; repeated, it is the same one, unless that was deleted meanwhile. Raises ApiError."""
        body = item.body()
        try:
            self._upload(item, body, item.digest)
        except ApiError as error:
            if error.status != 409:
                raise
            self._upload(item, body, uuid.uuid4().hex)

    def _upload(self, item: Item, body: bytes, key: str) -> None:
        headers, metadata = {"Idempotency-Key": key}, {CORPUS_ID: item.item_id, DIGEST: item.digest}
        if len(body) <= DIRECT_LIMIT_BYTES:
            fields = {"metadata": json.dumps(metadata)} | ({"title": item.title[:1000]} if item.title else {})
            self._ask("POST", "documents", headers=headers, files={"file": (item.name, body)}, data=fields)
            return
        title = item.title[:1000] if item.title else None
        promise = {"name": item.name, "title": title, "size_bytes": len(body), "metadata": metadata}
        form = self._ask("POST", "uploads", headers=headers, json=promise)["upload"]
        request = self._http.build_request("POST", form["url"], data=form["fields"], files={"file": (item.name, body)})
        del request.headers["authorization"]  # the key is none of S3's business, and it takes one credential only
        answer = self._http.send(request)
        if answer.is_error:
            raise ApiError(answer.status_code, "upload_failed", answer.text[:200])

    def documents(self) -> Iterator[dict[str, Any]]:
        """All of the tenant. Raises ApiError."""
        cursor = None
        while True:
            query = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            page = self._ask("GET", "documents", params=query)
            yield from page["documents"]
            cursor = page["next_cursor"]
            if not cursor:
                return

    def delete(self, document_id: str) -> None:
        """Raises ApiError."""
        answer = self._http.delete(f"documents/{document_id}")
        if answer.is_error and answer.status_code != 404:
            json_of(answer)

    def documents_for(self, query: str, mode: str, depth: int) -> list[Hit]:
        """The best passage of each of the best `depth` documents. Raises ApiError, StepFailed."""
        return self._search({"query": query, "mode": mode, "group_by": "document", "hits_per_document": 1}, depth)

    def passages_for(self, query: str, mode: str, depth: int, context: int) -> list[Hit]:
        """The best passages, each with `context` before and after it. Raises ApiError, StepFailed."""
        return self._search({"query": query, "mode": mode, "context": context}, depth)

    def _search(self, body: dict[str, Any], depth: int) -> list[Hit]:
        hits: list[Hit] = []
        body |= {"top_k": min(PAGE, depth)}
        while True:
            page = self._ask("POST", "search", json=body)
            if page["degraded"]:  # what is measured would be something else
                raise StepFailed(f"search left something out: {page['degraded'][0]['message']}")
            hits += [_hit(hit) for hit in page["hits"]]
            if not page["next_cursor"] or len(hits) >= depth:
                return hits[:depth]
            body |= {"cursor": page["next_cursor"]}

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Again while Edda is busy or asleep: it may be a deployment at work, or one that has to wake up."""
        for attempt in range(TRIES):
            answer = self._http.request(method, path, **request)
            if answer.status_code not in BUSY or attempt == TRIES - 1:
                break
            asked = answer.headers.get("retry-after", "")
            time.sleep(min(30.0, float(asked) if asked.isdecimal() else 0.5 * 2**attempt))
        return json_of(answer)


def _hit(hit: dict[str, Any]) -> Hit:
    passages = [*hit["before"], hit, *hit["after"]]
    return Hit(
        str(hit["metadata"].get(CORPUS_ID, hit["name"])),
        str(hit["chunk_id"]),
        int(passages[0]["char_start"]),
        int(passages[-1]["char_end"]),
        float(hit["score"]),
        hit.get("scores"),
    )
