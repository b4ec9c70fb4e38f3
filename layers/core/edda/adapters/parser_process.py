"""Parsing in a child process, so that a bomb, a hang or a crash costs one document and not the function.

The child is warm: it is started once and reused. It is killed and replaced when a document takes too long or too
much memory, and told apart from one that crashed by itself. It has none of our environment: no credentials.

Everything blocking happens in one thread of this object's own, which also queues documents that come at the same time.
So nothing here belongs to an event loop, and an object may be used from one loop after another.
"""

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NoReturn

from edda import frames
from edda.errors import Corrupt, DocumentError, ParseTimeout, RetryableError, TooLargeToProcess, TooManyChunks
from edda.models import Chunk, ParseCursor, ParseOutcome
from edda.settings import Settings

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_MS = 20
_START_TIMEOUT_S = 30.0
_MAX_STATE_CHARACTERS = 100_000  # of the JSON; usually some thousand
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# What a child needs of the environment: where Lambda keeps shared libraries, and how text is encoded.
_INHERITED = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "PATH")
_OUT_OF_MEMORY = (b"memory allocation", b"MemoryError", b"bad_alloc", b"out of memory", b"Out of memory")


class ParserProcess:
    """The Parser of `ports`, with the limits of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parser")
        self._child: _Child | None = None

    async def parse(
        self, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None = None
    ) -> ParseOutcome:
        """Parse and chunk a file, or the part of it at the cursor. Cancelling kills the child.

        Raises a DocumentError that says what is wrong with the file, or RetryableError when no child can be started.
        """
        cancelled = threading.Event()
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, self._parse, path, name, content_type, cursor, cancelled
        )
        try:
            return await work
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def close(self) -> None:
        """End the child. A later `parse` starts another."""
        self._thread.submit(self._drop_child).result()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def _parse(
        self, path: Path, name: str, content_type: str | None, cursor: ParseCursor | None, cancelled: threading.Event
    ) -> ParseOutcome:
        """Runs in the thread. A child that died while it had nothing to do is replaced; nothing is tried twice."""
        if cancelled.is_set():
            raise ParseTimeout
        settings = self._settings
        first_ordinal = 0 if cursor is None else cursor.chunks
        max_chunks = min(settings.max_part_chunks, settings.max_chunks - first_ordinal)
        limits = {
            "max_tokens": settings.chunk_tokens,
            "overlap_tokens": settings.chunk_overlap_tokens,
            "max_chunks": max_chunks,
            "part_bytes": settings.part_bytes,
            "part_pages": settings.part_pages,
            "whole_bytes": settings.max_whole_bytes,
            "strategy": settings.chunk_strategy,
        }
        request = {
            "path": str(path.absolute()),
            "name": name,
            "content_type": content_type,
            "state": None if cursor is None else cursor.state,
            "limits": limits,
            "cpu_s": settings.parse_timeout_s,
        }
        if self._child is None or not self._child.is_idle():
            self._drop_child()
            self._child = _Child(settings.parse_memory_bytes)
        try:
            done, packed = self._child.exchange(request, settings.parse_timeout_s, max_chunks, cancelled)
            outcome = _outcome(done, packed, first_ordinal)
        except BaseException:
            if not self._child.is_idle():
                self._drop_child()
            raise
        if self._child.memory_bytes() > settings.parse_memory_bytes // 2:
            self._drop_child()  # memory that was not given back is the next document's
        return outcome

    def _drop_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()


class _Child:
    """One process of `parser_child`, from its start to its end, with a folder for its temporary files."""

    def __init__(self, memory_bytes: int) -> None:
        self._limit_bytes = memory_bytes
        self._own_bytes = 0  # resident before there is a document
        self._most_bytes = 0  # that the present document takes
        self._buffer = bytearray()
        self._busy = False
        self._folder = tempfile.TemporaryDirectory(prefix="edda-parser-")
        # Open for as long as the child lives; `_end` closes it.
        self._errors = open(Path(self._folder.name, "stderr"), "w+b", buffering=0)  # noqa: SIM115
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", "edda.parser_child", str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._folder.name,
            env=_environment(self._folder.name),
            bufsize=0,
        )
        self._end = weakref.finalize(self, _end, self._process, self._errors, self._folder)
        self._await_ready()

    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return not self._busy and self._process.poll() is None

    def memory_bytes(self) -> int:
        """Resident memory beyond what it had when it was ready; 0 when it has ended."""
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return max(0, int(pages) * _PAGE_BYTES - self._own_bytes)

    def kill(self) -> None:
        """End it, wait for that, and remove its files."""
        self._end()

    def exchange(
        self, request: frames.Frame, timeout_s: float, max_chunks: int, cancelled: threading.Event
    ) -> tuple[frames.Frame, list[list[object]]]:
        """Send a request: the last frame of the answer, and the chunks before it. Raises DocumentError."""
        deadline = time.monotonic() + timeout_s
        self._busy, self._most_bytes = True, 0
        try:
            frames.write(_fileno(self._process.stdin), request)
        except BrokenPipeError:
            self._raise_death()
        packed: list[list[object]] = []
        while True:
            frame = self._next_frame(deadline, cancelled)
            if "chunks" in frame:
                packed += frame["chunks"]
                if len(packed) > max_chunks:
                    raise TooManyChunks
                continue
            self._busy = bool(frame.get("leaving"))
            if "error" in frame:
                raise _error(frame)
            return frame, packed

    def _await_ready(self) -> None:
        try:
            self._next_frame(time.monotonic() + _START_TIMEOUT_S, threading.Event())
        except (DocumentError, OSError) as error:
            logger.exception(
                "parser could not be started", extra={"stderr": self._last_words()[-500:].decode("utf-8", "replace")}
            )
            self.kill()
            raise RetryableError("The parser could not be started.") from error
        self._own_bytes = self.memory_bytes()

    def _next_frame(self, deadline: float, cancelled: threading.Event) -> frames.Frame:
        """Wait for a frame, watching time and memory. Raises DocumentError, after which the child is no use."""
        output = _fileno(self._process.stdout)
        poller = select.poll()
        poller.register(output, select.POLLIN)
        while True:
            try:
                frame = frames.take(self._buffer)
            except frames.BrokenFrame as error:
                raise Corrupt from error
            if frame is not None:
                return frame
            if poller.poll(_WATCH_INTERVAL_MS):
                piece = os.read(output, 1 << 20)
                if not piece:
                    self._raise_death()
                self._buffer += piece
            self._watch(deadline, cancelled)

    def _watch(self, deadline: float, cancelled: threading.Event) -> None:
        self._most_bytes = max(self._most_bytes, self.memory_bytes())
        if self._most_bytes > self._limit_bytes:
            raise TooLargeToProcess
        if time.monotonic() > deadline or cancelled.is_set():
            raise ParseTimeout

    def _raise_death(self) -> NoReturn:
        """Say honestly why the child ended while it was at work."""
        self._busy = True
        status = self._process.wait()
        last_words = self._last_words()
        logger.warning(
            "parser process died", extra={"status": status, "stderr": last_words[-500:].decode(errors="replace")}
        )
        if status == -signal.SIGXCPU:
            raise ParseTimeout
        # SIGKILL was not ours: the kernel was out of memory. Native code that gets no memory aborts or traps.
        near_limit = self._most_bytes > 0.8 * self._limit_bytes
        if status == -signal.SIGKILL or near_limit or any(words in last_words for words in _OUT_OF_MEMORY):
            raise TooLargeToProcess
        raise Corrupt

    def _last_words(self, size: int = 4096) -> bytes:
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, end - size))
        return self._errors.read(size) or b""


def _end(process: "subprocess.Popen[bytes]", errors: IO[bytes], folder: "tempfile.TemporaryDirectory[str]") -> None:
    process.kill()
    for stream in (process.stdin, process.stdout, errors):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()
    process.wait()
    folder.cleanup()


def _environment(folder: str) -> dict[str, str]:
    """The child finds the same packages as this process, in Lambda's layers or in a virtual environment."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(str(Path(entry or ".").absolute()) for entry in sys.path),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MALLOC_ARENA_MAX": "2",  # an arena for each thread would waste the memory that is the document's
        "HOME": folder,
        "TMPDIR": folder,
    }


