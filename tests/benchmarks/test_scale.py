"""The model behind `make scale`: what binds, binds; and raising anything else changes nothing."""

from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.cost import scale
from benchmarks.cost.assumptions import Assumptions, load
from benchmarks.cost.scale import ENDLESS, Costs, Limits, alone_s, bottleneck, simulate

EACH = Costs(
    chunks_a_document=10,
    chunk_function_s=0.01,
    embed_function_s=0.02,
    chunk_database_cpu_s=0.001,
    embed_database_cpu_s=0.003,
)
DOCUMENTS = 1_000_000.0
# What makes each limit the only one that counts, and how long ten million chunks then take.
BINDING = {
    "chunk_functions": (10.0, 1e7 * 0.01 / 10),
    "embed_functions": (10.0, 1e7 * 0.02 / 10),
    "concurrency": (30.0, 1e7 * 0.03 / 30),
    "connections": (15.0, 1e7 * 0.03 / 15),
    "database_cpus": (4.0, 1e7 * 0.004 / 4),
    "provider_chunks_s": (500.0, 1e7 / 500),
    "uploads_s": (20.0, 1e6 / 20),
}


@pytest.fixture
def assumptions() -> Assumptions:
    return load()


def test_every_limit_is_tried() -> None:
    assert BINDING.keys() == {field.name for field in fields(Limits)}


@pytest.mark.parametrize("name", sorted(BINDING))
def test_a_limit_alone_says_how_long_it_takes(name: str, assumptions: Assumptions) -> None:
    value, seconds = BINDING[name]
    most = replace(Limits(), **{name: value})
    run = simulate(assumptions.scale, most, EACH, DOCUMENTS)

    assert alone_s(most, EACH, DOCUMENTS, name) == pytest.approx(seconds)
    assert bottleneck(most, EACH, DOCUMENTS) == name
    # With all else endless, the two stages overlap but for scaling up and the last stretch of the second.
    assert seconds * 0.99 <= run.seconds <= seconds * 1.6 + 300


@pytest.mark.parametrize("name", sorted(BINDING))
def test_twice_as_much_of_what_binds_takes_half_and_of_anything_else_the_same(
    name: str, assumptions: Assumptions
) -> None:
    binding = {"chunk_functions": 10_000.0, "embed_functions": 10_000.0, name: BINDING[name][0] / 10}
    most = replace(Limits(), **binding)
    before = simulate(assumptions.scale, most, EACH, DOCUMENTS).seconds
    twice = replace(most, **{name: 2 * getattr(most, name)})

    assert simulate(assumptions.scale, twice, EACH, DOCUMENTS).seconds == pytest.approx(before / 2, rel=0.02)
    for other in BINDING.keys() - {name}:
        wider = replace(most, **{other: min(ENDLESS, 2 * getattr(most, other))})
        assert simulate(assumptions.scale, wider, EACH, DOCUMENTS).seconds == pytest.approx(before, rel=0.02), other


def test_documents_wait_where_chunking_is_slower_than_uploading_and_chunks_where_embedding_is(
    assumptions: Assumptions,
) -> None:
    slow_chunking = replace(Limits(), uploads_s=100, chunk_functions=5)
    slow_embedding = replace(Limits(), uploads_s=100, provider_chunks_s=100)

    assert simulate(assumptions.scale, slow_chunking, EACH, 10_000).most_waiting_documents > 4000
    waiting = simulate(assumptions.scale, slow_embedding, EACH, 10_000)
    assert waiting.most_waiting_documents < 1000
    assert waiting.most_waiting_chunks > 80_000


def test_pollers_are_added_by_and_by(assumptions: Assumptions) -> None:
    """Five at first and 300 a minute: a minute of work for 300 functions takes longer than that."""
    most = replace(Limits(), chunk_functions=ENDLESS, embed_functions=ENDLESS)
    chunks = 300 * 60 / (EACH.chunk_function_s + EACH.embed_function_s)
    slower = assumptions.scale.model_copy(update={"pollers_a_minute": 60.0})

    run = simulate(assumptions.scale, most, EACH, chunks / EACH.chunks_a_document)
    assert 30 < run.seconds < 120
    assert simulate(slower, most, EACH, chunks / EACH.chunks_a_document).seconds > 1.5 * run.seconds


def test_each_step_of_a_plan_raises_what_held_the_one_before_up_and_is_faster(assumptions: Assumptions) -> None:
    provider = assumptions.provider(assumptions.scale.provider)
    steps = list(scale.plan(assumptions, provider, 1_000_000, 40))

    assert len(steps) > 3
    assert steps[0].raised == ""
    for before, after in pairwise(steps):
        _, says = scale.MOVES[before.bottleneck]
        assert after.raised.startswith((says, "EmbeddingProvider"))
        assert after.run.seconds < before.run.seconds


def test_settings_that_move_limits_are_parameters_of_the_template(assumptions: Assumptions) -> None:
    template = (Path(__file__).parents[2] / "template.yaml").read_text()
    for name in ("chunk_functions", "embed_functions", "connections", "database_cpus"):
        assert f"\n  {scale.MOVES[name][1]}:\n" in template


def test_no_queue_holds_more_in_flight_than_sqs_allows(assumptions: Assumptions) -> None:
    assert assumptions.scale.highest_concurrency <= scale.in_flight_functions(assumptions)


def test_connections_are_those_of_the_database_but_for_what_others_need(assumptions: Assumptions) -> None:
    provider = assumptions.provider("unlimited")
    settings = scale.defaults(assumptions.scale)
    few = scale.limits(assumptions, provider, settings)
    many = scale.limits(assumptions, provider, replace(settings, most_acus=256))

    assert few.connections == 4 * 205 - 50
    assert many.connections == 2000 - 50  # for the least capacity is half a unit
