"""The model in this process: that it means something, loses little to its 8 bits, and leaves the loop free."""

import asyncio
import importlib.util
import math
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from edda.adapters.minilm_embedder import MiniLMEmbedder
from edda.concurrency import Deadline
from edda.errors import ProviderMisconfigured, ProviderUnavailable

from local.model import BUILD, build_model

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaked_tasks")]

PASSAGES = [
    "The river floods the valley every spring when the snow melts.",
    "Quarterly revenue grew by nine percent, driven by subscriptions.",
    "Add the eggs one by one and whisk until the batter is smooth.",
    "The defendant appealed against the ruling of the lower court.",
    "def embed(texts): return [model(text) for text in texts]",
]
QUESTIONS = [
    "When is there high water?",
    "How did sales develop?",
    "How do I bake a cake?",
    "What did the judges decide?",
    "Python function that calls a model",
]
LONG = " ".join(PASSAGES) * 10  # some 600 tokens


@pytest.fixture
async def embedder(no_leaked_tasks: None, model_folder: Path) -> AsyncIterator[MiniLMEmbedder]:
    ready = MiniLMEmbedder(model_folder)
    yield ready
    await ready.aclose()


async def embed(embedder: MiniLMEmbedder, *texts: str) -> list[Sequence[float]]:
    vectors = await embedder.embed(texts, purpose="document", deadline=Deadline.after(60))
    return [memoryview(vector).cast("f").tolist() for vector in vectors if isinstance(vector, bytes)]


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True)) / (math.hypot(*first) * math.hypot(*second))


async def test_every_question_is_nearest_to_the_passage_that_answers_it(embedder: MiniLMEmbedder) -> None:
    passages, questions = await embed(embedder, *PASSAGES), await embed(embedder, *QUESTIONS)
    for position, question in enumerate(questions):
        nearness = [cosine(question, passage) for passage in passages]
        assert nearness.index(max(nearness)) == position


async def test_eight_bits_lose_little(embedder: MiniLMEmbedder, model_folder: Path, tmp_path: Path) -> None:
    reference = reference_vectors(tmp_path, model_folder, [*PASSAGES, *QUESTIONS])
    for vector, exact in zip(await embed(embedder, *PASSAGES, *QUESTIONS), reference, strict=True):
        assert cosine(vector, exact) > 0.98


def reference_vectors(scratch: Path, model_folder: Path, texts: list[str]) -> list[list[float]]:
    """By the graph before it is quantised, each text padded with ten tokens that the mask must hide."""
    import numpy as np
    import onnxruntime
    from onnx import save
    from tokenizers import Tokenizer

    spec = importlib.util.spec_from_file_location("build_model", BUILD)
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    save(build.build_graph(build.weights_folder()), scratch / "model.onnx")
    session = onnxruntime.InferenceSession(scratch / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    tokenizer.no_padding()
    vectors = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        inputs = {"input_ids": [ids + [0] * 10], "attention_mask": [[1] * len(ids) + [0] * 10]}
        answer = session.run(None, {name: np.array(values, np.int64) for name, values in inputs.items()})
        vectors.append(answer[0][0].tolist())
    return vectors


async def test_a_text_is_read_up_to_256_tokens_and_not_only_to_the_128_of_its_tokenizer_file(
    embedder: MiniLMEmbedder,
) -> None:
    words = LONG.split()
    two_hundred, three_hundred, longer = (" ".join(words[:count]) for count in (150, 300, 400))
    short, long, longest = await embed(embedder, two_hundred, three_hundred, longer)
    assert cosine(short, long) < 0.9999
    assert long == longest


async def test_many_short_texts_are_not_padded_into_one_another(embedder: MiniLMEmbedder) -> None:
    (alone,) = await embed(embedder, QUESTIONS[0])
    among_others = await embed(embedder, LONG, QUESTIONS[0], "x")
    assert among_others[1] == alone


async def test_the_loop_is_free_while_it_computes(embedder: MiniLMEmbedder) -> None:
    await embed(embedder, "loaded")
    computing = asyncio.create_task(embed(embedder, *[LONG] * 8))
    turns = 0
    while not computing.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert len(await computing) == 8
    assert turns > 20


async def test_the_deadline_ends_what_is_still_waiting(embedder: MiniLMEmbedder) -> None:
    await embed(embedder, "loaded")
    with pytest.raises(ProviderUnavailable):
        await embedder.embed([LONG] * 32, purpose="document", deadline=Deadline.after(0.05))
    assert len(await embed(embedder, "and it works on")) == 1


@pytest.mark.parametrize("text", ["\ud800 alone", "", " \n", "\0", "👩‍👩‍👧‍👦" * 500, "x" * 100_000])
async def test_strange_text_has_a_vector_too(embedder: MiniLMEmbedder, text: str) -> None:
    assert len(await embed(embedder, text)) == 1


async def test_a_missing_model_is_the_operators_business(tmp_path: Path) -> None:
    for folder in (tmp_path, None):
        embedder = MiniLMEmbedder(folder)
        with pytest.raises(ProviderMisconfigured, match="model layer"):
            await embed(embedder, "one")
        await embedder.aclose()


async def test_the_model_is_found_as_the_package_of_its_layer(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(model_folder.parent)])
    embedder = MiniLMEmbedder(threads=1)
    assert len(await embed(embedder, "one")) == 1
    await embedder.aclose()


async def test_a_build_gives_the_same_bytes_every_time(
    model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = tmp_path_factory.mktemp("model") / "edda_minilm"
    build_model(again)
    names = {"LICENSE", "__init__.py", "model.onnx", "tokenizer.json"}
    assert {path.name for path in again.iterdir()} == names
    for name in names:
        assert (again / name).read_bytes() == (model_folder / name).read_bytes()
