"""What `make cost` and `make scale` show: tables, with names by which the documentation has them, and plots."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.cost import money, rivals, svg
from benchmarks.cost import scale as model
from benchmarks.cost.assumptions import Assumptions, Provider, User

SIZES = (512, 768, 1024, 1280, 1536, 1769, 2048, 3008)
STORES = {
    "classic": "Knowledge Base, OpenSearch Classic",
    "next": "Knowledge Base, OpenSearch NextGen",
    "s3-vectors": "Knowledge Base, S3 Vectors",
}
ALL_RAISED = 30  # more steps than any plan has


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    title: str
    text: str


def written_into(document: str, sections: Sequence[Section]) -> str:
    """The document with each section's text between its two marks. Raises LookupError for one that has no place."""
    for one in sections:
        found = re.search(rf"<!-- {one.name} -->\n(.*?)<!-- end -->", document, re.S)
        if found is None:
            raise LookupError(f"the document has no place for {one.name}")
        document = document[: found.start(1)] + one.text + "\n" + document[found.end(1) :]
    return document


def cost(assumptions: Assumptions) -> list[Section]:
    users = assumptions.users
    compared = [compare(assumptions, user) for user in users]
    head = ["", *(user.name for user in users)]
    bills = [{**bill, "all": sum(bill.values())} for bill in (money.edda(assumptions, user) for user in users)]
    both = list(zip(users, bills, strict=True))
    work = money.ingestion(assumptions, 1e6 / users[0].chunks_a_document, 1e6)
    said = "\n".join(
        f"- {user.name}: {user.says}; {user.chunks:,.0f} new chunks a month, {user.chunks_kept:,.0f} kept"
        for user in users
    )
    lines = [[name, *(_with_share(bill[name], user) for user, bill in both)] for name in bills[0]]
    sizes = [[f"{size:,}", *_size_row(assumptions, size)] for size in SIZES]
    free = ", ".join(f"{user.name} {_dollars(money.free_tier(assumptions, user))}" for user in users)
    return [
        Section("users", "Users", said),
        Section(
            "compared",
            "Dollars a month",
            table(head, [[name, *map(_dollars, _each(compared, name))] for name in compared[0]]),
        ),
        Section(
            "lines",
            "Edda, line by line: dollars a month (and for a million new chunks)",
            f"{table(head, lines)}\n\nFree tiers that do not end (Lambda, SQS) would take off: {free}.",
        ),
        Section(
            "work",
            "The work alone: dollars for a million chunks, nothing standing, nothing stored",
            table(list(work), [[_dollars(value) for value in work.values()]]),
        ),
        Section(
            "memory",
            "Lambda's memory: dollars for a million chunks",
            table(["MB", "embed", "seconds for 1,000", "chunk", "seconds for 1,000"], sizes),
        ),
    ]


def compare(assumptions: Assumptions, user: User) -> dict[str, float]:
    """Dollars a month of each way to do it."""
    measured, tasks = assumptions.measured, assumptions.rivals
    awake = money.hours_awake(assumptions, user)
    startup = rivals.containers(assumptions, user, measured.node_startup, tasks.startup_task_gb)
    ideal = rivals.containers(assumptions, user, measured.node_ideal, tasks.task_gb)
    models = sum(money.model_bill(assumptions, user).values())
    stores = {says: rivals.knowledge_base(assumptions, user, store) for store, says in STORES.items()}
    return {
        "Edda": sum(money.edda(assumptions, user).values()),
        "Edda, database asleep when idle": sum(money.edda(assumptions, user, awake).values()),
        **{says: models + sum(bill.values()) for says, bill in stores.items()},
        "Node on Fargate, the startup's": models + sum(startup.values()),
        "Node on Fargate, idealised": models + sum(ideal.values()),
    }


def cost_plots(assumptions: Assumptions) -> dict[str, str]:
    """By file name. Cost by size has the middle user's habits at other sizes."""
    middle = assumptions.users[len(assumptions.users) // 2]
    by_size: dict[str, list[tuple[float, float]]] = {}
    for factor in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30):
        changes = {"documents": middle.documents * factor, "searches": middle.searches * factor}
        user = middle.model_copy(update=changes)
        for name, dollars in compare(assumptions, user).items():
            by_size.setdefault(name, []).append((user.chunks, dollars / user.chunks * 1e6))
    memory = {name: [(size, money.by_memory(assumptions, name, size)) for size in SIZES] for name in ("embed", "chunk")}
    return {
        "cost-by-size.svg": svg.curves(
            "All that a month costs, by size", "new chunks a month", "dollars for a million new chunks", by_size
        ),
        "memory.svg": svg.curves("Lambda, by memory size", "MB", "dollars for a million chunks", memory),
    }


