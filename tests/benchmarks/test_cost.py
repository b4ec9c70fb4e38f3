"""The arithmetic of `make cost`, on numbers that can be reckoned by hand."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from benchmarks.cost import __main__ as command
from benchmarks.cost import money, rivals, svg
from benchmarks.cost.assumptions import DEFAULT, Assumptions, load
from benchmarks.cost.tables import compare

ROOT = Path(__file__).parents[2]


@pytest.fixture
def assumptions() -> Assumptions:
    return load()


def changed(assumptions: Assumptions, **changes: Mapping[str, Any]) -> Assumptions:
    """`changed(assumptions, work={"cpu_factor": 2})`."""
    values = assumptions.model_dump()
    for table, numbers in changes.items():
        values[table] |= numbers
    return Assumptions.model_validate(values)


def with_embed(assumptions: Assumptions, **changes: float) -> Assumptions:
    embed = assumptions.measured.embed.model_dump() | changes
    return changed(assumptions, measured={"embed": embed})


def test_lambda_is_paid_by_gigabyte_second_and_by_request(assumptions: Assumptions) -> None:
    use = money.FunctionUse(invocations=1e6, seconds=100_000, megabytes=1024)

    assert use.gb_seconds == 100_000
    assert use.dollars(assumptions) == pytest.approx(100_000 * 0.0000133334 + 0.20)


def test_disk_costs_only_above_what_is_free(assumptions: Assumptions) -> None:
    bare = money.FunctionUse(0, 1e6, 512).dollars(assumptions)
    more = money.FunctionUse(0, 1e6, 512, disk_megabytes=1536).dollars(assumptions)

    assert more - bare == pytest.approx(1e6 * 0.0000000309)


def test_what_waits_takes_the_same_at_every_size_and_what_computes_its_share(assumptions: Assumptions) -> None:
    effort = assumptions.measured.embed.model_copy(update={"seconds_a_thousand": 1.2, "cpu_s_a_thousand": 0.2})

    assert money.billed_seconds_a_thousand(effort, 1769) == pytest.approx(1.0 + 0.2)
    assert money.billed_seconds_a_thousand(effort, 1769 / 2) == pytest.approx(1.0 + 0.4)
    assert money.billed_seconds_a_thousand(effort, 4 * 1769) == pytest.approx(1.2)


def test_twice_the_cpu_is_twice_lambdas_seconds_where_nothing_waits(assumptions: Assumptions) -> None:
    cpu_only = with_embed(assumptions, seconds_a_thousand=0.2, cpu_s_a_thousand=0.2)
    once, twice = (
        money.embed_use(changed(cpu_only, work={"cpu_factor": factor}), 1e6).gb_seconds for factor in (1.0, 2.0)
    )

    assert twice == pytest.approx(2 * once)


def test_the_provider_is_paid_by_token(assumptions: Assumptions) -> None:
    assert money.provider_dollars(assumptions, 1e6) == pytest.approx(200 * 0.02)


def test_the_database_is_paid_for_cpu_of_chunks_vectors_and_index(assumptions: Assumptions) -> None:
    by_hand = (0.227 + 0.046 + 5.9) * 1000

    assert money.database_cpu_s(with_embed(assumptions, database_cpu_s_a_thousand=0.227), 1e6) == pytest.approx(
        by_hand
        + 1000 * (assumptions.measured.index.database_cpu_s_a_thousand - 5.9)
        + 1000 * (assumptions.measured.chunk.database_cpu_s_a_thousand - 0.046)
        + 1000 * assumptions.measured.terms.database_cpu_s_a_thousand
    )
    assert money.acu_hours_of(assumptions, 3600) == pytest.approx(1 / 0.25 / 0.6)


def test_memory_for_search_comes_in_halves_of_a_unit_and_never_below_the_least(assumptions: Assumptions) -> None:
    small, *_ = assumptions.users
    # 1,024 dimensions x 2 bytes x 1.6 and the terms, half of it hot, in three quarters of 2 GB a unit
    by_hand = 10_000_000 * (1024 * 2 * 1.6 + 1038) / 1e9 * 0.5 / 1.5

    assert money.acus_for_search(assumptions, 10_000_000) == 14.5
    assert by_hand == pytest.approx(14.4, abs=0.05)
    assert money.standing_acus(assumptions, small) == small.least_acus


def test_search_by_words_costs_more_where_words_are_found_by_their_letters(assumptions: Assumptions) -> None:
    german = changed(assumptions, work={"share_with_letters": 1.0})
    plain, more = money.chunk_effort(assumptions), money.chunk_effort(german)

    assert more.cpu_s_a_thousand - plain.cpu_s_a_thousand == pytest.approx(0.324)
    assert more.seconds_a_thousand - plain.seconds_a_thousand == pytest.approx(0.324 + 0.126)
    assert money.terms_gb(assumptions, 1e6) == pytest.approx(1.038)
    assert money.terms_gb(german, 1e6) == pytest.approx(1.038 * 7.2)
    with pytest.raises(ValidationError, match="a share"):
        changed(assumptions, work={"share_with_letters": 1.5})


def test_answers_are_paid_by_the_chat_models_tokens_and_reranking_by_the_question(assumptions: Assumptions) -> None:
    small, *_ = assumptions.users
    alike = changed(
        assumptions,
        work={"chat_requests": 1.0, "chat_input_tokens": 1000, "chat_output_tokens": 100, "reranked_share": 0.5},
    )
    bill = money.model_bill(alike, small.model_copy(update={"searches": 9_000, "answers": 1_000}))

    assert bill["chat model"] == pytest.approx(1_000 * (1000 * 0.06 + 100 * 0.24) / 1e6)
    assert bill["reranker"] == pytest.approx(10_000 * 0.5 / 1000 * 1.00)
    assert money.model_bill(changed(assumptions, work={"generated_share": 0}), small)["chat model"] == 0
    assert compare(alike, small)["Edda"] - compare(assumptions, small)["Edda"] > 0


def test_free_tiers_are_apart_from_the_bill_and_never_more_than_it(assumptions: Assumptions) -> None:
    for user in assumptions.users:
        bill = money.edda(assumptions, user)
        of_both = sum(dollars for name, dollars in bill.items() if name.startswith(("Lambda", "SQS")))
        assert 0 < money.free_tier(assumptions, user) <= of_both
    no_tier = changed(
        assumptions,
        prices={
            "functions": assumptions.prices.functions.model_dump() | {"free_gb_seconds": 0, "free_requests": 0},
            "queues": assumptions.prices.queues.model_dump() | {"free_requests": 0},
        },
    )
    for user in assumptions.users:
        assert money.free_tier(no_tier, user) == 0
        assert money.edda(no_tier, user) == money.edda(assumptions, user)


def test_a_database_that_sleeps_is_paid_for_while_it_is_awake(assumptions: Assumptions) -> None:
    small, *_, large = assumptions.users

    assert money.hours_awake(assumptions, small) == pytest.approx(60 + 670 * 0.5)
    assert money.hours_awake(assumptions, large) == money.HOURS_A_MONTH


def test_a_query_of_s3_vectors_pays_for_each_tier_of_the_index() -> None:
    tiers = ((100.0, 4.0), (1000.0, 2.0), (1e12, 1.0))

    assert rivals.query_dollars(50, 1e12, tiers) == pytest.approx(50 * 4)
    assert rivals.query_dollars(1500, 1e12, tiers) == pytest.approx(100 * 4 + 900 * 2 + 500 * 1)


def test_open_search_has_a_floor_and_then_grows_by_memory(assumptions: Assumptions) -> None:
    small, *_ = assumptions.users
    floor = 2.0 * 730 * 0.24
    few = small.model_copy(update={"documents": 1})

    assert rivals.knowledge_base(assumptions, few, "classic")["vector store"] >= floor
    # 10 million vectors: (4 x 1,024 + 128) bytes x 1.1 = 46.5 GB in units of 4 GB, twice
    many = small.model_copy(update={"documents": 10_000_000 / small.chunks_a_document / small.months_kept})
    assert rivals.ocus(assumptions, many) == 24


def test_a_store_that_is_not_known_is_an_error(assumptions: Assumptions) -> None:
    with pytest.raises(ValueError, match="none of classic"):
        rivals.knowledge_base(assumptions, assumptions.users[0], "faiss")


def test_containers_are_always_there_and_more_of_them_when_the_work_needs_it(assumptions: Assumptions) -> None:
    small, *_ = assumptions.users
    effort = assumptions.measured.node_startup
    least = rivals.containers(assumptions, small.model_copy(update={"documents": 1}), effort, 4.0)["containers"]
    task = (0.03238 + 4 * 0.00356) * 730 + 3.65
    huge = small.model_copy(update={"documents": 10_000_000})
    lean = assumptions.measured.node_ideal

    assert least == pytest.approx(2 * task)
    assert rivals.containers(assumptions, huge, effort, 4.0)["containers"] > 2 * least
    assert (
        rivals.containers(assumptions, huge, lean, 4.0)["containers"]
        < rivals.containers(assumptions, huge, effort, 4.0)["containers"]
    )


def test_every_way_costs_more_for_more_work(assumptions: Assumptions) -> None:
    small, medium, large = (compare(assumptions, user) for user in assumptions.users)

    assert small.keys() == medium.keys() == large.keys()
    for name in small:
        assert 0 < small[name] < medium[name] < large[name], name


def test_the_files_template_numbers_are_the_templates(assumptions: Assumptions) -> None:
    template = (ROOT / "template.yaml").read_text()

    def default(parameter: str) -> float:
        found = re.search(rf"\n  {parameter}:\n(?:    .*\n)+?    Default: \"?([\d.]+)", template)
        assert found is not None, parameter
        return float(found[1])

    work, scale = assumptions.work, assumptions.scale
    assert work.embed_megabytes == default("EmbedMemoryMegabytes")
    assert work.chunk_megabytes == default("ChunkMemoryMegabytes")
    assert work.chunk_disk_megabytes == default("ChunkStorageMegabytes")
    assert work.search_megabytes == default("SearchMemoryMegabytes")
    assert work.api_megabytes == default("ApiMemoryMegabytes")
    assert work.tokens_a_chunk == default("ChunkTokens")
    assert work.dimensions == default("EmbeddingDimensions")
    assert scale.chunk_concurrency == default("ChunkConcurrency")
    assert scale.embed_concurrency == default("EmbedConcurrency")
    assert scale.least_acus == default("DatabaseMinCapacity")
    assert scale.most_acus == default("DatabaseMaxCapacity")
    assert scale.api_requests_a_second == default("ApiRequestsPerSecond")


def test_an_assumption_with_a_wrong_name_is_an_error(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(DEFAULT.read_text().replace("acu_hour = 0.12", "acu_hours = 0.12"))

    with pytest.raises(ValidationError, match="acu_hour"):
        load(mine)


def results(*contestants: str) -> dict[str, Any]:
    places = [("unlimited", 2000, 1536), ("unlimited", 500, 1536), ("errors", 2000, 1536)]
    turns = [
        {
            "contestant": contestant,
            "regime": regime,
            "asked_chunks": chunks,
            "chunks": chunks,
            "dimensions": dimensions,
            "rows": chunks,
            "seconds": 4.0,
            "cpu_s_a_thousand": 0.1 if regime == "unlimited" and chunks == 2000 else 9.0,
            "peak_megabytes": 90,
            "database_cpu_s": 0.3,
            "said": {"invocations": 5},
        }
        for contestant in contestants
        for regime, chunks, dimensions in places
    ]
    return {"summary": turns, "turns": turns}


def test_a_run_of_the_benchmark_takes_the_place_of_recorded_figures(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results("edda/one-environment", "node/startup", "node/ideal")))

    measured = load(results=file).measured

    assert measured.embed.cpu_s_a_thousand == 0.1
    assert measured.embed.seconds_a_thousand == pytest.approx(2.0)
    assert measured.embed.database_cpu_s_a_thousand == pytest.approx(0.15)
    assert measured.embed.chunks_an_event == 400
    assert measured.chunk == load().measured.chunk


def test_a_run_without_all_contestants_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results("edda/one-environment", "node/startup")))

    with pytest.raises(LookupError, match="node/ideal"):
        load(results=file)


@pytest.mark.parametrize("what", ["cost", "scale"])
def test_the_command_prints_tables_and_draws_plots(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.cost", what, "--plots", str(tmp_path)])
    command.main()

    printed = capsys.readouterr().out
    assert "| --- |" in printed
    plots = sorted(tmp_path.glob("*.svg"))
    assert plots
    for plot in plots:
        assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_an_axis_puts_each_power_of_ten_at_the_same_distance() -> None:
    drawn = svg.curves("t", "x", "y", {"line": [(1, 1), (10, 10), (100, 100)]})
    line = re.search(r'polyline points="([^"]*)"', drawn)
    assert line is not None
    xs = [float(point.partition(",")[0]) for point in line[1].split()]

    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    with pytest.raises(ValueError, match="above 0"):
        svg.curves("t", "x", "y", {"line": [(0, 1)]})


def test_the_documentation_shows_what_the_commands_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.venv/bin/python -m benchmarks.cost docs` brings it up to date."""
    copy = tmp_path / "cost-and-scale.md"
    copy.write_text(command.DOCUMENT.read_text())
    monkeypatch.setattr(command, "DOCUMENT", copy)
    plots = command.PLOTS
    monkeypatch.setattr(command, "PLOTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmarks.cost", "docs"])

    command.main()

    assert copy.read_text() == (ROOT / "docs" / "cost-and-scale.md").read_text()
    for plot in tmp_path.glob("*.svg"):
        assert plot.read_text() == (plots / plot.name).read_text(), plot.name
