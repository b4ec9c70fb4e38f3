"""How long a folder of many documents takes, and what holds it up: a fluid model of the whole pipeline.

Documents arrive in the bucket, functions turn them into chunks, functions turn chunks into vectors; both write to one
database. Between two moments at which something changes all rates are constant, so the model steps from one to the next
(every few seconds while Lambda and its pollers still scale up). Work waits in the queues, which have no end.

Every limit is a number of its own. The bottleneck is the one that, were it the only limit there is, would take longest.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from benchmarks.cost.assumptions import Assumptions, Provider, Scale
from benchmarks.cost.money import billed_seconds_a_thousand, chunk_effort, ingestion

ENDLESS = 1e12
RAMP_STEP_S = 5.0
SCALING_UP = "scaling up"  # what holds things up where no limit alone explains half of the time


@dataclass(frozen=True, slots=True)
class Settings:
    """What somebody may raise: parameters of the template, and quotas."""

    chunk_concurrency: float
    embed_concurrency: float
    most_acus: float
    account_concurrency: float
    quota_factor: float = 1.0
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most there is of each thing. ENDLESS: it is no limit."""

    chunk_functions: float = ENDLESS
    embed_functions: float = ENDLESS
    concurrency: float = ENDLESS  # of chunk and embed together, by Lambda's quota
    connections: float = ENDLESS  # for the two
    database_cpus: float = ENDLESS
    provider_chunks_s: float = ENDLESS
    uploads_s: float = ENDLESS


# Which setting moves a limit, and its name in the template or with AWS.
MOVES = {
    "chunk_functions": ("chunk_concurrency", "ChunkConcurrency"),
    "embed_functions": ("embed_concurrency", "EmbedConcurrency"),
    "concurrency": ("account_concurrency", "Lambda's quota of concurrent executions"),
    "connections": ("most_acus", "DatabaseMaxCapacity"),
    "database_cpus": ("most_acus", "DatabaseMaxCapacity"),
    "provider_chunks_s": ("quota_factor", "the provider's quota"),
    "uploads_s": ("", "several folders (S3 counts by prefix), or uploads past the API"),
    SCALING_UP: ("", "nothing: Lambda adds 300 pollers a minute to a queue"),
}


SAYS = {
    "chunk_functions": "chunk functions",
    "embed_functions": "embed functions",
    "concurrency": "Lambda's concurrency",
    "connections": "database connections",
    "database_cpus": "the database's CPU",
    "provider_chunks_s": "the provider",
    "uploads_s": "uploads",
}


