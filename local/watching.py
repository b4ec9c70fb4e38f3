"""Waits until each document has come to its end."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from local.client import ApiError, EddaClient
from local.uploading import SentFile

FINAL = frozenset({"ready", "partial", "failed"})
EVERY_S = 0.4
GIVE_UP_AFTER = 25  # answers in a row that are none: the API is broken, not busy


def watch(
    api: EddaClient, files: Sequence[SentFile], deadline_s: float, show: Callable[[Sequence[SentFile]], None]
) -> list[str]:
    """Look until all have ended or time is up; others keep their last status. What went wrong on the way."""
    end = time.monotonic() + deadline_s
    problems: list[str] = []
    failures = 0
    while any(file.seconds is None for file in files) and time.monotonic() < end and failures < GIVE_UP_AFTER:
        time.sleep(EVERY_S)
        try:
            _take_over(list(api.documents()), files)
            failures = 0
        except (ApiError, httpx.HTTPError) as error:
            failures += 1
            if not _asks_for_patience(error):
                problems.append(f"listing documents: {error or repr(error)}")
        show(files)
    return list(dict.fromkeys(problems))


def _asks_for_patience(error: Exception) -> bool:
    return isinstance(error, ApiError) and error.status in {429, 503}


def _take_over(documents: Sequence[dict[str, Any]], files: Sequence[SentFile]) -> None:
    """What the API says about each file."""
    by_id = {document["document_id"]: document for document in documents}
    by_key = {document["object_key"]: document for document in documents}
    for file in files:
        if file.seconds is not None:
            continue
        document = by_id.get(file.document_id) if file.document_id else by_key.get(file.object_key or "")
        if document is None:
            continue
        counts = document["chunks"]
        file.document_id, file.status = document["document_id"], document["status"]
        file.planned, file.chunks = counts["planned"] or 0, counts["embedded"]
        if file.status in FINAL:
            error = document["error"] or {}
            file.end(file.status, error.get("code"), error.get("message"))
