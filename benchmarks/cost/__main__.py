"""`make cost`, `make scale`: tables on standard output, plots as SVG. No network: the numbers are in assumptions.toml."""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from benchmarks.cost import money, rivals, scale, svg
from benchmarks.cost.assumptions import DEFAULT, Assumptions, User, load

ROOT = Path(__file__).resolve().parents[2]
SIZES = (512, 768, 1024, 1280, 1536, 1769, 2048, 3008)
STORES = {"classic": "KB, OpenSearch Classic", "next": "KB, OpenSearch NextGen", "s3-vectors": "KB, S3 Vectors"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("what", choices=("cost", "scale"))
    parser.add_argument(
        "--assumptions", type=Path, default=DEFAULT, help="a copy of assumptions.toml with your numbers"
    )
    parser.add_argument("--measured", type=Path, help="a results.json of python -m benchmarks")
    parser.add_argument("--provider", help="scale: one of the file's providers")
    parser.add_argument("--plots", type=Path, default=ROOT / ".bench" / "cost", help="folder of the SVGs (.bench/cost)")
    arguments = parser.parse_args()
    try:
        assumptions = load(arguments.assumptions, arguments.measured)
        provider = assumptions.provider(arguments.provider or assumptions.scale.provider)
    except (OSError, tomllib.TOMLDecodeError, ValidationError, LookupError) as error:
        sys.exit(f"{error}")
    arguments.plots.mkdir(parents=True, exist_ok=True)
    print(f"Prices of {assumptions.as_of}, {assumptions.region}. Measured: {assumptions.measured.where}")
    if arguments.what == "cost":
        cost(assumptions, arguments.plots)
    else:
        growth(assumptions, provider.name, arguments.plots)
    print(f"\nplots: {arguments.plots}")


def cost(assumptions: Assumptions, plots: Path) -> None:
    print("\n## Dollars a month\n")
    for user in assumptions.users:
        print(f"- {user.name}: {user.says}; {user.chunks:,.0f} new chunks a month, {user.chunks_kept:,.0f} kept")
    print()
    compared = [compare(assumptions, user) for user in assumptions.users]
    head = ["", *(user.name for user in assumptions.users)]
    table(head, [[name, *(_dollars(one[name]) for one in compared)] for name in compared[0]])
    print("\n## Edda, line by line\n")
    print(f"Dollars a month, and in brackets for a million new chunks. {_free(assumptions)}\n")
    bills = [
        {**bill, "all": sum(bill.values())} for bill in (money.edda(assumptions, user) for user in assumptions.users)
    ]
    both = list(zip(assumptions.users, bills, strict=True))
    table(head, [[name, *(_with_share(bill[name], user) for user, bill in both)] for name in bills[0]])
    print("\n## The work alone: dollars for a million chunks, nothing standing, nothing stored\n")
    chunks_each = assumptions.users[0].chunks_a_document
    work = money.ingestion(assumptions, 1e6 / chunks_each, 1e6)
    table(list(work), [[_dollars(value) for value in work.values()]])
    print("\n## Lambda's memory: dollars for a million chunks\n")
    table(
        ["MB", "embed", "seconds for 1,000", "chunk", "seconds for 1,000"],
        [[f"{size:,}", *_size_row(assumptions, size)] for size in SIZES],
    )
    (plots / "memory.svg").write_text(memory_plot(assumptions))
    (plots / "cost-by-size.svg").write_text(cost_plot(assumptions))


def compare(assumptions: Assumptions, user: User) -> dict[str, float]:
    """Dollars a month of each way to do it."""
    measured, tasks = assumptions.measured, assumptions.rivals
    awake = money.hours_awake(assumptions, user)
    startup = rivals.containers(assumptions, user, measured.node_startup, tasks.startup_task_gb)
    ideal = rivals.containers(assumptions, user, measured.node_ideal, tasks.task_gb)
    return {
        "Edda": sum(money.edda(assumptions, user).values()),
        "Edda, database asleep when idle": sum(money.edda(assumptions, user, awake).values()),
        **{says: sum(rivals.knowledge_base(assumptions, user, store).values()) for store, says in STORES.items()},
        "Node on Fargate, the startup's": sum(startup.values()),
        "Node on Fargate, idealised": sum(ideal.values()),
    }


def cost_plot(assumptions: Assumptions) -> str:
    """The middle user's habits at other sizes."""
    middle = assumptions.users[len(assumptions.users) // 2]
    lines: dict[str, list[tuple[float, float]]] = {}
    for factor in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30):
        changes = {"documents": middle.documents * factor, "searches": middle.searches * factor}
        user = middle.model_copy(update=changes)
        for name, dollars in compare(assumptions, user).items():
            lines.setdefault(name, []).append((user.chunks, dollars / user.chunks * 1e6))
    return svg.curves(
        "All that a month costs, by size", "new chunks a month", "dollars for a million new chunks", lines
    )


def memory_plot(assumptions: Assumptions) -> str:
    lines = {name: [(size, money.by_memory(assumptions, name, size)) for size in SIZES] for name in ("embed", "chunk")}
    return svg.curves("Lambda, by memory size", "MB", "dollars for a million chunks", lines)


def growth(assumptions: Assumptions, provider_name: str, plots: Path) -> None:
    provider, each = assumptions.provider(provider_name), assumptions.users[0].chunks_a_document
    plans = {n: list(scale.plan(assumptions, provider, n, each)) for n in assumptions.scale.documents}
    print(f"\n## A folder of documents, {each:.0f} chunks each, with the defaults; {provider.says}\n")
    rows = []
    for documents, steps in plans.items():
        acus = money.acus_for_search(assumptions, documents * each)
        most = assumptions.scale.highest_acus
        rows.append(
            [f"{documents:,}", *_step(steps[0]), *_next(steps), f"{acus:,.1f}" + (" (!)" if acus > most else "")]
        )
    table(
        [
            "documents",
            "done in",
            "dollars",
            "held up by",
            "moved by",
            "then done in",
            "then held up by",
            "ACUs for search",
        ],
        rows,
    )
    print(f"\n(!) More than the {assumptions.scale.highest_acus:,.0f} of one Aurora instance.")
    largest = max(plans)
    print(f"\n## The way on, for {largest:,} documents\n")
    table(
        ["raised", "done in", "dollars", "held up by", "moved by", "documents waiting at most"],
        [
            [step.raised or "nothing: the defaults", *_step(step), f"{step.run.most_waiting_documents:,.0f}"]
            for step in plans[largest]
        ],
    )
    print("\n## By provider: with the defaults → with everything raised that can be\n")
    table(["documents", *(one.name for one in assumptions.providers)], list(_by_provider(assumptions)))
    (plots / "scale.svg").write_text(scale_plot(assumptions))


def _step(step: scale.Step) -> list[str]:
    held_up_by = scale.SAYS.get(step.bottleneck, step.bottleneck)
    return [_duration(step.run.seconds), _dollars(step.dollars), held_up_by, scale.MOVES[step.bottleneck][1]]


def _next(steps: Sequence[scale.Step]) -> list[str]:
    if len(steps) == 1:
        return ["", ""]
    return [_duration(steps[1].run.seconds), scale.SAYS.get(steps[1].bottleneck, steps[1].bottleneck)]


def _by_provider(assumptions: Assumptions) -> Iterator[list[str]]:
    habits = assumptions.users[0]
    for documents in assumptions.scale.documents:
        cells = []
        for provider in assumptions.providers:
            steps = list(scale.plan(assumptions, provider, documents, habits.chunks_a_document, rows=12))
            cells.append(f"{_duration(steps[0].run.seconds)} → {_duration(steps[-1].run.seconds)}")
        yield [f"{documents:,}", *cells]


def scale_plot(assumptions: Assumptions) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for provider in assumptions.providers:
        for documents in assumptions.scale.documents:
            steps = list(scale.plan(assumptions, provider, documents, assumptions.users[0].chunks_a_document, rows=12))
            lines.setdefault(f"{provider.name}, defaults", []).append((documents, steps[0].run.seconds / 3600))
            lines.setdefault(f"{provider.name}, raised", []).append((documents, steps[-1].run.seconds / 3600))
    return svg.curves("Until the last document is ready", "documents", "hours", lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


def _with_share(dollars: float, user: User) -> str:
    return f"{_dollars(dollars)} ({_dollars(dollars / user.chunks * 1e6)})"


def _size_row(assumptions: Assumptions, size: float) -> Iterator[str]:
    for name in ("embed", "chunk"):
        effort = getattr(assumptions.measured, name)
        yield _dollars(money.by_memory(assumptions, name, size))
        yield f"{money.billed_seconds_a_thousand(effort, size, assumptions.work.cpu_factor):.2f}"


def _free(assumptions: Assumptions) -> str:
    saved = ", ".join(f"{user.name} {_dollars(money.free_tier(assumptions, user))}" for user in assumptions.users)
    return f"Free tiers that do not end (Lambda, SQS) would take off: {saved}."


def _dollars(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
