"""Edda's API, as any client would call it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx

TIMEOUT_S = 60
PAGE = 100


class ApiError(Exception):
    """An answer that is no success: its status, and the code that the API (or S3) gave."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message

    @property
    def is_about_the_file(self) -> bool:
        """Whether it is the file that was refused, and not the client or the server that is at fault."""
        return self.status in {400, 413, 415, 422}


class EddaClient:
    """One tenant's view. Use it from several threads; close it by `with`."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=url + "/v1/", headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(TIMEOUT_S)
        )

    def __enter__(self) -> "EddaClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload(self, path: Path, name: str) -> str:
        """Send a small file in one request. Its document id. Raises ApiError."""
        with path.open("rb") as file:
            answer = self._http.post("documents", files={"file": (name, file)}, data={"tags": json.dumps(["demo"])})
        return str(json_of(answer)["document_id"])

    def upload_presigned(self, path: Path, name: str) -> str:
        """Ask for a form, then send the file straight to the bucket with it. Its document id. Raises ApiError."""
        promise = {"name": name, "size_bytes": path.stat().st_size, "tags": ["demo"]}
        created = json_of(self._http.post("uploads", json=promise))
        form = created["upload"]
        with path.open("rb") as file:
            answer = httpx.post(form["url"], data=form["fields"], files={"file": (name, file)}, timeout=TIMEOUT_S)
        if answer.is_error:
            raise ApiError(answer.status_code, *_s3_error(answer))
        return str(created["document_id"])

    def documents(self) -> Iterator[dict[str, Any]]:
        """All documents of the tenant. Raises ApiError."""
        cursor: str | None = None
        while True:
            query = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            page = json_of(self._http.get("documents", params=query))
            yield from page["documents"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def chunks(self, document_id: str) -> list[dict[str, Any]]:
        """The first chunks of a document. Raises ApiError."""
        chunks: list[dict[str, Any]] = json_of(self._http.get(f"documents/{document_id}/chunks"))["chunks"]
        return chunks

    def search(self, question: str, top_k: int) -> list[dict[str, Any]]:
        """The passages nearest to a question. Raises ApiError."""
        hits: list[dict[str, Any]] = json_of(self._http.post("search", json={"query": question, "top_k": top_k}))[
            "hits"
        ]
        return hits

    def answer(self, question: str) -> dict[str, Any]:
        """An answer with its citations. Raises ApiError."""
        return json_of(self._http.post("answers", json={"question": question}))


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """The body of a success. Raises ApiError."""
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if answer.is_error or not isinstance(body, dict):
        message = body.get("detail") or body.get("message") or answer.reason_phrase if isinstance(body, dict) else ""
        raise ApiError(answer.status_code, str(body.get("code", "unknown")) if isinstance(body, dict) else "", message)
    return body


def _s3_error(answer: httpx.Response) -> tuple[str, str]:
    """S3's code and message."""
    try:
        error = ElementTree.fromstring(answer.text)  # noqa: S314 - the local emulator's own
    except ElementTree.ParseError:
        return "unknown", answer.reason_phrase
    return error.findtext("Code", "unknown"), error.findtext("Message", "")
