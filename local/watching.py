"""Waits until each document has come to its end."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from local.client import ApiError, EddaClient
from local.uploading import SentFile

FINAL = frozenset({"ready", "partial", "failed"})
EVERY_S = 0.4


def watch(
    api: EddaClient, files: Sequence[SentFile], deadline_s: float, show: Callable[[Sequence[SentFile]], None]
) -> list[str]:
    """Look until all have ended or time is up; files that have not keep their last status. What went wrong on the way."""
    end = time.monotonic() + deadline_s
    problems: list[str] = []
    while any(file.seconds is None for file in files) and time.monotonic() < end:
        time.sleep(EVERY_S)
        try:
            documents = list(api.documents())
        except ApiError as error:
            if error.status not in {429, 503}:  # both say: later
                problems.append(f"listing documents: {error}")
        except httpx.HTTPError as error:
            problems.append(f"listing documents: {error!r}")
        else:
            _take_over(documents, files)
        show(files)
    return problems


def _take_over(documents: Sequence[dict[str, Any]], files: Sequence[SentFile]) -> None:
    """What the API says about each file."""
    by_id = {document["document_id"]: document for document in documents}
    by_key = {document.get("object_key"): document for document in documents}
    for file in files:
        if file.seconds is not None:
            continue
        document = by_id.get(file.document_id) if file.document_id else by_key.get(file.object_key)
        if document is None:
            continue
        counts = document["chunks"]
        file.document_id, file.status = document["document_id"], document["status"]
        file.planned, file.chunks = counts["planned"] or 0, counts["embedded"]
        if file.status in FINAL:
            error = document["error"] or {}
            file.end(file.status, error.get("code"), error.get("message"))
