"""Sends a folder of files, half over the API, half straight into the bucket."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from local.client import ApiError, EddaClient

SIDE_BY_SIDE = 4
DIRECT_LIMIT_BYTES = 4_000_000  # Lambda takes 6 MB, of base64


class Way(StrEnum):
    """How a file comes in."""

    BUCKET = "bucket"
    DIRECT = "direct"
    PRESIGNED = "presigned"


@dataclass(slots=True)
class SentFile:
    """One file and what became of it. `seconds` and `status` are set when it has ended."""

    path: Path
    name: str
    way: Way
    sent_at: float = 0.0
    document_id: str | None = None
    object_key: str | None = None
    status: str = "unsent"
    reason: str | None = None
    message: str | None = None
    planned: int = 0
    chunks: int = 0
    seconds: float | None = None
    upload_error: str | None = None

    def end(self, status: str, reason: str | None, message: str | None) -> None:
        """Nothing more will happen to it."""
        self.status, self.reason, self.message = status, reason, message
        self.seconds = time.monotonic() - self.sent_at


@dataclass(frozen=True, slots=True)
class Sender:
    """Where files go."""

    api: EddaClient
    s3: Any
    bucket: str
    tenant: str

    def send(self, file: SentFile) -> None:
        """Never raises: what goes wrong is noted with the file."""
        file.sent_at = time.monotonic()
        file.status = "sent"
        try:
            if file.way is Way.BUCKET:
                file.object_key = f"{self.tenant}/{file.name}"
                self.s3.upload_file(str(file.path), self.bucket, file.object_key)
            elif file.way is Way.DIRECT:
                file.document_id = self.api.upload(file.path, Path(file.name).name)
            else:
                file.document_id = self.api.upload_presigned(file.path, Path(file.name).name)
        except ApiError as error:
            if error.is_about_the_file:
                file.end("refused", error.code, error.message)
            else:
                self._fail(file, str(error))
        except (httpx.HTTPError, BotoCoreError, ClientError, OSError) as error:
            self._fail(file, f"{type(error).__name__}: {error}")

    @staticmethod
    def _fail(file: SentFile, error: str) -> None:
        """It is not the file's fault."""
        file.upload_error = error
        file.end("unsent", "upload_failed", error)


def files_of(folder: Path) -> list[SentFile]:
    """The folder's files, in turn for the bucket and for the API; without hidden ones and metadata of others."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path, folder)]
    paths = [path for path in paths if not path.name.endswith(".metadata.json")]
    return [SentFile(path, path.relative_to(folder).as_posix(), _way(at, path)) for at, path in enumerate(paths)]


@contextlib.contextmanager
def sending(sender: Sender, files: Iterable[SentFile]) -> Iterator[None]:
    """Send in the background while the block runs."""
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="upload") as pool:
        for file in files:
            pool.submit(sender.send, file)
        try:
            yield
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _way(position: int, path: Path) -> Way:
    if position % 2 == 0:
        return Way.BUCKET
    return Way.DIRECT if position % 4 == 1 and path.stat().st_size <= DIRECT_LIMIT_BYTES else Way.PRESIGNED


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
