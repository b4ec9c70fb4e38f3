"""Vectors of texts that were embedded before, in a file: the next setting of a collection embeds only what is new."""

import sqlite3
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected
from edda.identity import content_hash
from edda.models import EmbeddingLimits
from edda.ports import Embedder

from local.model import minilm_folder

BUSY_S = 60.0  # another run may be writing


class RememberingEmbedder:
    """The embedder, asked for each text once. Of documents only: what a query takes is what it takes."""

    def __init__(self, embedder: Embedder, path: Path, made_by: str) -> None:
        """`made_by`: where the embedder is asked, or which model's file: of the same name there may be others."""
        self._embedder = embedder
        self._model = f"{embedder.name} {embedder.dimensions} {made_by}"
        self._file = sqlite3.connect(path, timeout=BUSY_S)
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS vectors (model TEXT, hash BLOB, vector BLOB, PRIMARY KEY (model, hash))"
        )

    @property
    def name(self) -> str:
        return self._embedder.name

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    @property
    def limits(self) -> EmbeddingLimits:
        return self._embedder.limits

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        """As the embedder would."""
        if purpose == "query":
            return await self._embedder.embed(texts, purpose=purpose, deadline=deadline)
        hashes = [content_hash(text).bytes for text in texts]
        known: dict[bytes, bytes | EmbeddingRejected] = {}
        for one in hashes:
            select = "SELECT vector FROM vectors WHERE model = ? AND hash = ?"
            if (row := self._file.execute(select, (self._model, one)).fetchone()) is not None:
                known[one] = row[0]
        missing = {one: text for one, text in zip(hashes, texts, strict=True) if one not in known}
        if missing:
            vectors = await self._embedder.embed(list(missing.values()), purpose=purpose, deadline=deadline)
            new = dict(zip(missing, vectors, strict=True))
            rows = [(self._model, one, vector) for one, vector in new.items() if isinstance(vector, bytes)]
            self._file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
            self._file.commit()
            known |= new
        return [known[one] for one in hashes]

    async def aclose(self) -> None:
        """Close the file; the embedder is its owner's."""
        self._file.close()


def model_file() -> str:
    """Which file the in-process model is."""
    return sha256((minilm_folder() / "model.onnx").read_bytes()).hexdigest()[:16]