def scale(assumptions: Assumptions, provider: Provider) -> list[Section]:
    each, highest = assumptions.users[0].chunks_a_document, assumptions.scale.highest_acus
    plans = {n: list(model.plan(assumptions, provider, n, each)) for n in assumptions.scale.documents}
    first = []
    for documents, steps in plans.items():
        acus = money.acus_for_search(assumptions, documents * each)
        needed = f"{acus:,.1f}{' (!)' if acus > highest else ''}"
        first.append([f"{documents:,}", *_step(steps[0]), *_next(steps), needed])
    largest = max(plans)
    way = [
        [step.raised or "nothing: the defaults", *_step(step), f"{step.run.most_waiting_documents:,.0f}"]
        for step in plans[largest]
    ]
    moved = ["done in", "dollars", "held up by", "moved by"]
    then = ["then done in", "then held up by", "ACUs for search"]
    return [
        Section(
            "sizes",
            f"A folder of documents, {each:.0f} chunks each, with the defaults; {provider.says}",
            f"{table(['documents', *moved, *then], first)}\n\n(!) more than the {highest:,.0f} of one Aurora instance",
        ),
        Section(
            "way", f"The way on, for {largest:,} documents", table(["raised", *moved, "documents waiting at most"], way)
        ),
        Section(
            "providers",
            "By provider: with the defaults → with everything raised that can be",
            table(["documents", *(one.name for one in assumptions.providers)], list(_by_provider(assumptions))),
        ),
    ]


def scale_plots(assumptions: Assumptions) -> dict[str, str]:
    """By file name."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for provider in assumptions.providers:
        for documents in assumptions.scale.documents:
            before, after = _first_and_last(assumptions, provider, documents)
            lines.setdefault(f"{provider.name}, defaults", []).append((documents, before.run.seconds / 3600))
            lines.setdefault(f"{provider.name}, raised", []).append((documents, after.run.seconds / 3600))
    return {"scale.svg": svg.curves("Until the last document is ready", "documents", "hours", lines)}


def _first_and_last(assumptions: Assumptions, provider: Provider, documents: int) -> tuple[model.Step, model.Step]:
    """With one provider all the way."""
    alone = assumptions.scale.model_copy(update={"providers_in_turn": ()})
    chunks = assumptions.users[0].chunks_a_document
    steps = list(
        model.plan(assumptions.model_copy(update={"scale": alone}), provider, documents, chunks, rows=ALL_RAISED)
    )
    return steps[0], steps[-1]


def _by_provider(assumptions: Assumptions) -> Iterator[list[str]]:
    for documents in assumptions.scale.documents:
        ends = (_first_and_last(assumptions, provider, documents) for provider in assumptions.providers)
        yield [f"{documents:,}", *(" → ".join(_duration(step.run.seconds) for step in pair) for pair in ends)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _each(compared: Sequence[dict[str, float]], name: str) -> Iterator[float]:
    return (one[name] for one in compared)


def _step(step: model.Step) -> list[str]:
    held_up_by = model.SAYS.get(step.bottleneck, step.bottleneck)
    return [_duration(step.run.seconds), _dollars(step.dollars), held_up_by, model.MOVES[step.bottleneck][1]]


def _next(steps: Sequence[model.Step]) -> list[str]:
    if len(steps) == 1:
        return ["", ""]
    return [_duration(steps[1].run.seconds), model.SAYS.get(steps[1].bottleneck, steps[1].bottleneck)]


def _with_share(dollars: float, user: User) -> str:
    return f"{_dollars(dollars)} ({_dollars(dollars / user.chunks * 1e6)})"


def _size_row(assumptions: Assumptions, size: float) -> Iterator[str]:
    for name, effort in (("embed", assumptions.measured.embed), ("chunk", money.chunk_effort(assumptions))):
        yield _dollars(money.by_memory(assumptions, name, size))
        yield f"{money.billed_seconds_a_thousand(effort, size, assumptions.work.cpu_factor):.2f}"


def _dollars(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"
