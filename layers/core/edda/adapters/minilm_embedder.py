"""all-MiniLM-L6-v2 in this process: no network, no key.

Needs the model layer: onnxruntime, tokenizers, numpy and the package edda_minilm (layers/model/build_model.py).
Vectors differ a little with the company a text is in (the int8 graph scales its activations by request): cosine > 0.99.
"""

import asyncio
import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderUnavailable
from edda.models import EmbeddingLimits
from edda.vectors import InvalidVector, validate

DIMENSIONS = 384
MAX_POSITIONS = 256  # what the model was published with; longer texts are embedded by their beginning
LIMITS = EmbeddingLimits(
    max_texts_per_request=64,  # half a second of work on two cores: the writer is never idle for long
    max_tokens_per_request=64 * MAX_POSITIONS,
    max_tokens_per_text=MAX_POSITIONS - 2,  # [CLS] and [SEP] take two
    max_concurrent_requests=1,  # one request keeps every core busy
)
TEXTS_PER_RUN = 16


class MiniLMEmbedder:
    """Runs the graph in a thread, so that the loop stays free. The model is loaded by the first request.

    `folder` holds model.onnx and tokenizer.json; without it they are the package `edda_minilm` of the model layer.
    `threads` is the number of cores to use, all of them by default.
    """

    name = "in-process/all-MiniLM-L6-v2"
    dimensions = DIMENSIONS
    limits = LIMITS

    def __init__(self, folder: Path | None = None, *, threads: int | None = None) -> None:
        self._folder = folder
        self._threads = threads or os.cpu_count() or 1
        self._loading = threading.Lock()

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        given_up = threading.Event()
        try:
            return await asyncio.to_thread(self._embed, list(texts), deadline, given_up)
        finally:
            given_up.set()  # a thread cannot be cancelled: it looks here between runs

    async def aclose(self) -> None:
        """Nothing to give back."""

    def _embed(
        self, texts: list[str], deadline: Deadline, given_up: threading.Event
    ) -> list[bytes | EmbeddingRejected]:
        with self._loading:
            tokenizer, session = self._model
        encodings = tokenizer.encode_batch([_encodable(text) for text in texts])
        vectors: dict[int, bytes | EmbeddingRejected] = {}
        for positions in _similar_lengths([len(encoding.ids) for encoding in encodings]):
            if deadline.expired or given_up.is_set():
                raise ProviderUnavailable("No time was left to embed.")
            rows = session.run(None, _padded([encodings[position] for position in positions]))[0]
            vectors.update(zip(positions, map(_checked, rows), strict=True))
        return [vectors[position] for position in range(len(texts))]

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """Tokenizer and inference session. Raises ProviderMisconfigured when the model layer is missing."""
        folder = self._folder or _layer_folder()
        try:
            import onnxruntime
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception for a missing file
            raise ProviderMisconfigured("The model layer is missing or incomplete.") from error
        tokenizer.no_padding()  # its file says: pad to 128, truncate to 128
        tokenizer.enable_truncation(MAX_POSITIONS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        try:
            session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes are private
            raise ProviderMisconfigured("The model layer's graph cannot be loaded.") from error
        return tokenizer, session


def _layer_folder() -> Path:
    spec = importlib.util.find_spec("edda_minilm")
    if spec is None or spec.origin is None:
        raise ProviderMisconfigured("The model layer is missing: there is no package edda_minilm.")
    return Path(spec.origin).parent


def _encodable(text: str) -> str:
    """Without lone surrogates, which a query may hold and the tokenizer cannot."""
    return text.encode("utf-8", "replace").decode()


def _similar_lengths(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions in groups of similar length, the longest first: padding is work for nothing."""
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    for start in range(0, len(order), TEXTS_PER_RUN):
        yield order[start : start + TEXTS_PER_RUN]


def _padded(encodings: Sequence[Any]) -> dict[str, Any]:
    """The graph's inputs, int64 (texts, tokens of the longest text)."""
    import numpy as np

    longest = max(len(encoding.ids) for encoding in encodings)
    ids = np.zeros((len(encodings), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = encoding.ids
        mask[row, : len(encoding.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _checked(row: Any) -> bytes | EmbeddingRejected:
    try:
        return validate(row.astype("<f4").tobytes(), DIMENSIONS)
    except InvalidVector as invalid:
        return invalid
