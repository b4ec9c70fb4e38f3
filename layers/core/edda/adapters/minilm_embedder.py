"""all-MiniLM-L6-v2 in this process: no network, no key.

Needs the model layer: onnxruntime, tokenizers, numpy and the package edda_minilm (layers/model/build_model.py).

Every text has a run of its own, and every core a run: as fast as padded batches, and a vector depends on nothing but
its text. (The int8 graph scales activations by run: in mixed batches a short text moved to cosine .976 of itself.)
"""

import asyncio
import importlib.util
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from edda.concurrency import Deadline, bounded
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderUnavailable
from edda.models import EmbeddingLimits
from edda.vectors import InvalidVector, validate

DIMENSIONS = 384
MAX_POSITIONS = 256  # what the model was published with; longer texts are embedded by their beginning
LIMITS = EmbeddingLimits(
    max_texts_per_request=32,  # less than a second of work on two cores: the writer is never idle for long
    max_tokens_per_request=32 * MAX_POSITIONS,
    max_tokens_per_text=MAX_POSITIONS - 2,  # [CLS] and [SEP] take two
    max_concurrent_requests=1,  # one request keeps every core busy
)


class MiniLMEmbedder:
    """Runs the graph in threads, so that the loop stays free. The model is loaded by the first request.

    `folder` holds model.onnx and tokenizer.json; without it they are the package `edda_minilm` of the model layer.
    `threads` is the number of cores to use, all of them by default.
    """

    name = "in-process/all-MiniLM-L6-v2"
    dimensions = DIMENSIONS
    limits = LIMITS

    def __init__(self, folder: Path | None = None, *, threads: int | None = None) -> None:
        self._folder = folder
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="minilm")
        self._loading = threading.Lock()

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        loop = asyncio.get_running_loop()

        async def in_thread(text: str) -> bytes | EmbeddingRejected:
            return await loop.run_in_executor(self._pool, self._embed, text)

        jobs = [partial(in_thread, text) for text in texts]
        vectors: list[bytes | EmbeddingRejected] = []
        for outcome in await bounded(2 * self._threads, jobs, deadline):  # twice: one running, one next in line
            if isinstance(outcome, TimeoutError):
                raise ProviderUnavailable("No time was left to embed.") from outcome
            if isinstance(outcome, Exception):
                raise outcome
            vectors.append(outcome)
        return vectors

    async def aclose(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _embed(self, text: str) -> bytes | InvalidVector:
        """Takes about 40 ms for 200 tokens on one core."""
        import numpy as np

        with self._loading:
            tokenizer, session = self._model
        ids = np.array([tokenizer.encode(_encodable(text)).ids], np.int64)
        (row,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        try:
            return validate(row.astype("<f4").tobytes(), DIMENSIONS)
        except InvalidVector as invalid:
            return invalid

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """Tokenizer and inference session. Raises ProviderMisconfigured when the model layer is missing."""
        folder = self._folder or _layer_folder()
        try:
            import onnxruntime
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_padding()  # its file says: pad to 128, truncate to 128
            tokenizer.enable_truncation(MAX_POSITIONS)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        except Exception as error:  # both libraries raise classes of their own that are not public
            raise ProviderMisconfigured("The model layer is missing, incomplete or damaged.") from error
        return tokenizer, session


def _layer_folder() -> Path:
    spec = importlib.util.find_spec("edda_minilm")
    if spec is None or spec.origin is None:
        raise ProviderMisconfigured("The model layer is missing: there is no package edda_minilm.")
    return Path(spec.origin).parent


def _encodable(text: str) -> str:
    """Without lone surrogates, which a query may hold and the tokenizer cannot."""
    return text.encode("utf-8", "replace").decode()