def _fileno(stream: IO[bytes] | None) -> int:
    if stream is None:
        raise AssertionError("the child was started with pipes")
    return stream.fileno()


def _outcome(frame: frames.Frame, packed: list[list[object]], first_ordinal: int) -> ParseOutcome:
    try:
        facts = frame["done"]
        language, state = facts["language"], facts["state"]
        if state is not None and len(json.dumps(state)) > _MAX_STATE_CHARACTERS:
            raise Corrupt
        chunks: list[Chunk] = [
            frames.unpack_chunk(one, ordinal, language) for ordinal, one in enumerate(packed, first_ordinal)
        ]
        return ParseOutcome(
            chunks=chunks,
            media_type=facts["media_type"],
            characters=facts["characters"],
            title=facts["title"],
            language=language,
            first_ordinal=first_ordinal,
            next=None if state is None else ParseCursor(first_ordinal + len(chunks), dict(state)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt from error


def _error(frame: frames.Frame) -> DocumentError:
    """The DocumentError of this code. What nobody foresaw is logged: it is a document no reader of ours copes with."""
    if "detail" in frame:
        logger.warning("parser failed", extra={"detail": frame["detail"]})
    kinds = {kind.code: kind for kind in DocumentError.__subclasses__()}
    return kinds.get(frame["error"], Corrupt)(frame.get("message"))
