"""Vectors that lie as those of texts do, more or less: in clusters of very different sizes, mostly in few directions.

Uniform noise would be unfair to any index: in 1,024 dimensions all its points are equally far from each other. Here a
latent point of 96 decreasing dimensions is drawn around one of 2,000 centres, projected, and given a little noise.
Queries are drawn in the same way.
"""

from pathlib import Path
from typing import Any

import numpy as np

Vectors = np.ndarray[Any, np.dtype[np.float16]]

QUERIES = 1000
LATENT, CENTRES, SPREAD, NOISE = 96, 2000, 0.6, 0.1
BLOCK = 20_480


def make(folder: Path, rows: int, dimensions: int) -> Path:
    """A file with at least so many vectors after those of the queries; made once."""
    file = folder / f"clusters-{dimensions}-{rows}.npy"
    if file.exists():
        return file
    numbers = np.random.default_rng(1)
    projection = numbers.standard_normal((LATENT, dimensions), dtype=np.float32) / np.float32(np.sqrt(dimensions))
    scale = (np.arange(1, LATENT + 1) ** -0.4).astype(np.float32)
    centres = numbers.standard_normal((CENTRES, LATENT), dtype=np.float32) * scale
    sizes = numbers.pareto(1.2, CENTRES) + 0.05
    sizes /= sizes.sum()
    partial = file.with_suffix(".partial")
    vectors = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=(QUERIES + rows, dimensions))
    for first in range(0, len(vectors), BLOCK):
        count = min(BLOCK, len(vectors) - first)
        latent = centres[numbers.choice(CENTRES, count, p=sizes)]
        latent += SPREAD * scale * numbers.standard_normal((count, LATENT), dtype=np.float32)
        noise = NOISE / np.sqrt(dimensions) * numbers.standard_normal((count, dimensions), dtype=np.float32)
        points = latent @ projection + noise
        vectors[first : first + count] = points / np.linalg.norm(points, axis=1, keepdims=True)
    vectors.flush()
    partial.rename(file)
    return file


def read(file: Path, *, queries: bool = False) -> Vectors:
    """The vectors to write, or those to search with."""
    vectors: Vectors = np.load(file, mmap_mode="r")
    return vectors[:QUERIES] if queries else vectors[QUERIES:]