@dataclass(frozen=True, slots=True)
class Costs:
    """What a chunk takes of each thing."""

    chunks_a_document: float
    chunk_function_s: float
    embed_function_s: float
    chunk_database_cpu_s: float
    embed_database_cpu_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation's end."""

    seconds: float
    most_waiting_documents: float
    most_waiting_chunks: float


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the plan: with these settings, so long, held up by that."""

    documents: int
    settings: Settings
    run: Run
    bottleneck: str
    raised: str  # the setting that was raised to come here, and to what; empty at first
    dollars: float


NOTHING = 1e-3  # of a chunk: what additions may lose


def defaults(scale: Scale) -> Settings:
    return Settings(scale.chunk_concurrency, scale.embed_concurrency, scale.most_acus, scale.account_concurrency)


def in_flight_functions(assumptions: Assumptions) -> float:
    """So many can hold messages of one queue at the same time."""
    return assumptions.scale.in_flight_messages / assumptions.work.messages_an_event


def limits(assumptions: Assumptions, provider: Provider, settings: Settings) -> Limits:
    scale, work = assumptions.scale, assumptions.work
    connections = min(settings.most_acus * scale.connections_an_acu, scale.most_connections)
    if scale.least_acus <= 0.5:
        connections = min(connections, 2000)  # Aurora's rule
    tokens_s = provider.tokens_a_minute / 60 / work.tokens_a_chunk
    return Limits(
        chunk_functions=min(settings.chunk_concurrency, scale.most_pollers),
        embed_functions=min(settings.embed_concurrency, scale.most_pollers, in_flight_functions(assumptions)),
        concurrency=settings.account_concurrency,
        connections=max(1.0, connections - scale.connections_kept_for_others),
        database_cpus=settings.most_acus * work.vcpu_an_acu * work.database_utilisation,
        provider_chunks_s=min(provider.chunks_a_second_at_most, tokens_s) * settings.quota_factor,
        uploads_s=min(scale.s3_writes_a_second, scale.api_requests_a_second if scale.through_api else ENDLESS),
    )


def costs(assumptions: Assumptions, provider: Provider, chunks_a_document: float) -> Costs:
    work, measured, chunk = assumptions.work, assumptions.measured, chunk_effort(assumptions)
    embed_s = billed_seconds_a_thousand(measured.embed, work.embed_megabytes, work.cpu_factor) / 1000
    return Costs(
        chunks_a_document,
        billed_seconds_a_thousand(chunk, work.chunk_megabytes, work.cpu_factor) / 1000,
        max(embed_s, 1 / provider.chunks_a_second_each),
        chunk.database_cpu_s_a_thousand / 1000,
        (measured.embed.database_cpu_s_a_thousand + measured.index.database_cpu_s_a_thousand) / 1000,
    )


def simulate(scale: Scale, most: Limits, each: Costs, documents: float) -> Run:
    """From the first upload until the last vector is stored."""
    clock = uploaded = chunked = embedded = 0.0  # the last three in chunks
    total = documents * each.chunks_a_document
    waiting_documents = waiting_chunks = 0.0
    ramp_s = 60 * scale.most_pollers / scale.pollers_a_minute
    while total - embedded > NOTHING:
        upload_s = most.uploads_s * each.chunks_a_document if total - uploaded > NOTHING else 0.0
        chunk_s, embed_s = _rates(scale, most, each, clock)
        if uploaded - chunked <= NOTHING:
            chunk_s = min(chunk_s, upload_s)
        if chunked - embedded <= NOTHING:
            embed_s = min(embed_s, chunk_s)
        share = _share(most, each, chunk_s, embed_s)
        chunk_s, embed_s = chunk_s * share, embed_s * share
        # Until something is used up, or the rates are others.
        ends = [RAMP_STEP_S] if clock < ramp_s else []
        ends += _until_empty(total - uploaded, upload_s)
        ends += _until_empty(uploaded - chunked, chunk_s - upload_s)
        ends += _until_empty(chunked - embedded, embed_s - chunk_s)
        step_s = min(ends)
        clock += step_s
        uploaded = min(total, uploaded + upload_s * step_s)
        chunked = min(uploaded, chunked + chunk_s * step_s)
        embedded = min(chunked, embedded + embed_s * step_s)
        waiting_documents = max(waiting_documents, (uploaded - chunked) / each.chunks_a_document)
        waiting_chunks = max(waiting_chunks, chunked - embedded)
    return Run(clock, waiting_documents, waiting_chunks)


def _until_empty(amount: float, a_second: float) -> list[float]:
    """When so much is gone; nothing if it does not shrink or is gone already."""
    return [amount / a_second] if a_second > 1e-12 and amount > NOTHING else []


def _rates(scale: Scale, most: Limits, each: Costs, clock: float) -> tuple[float, float]:
    """Chunks a second that the functions, and the provider, could do now."""
    ramped = scale.pollers_at_first + min(scale.pollers_a_minute / 60, scale.environments_a_second) * clock
    chunkers, embedders = min(most.chunk_functions, ramped), min(most.embed_functions, ramped)
    return chunkers / each.chunk_function_s, min(embedders / each.embed_function_s, most.provider_chunks_s)


def _share(most: Limits, each: Costs, chunk_s: float, embed_s: float) -> float:
    """What is left of these rates when both stages have had their part of what they share."""
    functions = chunk_s * each.chunk_function_s + embed_s * each.embed_function_s
    cpus = chunk_s * each.chunk_database_cpu_s + embed_s * each.embed_database_cpu_s
    wanted = ((min(most.concurrency, most.connections), functions), (most.database_cpus, cpus))
    return min(1.0, *(there / needed for there, needed in wanted if needed > 0))


def alone_s(most: Limits, each: Costs, documents: float, name: str) -> float:
    """How long it takes by this limit alone: all of the work, as fast as this allows."""
    chunks = documents * each.chunks_a_document
    value: float = getattr(most, name)
    function_s = each.chunk_function_s + each.embed_function_s
    work = {
        "chunk_functions": chunks * each.chunk_function_s,
        "embed_functions": chunks * each.embed_function_s,
        "concurrency": chunks * function_s,
        "connections": chunks * function_s,
        "database_cpus": chunks * (each.chunk_database_cpu_s + each.embed_database_cpu_s),
        "provider_chunks_s": chunks,
        "uploads_s": documents,
    }
    return work[name] / value


def bottleneck(most: Limits, each: Costs, documents: float) -> str:
    return max((field.name for field in fields(Limits)), key=lambda name: alone_s(most, each, documents, name))


def plan(
    assumptions: Assumptions, provider: Provider, documents: int, chunks_a_document: float, rows: int = 8
) -> Iterator[Step]:
    """From the defaults on: what holds it up, then that setting doubled until something else does, and so on.

    A provider whose quota can go no further is changed for the next one of the file.
    """
    settings, raised = replace(defaults(assumptions.scale), provider=provider.name), ""
    for _ in range(rows):
        provider = assumptions.provider(settings.provider)
        most, each = limits(assumptions, provider, settings), costs(assumptions, provider, chunks_a_document)
        run, name = simulate(assumptions.scale, most, each, documents), bottleneck(most, each, documents)
        if run.seconds > 2 * alone_s(most, each, documents, name):
            name = SCALING_UP
        yield Step(documents, settings, run, name, raised, dollars(assumptions, documents, chunks_a_document, run))
        higher = _raised(assumptions, settings, each, documents, name)
        if higher == settings:
            return
        setting, says = MOVES[name]
        raised = f"{says} {_value(setting, higher)}"
        if higher.provider != settings.provider:
            raised = f"EmbeddingProvider: {higher.provider}"
        settings = higher


def _next_provider(assumptions: Assumptions, settings: Settings) -> Settings:
    names = assumptions.scale.providers_in_turn
    later = names[names.index(settings.provider) + 1 :] if settings.provider in names else ()
    return replace(settings, provider=later[0], quota_factor=1.0) if later else settings


def _raised(assumptions: Assumptions, settings: Settings, each: Costs, documents: int, name: str) -> Settings:
    """Doubled until it is not what holds things up, or can go no further."""
    setting, _ = MOVES[name]
    if not setting:
        return settings
    provider = assumptions.provider(settings.provider)
    highest = {
        "chunk_concurrency": assumptions.scale.highest_concurrency,
        "embed_concurrency": assumptions.scale.highest_concurrency,
        "most_acus": assumptions.scale.highest_acus,
        "account_concurrency": assumptions.scale.highest_account_concurrency,
        "quota_factor": assumptions.scale.highest_quota_factor,
    }[setting]
    if name == "provider_chunks_s" and settings.quota_factor >= highest:
        return _next_provider(assumptions, settings)
    while getattr(settings, setting) < highest:
        settings = replace(settings, **{setting: min(highest, getattr(settings, setting) * 2)})
        if bottleneck(limits(assumptions, provider, settings), each, documents) != name:
            break
    return settings


def _value(setting: str, settings: Settings) -> str:
    value = getattr(settings, setting)
    return f"× {value:g}" if setting == "quota_factor" else f"= {value:,.0f}"


def dollars(assumptions: Assumptions, documents: float, chunks_a_document: float, run: Run) -> float:
    """Of this ingestion, and of Aurora's least capacity meanwhile."""
    work = sum(ingestion(assumptions, documents, documents * chunks_a_document).values())
    return work + assumptions.scale.least_acus * math.ceil(run.seconds) / 3600 * assumptions.prices.database.acu_hour
