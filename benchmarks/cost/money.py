"""Dollars a month for a user, line by line. Pure arithmetic: quantities times prices of assumptions.toml."""

import math
from dataclasses import dataclass

from benchmarks.cost.assumptions import Assumptions, Effort, User

HOURS_A_MONTH = 730.0
ONE_CPU_MEGABYTES = 1769.0  # Lambda: the equivalent of one vCPU
GB = 1e9
GIGABYTE_OF_MEGABYTES = 1024.0
FREE_DISK_MEGABYTES = 512.0
MESSAGES_A_REQUEST = 10.0  # SQS' batches

Bill = dict[str, float]


def billed_seconds_a_thousand(effort: Effort, megabytes: float, cpu_factor: float = 1.0) -> float:
    """Seconds of Lambda for a thousand chunks: what waits takes the same at every size, what computes its share of CPU.

    More than one CPU is of no use to one event loop.
    """
    waits_s = max(0.0, effort.seconds_a_thousand - effort.cpu_s_a_thousand)
    return waits_s + effort.cpu_s_a_thousand * cpu_factor / min(1.0, megabytes / ONE_CPU_MEGABYTES)


@dataclass(frozen=True, slots=True)
class FunctionUse:
    """Of one function in a month."""

    invocations: float
    seconds: float
    megabytes: float
    disk_megabytes: float = FREE_DISK_MEGABYTES

    @property
    def gb_seconds(self) -> float:
        return self.seconds * self.megabytes / GIGABYTE_OF_MEGABYTES

    def dollars(self, assumptions: Assumptions) -> float:
        price = assumptions.prices.functions
        disk_gb = max(0.0, self.disk_megabytes - FREE_DISK_MEGABYTES) / GIGABYTE_OF_MEGABYTES
        return (
            self.gb_seconds * price.gb_second
            + self.invocations / 1e6 * price.million_requests
            + self.seconds * disk_gb * price.disk_gb_second
        )


def embed_use(assumptions: Assumptions, chunks: float) -> FunctionUse:
    work, effort = assumptions.work, assumptions.measured.embed
    seconds = billed_seconds_a_thousand(effort, work.embed_megabytes, work.cpu_factor) * chunks / 1000
    return FunctionUse(chunks / (work.chunks_a_message * work.messages_an_event), seconds, work.embed_megabytes)


def chunk_effort(assumptions: Assumptions) -> Effort:
    """Of the chunk function: reading and cutting, and the terms of search by words."""
    effort, terms = assumptions.measured.chunk, assumptions.measured.terms
    factor = 1 + assumptions.work.share_with_letters * (terms.times_cpu_with_letters - 1)
    cpu_s, database_s = terms.cpu_s_a_thousand * factor, terms.database_cpu_s_a_thousand * factor
    return effort.model_copy(
        update={
            "seconds_a_thousand": effort.seconds_a_thousand + cpu_s + database_s,
            "cpu_s_a_thousand": effort.cpu_s_a_thousand + cpu_s,
            "database_cpu_s_a_thousand": effort.database_cpu_s_a_thousand + database_s,
        }
    )


def chunk_use(assumptions: Assumptions, documents: float, chunks: float) -> FunctionUse:
    work, effort = assumptions.work, chunk_effort(assumptions)
    seconds = billed_seconds_a_thousand(effort, work.chunk_megabytes, work.cpu_factor) * chunks / 1000
    return FunctionUse(documents, seconds, work.chunk_megabytes, work.chunk_disk_megabytes)


def other_uses(assumptions: Assumptions, user: User) -> list[FunctionUse]:
    """search, answer, api (an upload and one look at its status) and sweep."""
    work = assumptions.work
    reranking_s = work.reranked_share * work.rerank_seconds
    answer_s = work.answer_seconds + reranking_s + work.generated_share * work.chat_requests * work.chat_seconds
    return [
        FunctionUse(user.searches, user.searches * (work.search_seconds + reranking_s), work.search_megabytes),
        FunctionUse(user.answers, user.answers * answer_s, work.search_megabytes),
        FunctionUse(2 * user.documents, 2 * user.documents * work.api_seconds, work.api_megabytes),
        FunctionUse(work.sweeps_a_month, work.sweeps_a_month * work.sweep_seconds, work.sweep_megabytes),
    ]


def queue_requests(assumptions: Assumptions, documents: float, chunks: float) -> float:
    """Sent, received, hidden for longer and deleted: a document's message alone, those for embedding by tens."""
    messages = max(documents, chunks / assumptions.work.chunks_a_message)
    return 4 * documents + 4 * messages / MESSAGES_A_REQUEST


def database_cpu_s(assumptions: Assumptions, chunks: float) -> float:
    """Of the chunks' rows and terms, of claiming, storing and finishing vectors, and of the index."""
    measured = assumptions.measured
    return (
        (
            measured.embed.database_cpu_s_a_thousand
            + chunk_effort(assumptions).database_cpu_s_a_thousand
            + measured.index.database_cpu_s_a_thousand
        )
        * chunks
        / 1000
    )


def acu_hours_of(assumptions: Assumptions, cpu_s: float) -> float:
    """Capacity that so much CPU takes."""
    work = assumptions.work
    return cpu_s / 3600 / work.vcpu_an_acu / work.database_utilisation


def vector_gb(assumptions: Assumptions, chunks_kept: float) -> float:
    """halfvec rows and their index."""
    return chunks_kept * assumptions.work.dimensions * 2 * assumptions.work.vector_overhead / GB


def terms_gb(assumptions: Assumptions, chunks_kept: float) -> float:
    """The rows of search by words and their index."""
    terms = assumptions.measured.terms
    factor = 1 + assumptions.work.share_with_letters * (terms.times_bytes_with_letters - 1)
    return chunks_kept * terms.bytes_a_chunk * factor / GB


def acus_for_search(assumptions: Assumptions, chunks_kept: float) -> float:
    """What keeps the hot part of both indexes in memory; capacity comes in halves."""
    work = assumptions.work
    hot_gb = (vector_gb(assumptions, chunks_kept) + terms_gb(assumptions, chunks_kept)) * work.index_in_memory_share
    return math.ceil(hot_gb / (work.acu_memory_gb * work.acu_memory_share) * 2) / 2


def standing_acus(assumptions: Assumptions, user: User) -> float:
    """What has to be there at any time: the parameter's least, or what search needs."""
    return max(user.least_acus, acus_for_search(assumptions, user.chunks_kept))


def database_bill(assumptions: Assumptions, user: User, cpu_s: float, hours_awake: float = HOURS_A_MONTH) -> Bill:
    price, work = assumptions.prices.database, assumptions.work
    stored_gb = user.chunks_kept * work.chunk_row_bytes / GB
    stored_gb += vector_gb(assumptions, user.chunks_kept) + terms_gb(assumptions, user.chunks_kept)
    searched_s = user.questions * assumptions.measured.search.database_cpu_s
    ios = work.ios_a_thousand_chunks * user.chunks / 1000
    return {
        "Aurora, standing": standing_acus(assumptions, user) * hours_awake * price.acu_hour,
        "Aurora, ingestion": acu_hours_of(assumptions, cpu_s) * price.acu_hour + ios / 1e6 * price.million_ios,
        "Aurora, questions": acu_hours_of(assumptions, searched_s) * price.acu_hour,
        "Aurora, storage": stored_gb * price.gb_month,
    }


def objects_dollars(assumptions: Assumptions, user: User) -> float:
    """The files themselves; one PUT, one GET and two HEADs each."""
    price = assumptions.prices.objects
    kept_gb = user.documents * user.months_kept * user.kilobytes_a_document * 1000 / GB
    return (
        kept_gb * price.gb_month
        + user.documents / 1000 * price.thousand_writes
        + 3 * user.documents / 1000 * price.thousand_reads
    )


def provider_dollars(assumptions: Assumptions, chunks: float) -> float:
    return chunks * assumptions.work.tokens_a_chunk / 1e6 * assumptions.prices.provider.million_tokens


def model_bill(assumptions: Assumptions, user: User) -> Bill:
    """What the models take for questions. Whoever asks the same ones pays the same."""
    work, price = assumptions.work, assumptions.prices
    each = work.chat_input_tokens * price.chat.million_input_tokens
    each += work.chat_output_tokens * price.chat.million_output_tokens
    return {
        "chat model": user.answers * work.generated_share * work.chat_requests * each / 1e6,
        "reranker": user.questions * work.reranked_share / 1000 * price.reranker.thousand_queries,
    }


def edda(assumptions: Assumptions, user: User, hours_awake: float = HOURS_A_MONTH) -> Bill:
    """Without free tiers, which are told apart. `hours_awake`: of the database, with DatabaseMinCapacity 0."""
    price, work = assumptions.prices, assumptions.work
    embed, chunk = embed_use(assumptions, user.chunks), chunk_use(assumptions, user.documents, user.chunks)
    others = other_uses(assumptions, user)
    invocations = sum(use.invocations for use in (embed, chunk, *others))
    log_gb = invocations * work.log_kilobytes_an_invocation / 1e6
    requests = queue_requests(assumptions, user.documents, user.chunks) + work.polls_a_month
    return {
        "Lambda, chunk": chunk.dollars(assumptions),
        "Lambda, embed": embed.dollars(assumptions),
        "Lambda, others": sum(use.dollars(assumptions) for use in others),
        "SQS": requests / 1e6 * price.queues.million_requests,
        "S3": objects_dollars(assumptions, user),
        **database_bill(assumptions, user, database_cpu_s(assumptions, user.chunks), hours_awake),
        "embedding provider": provider_dollars(assumptions, user.chunks),
        **model_bill(assumptions, user),
        "API, events, logs, traces": (user.questions + 2 * user.documents) / 1e6 * price.other.million_api_requests
        + user.documents / 1e6 * price.other.million_bus_events
        + log_gb * price.other.log_gb
        + invocations * work.traced_share / 1e6 * price.other.million_traces,
    }


def hours_awake(assumptions: Assumptions, user: User) -> float:
    """Of a database that may sleep: while somebody works, and after each hourly sweep and look for indexes."""
    idle = max(0.0, HOURS_A_MONTH - user.active_hours)
    return HOURS_A_MONTH - idle * (1 - assumptions.rivals.awake_after_sweep_hours)


def free_tier(assumptions: Assumptions, user: User) -> float:
    """What Lambda's and SQS' free tiers take off, if nothing else of the account uses them. They do not end."""
    functions, queues, work = assumptions.prices.functions, assumptions.prices.queues, assumptions.work
    uses = [
        embed_use(assumptions, user.chunks),
        chunk_use(assumptions, user.documents, user.chunks),
        *other_uses(assumptions, user),
    ]
    gb_seconds = min(functions.free_gb_seconds, sum(use.gb_seconds for use in uses))
    invocations = min(functions.free_requests, sum(use.invocations for use in uses))
    requests = queue_requests(assumptions, user.documents, user.chunks) + work.polls_a_month
    return (
        gb_seconds * functions.gb_second
        + invocations / 1e6 * functions.million_requests
        + min(queues.free_requests, requests) / 1e6 * queues.million_requests
    )


def ingestion(assumptions: Assumptions, documents: float, chunks: float) -> Bill:
    """What this much work costs by itself: nothing that stands or is stored."""
    price, work = assumptions.prices, assumptions.work
    ios = work.ios_a_thousand_chunks * chunks / 1000
    return {
        "Lambda, chunk": chunk_use(assumptions, documents, chunks).dollars(assumptions),
        "Lambda, embed": embed_use(assumptions, chunks).dollars(assumptions),
        "SQS": queue_requests(assumptions, documents, chunks) / 1e6 * price.queues.million_requests,
        "S3": documents / 1000 * (price.objects.thousand_writes + 3 * price.objects.thousand_reads),
        "Aurora": acu_hours_of(assumptions, database_cpu_s(assumptions, chunks)) * price.database.acu_hour
        + ios / 1e6 * price.database.million_ios,
        "embedding provider": provider_dollars(assumptions, chunks),
    }


def by_memory(assumptions: Assumptions, function: str, megabytes: float) -> float:
    """Dollars of Lambda for a million chunks at this size, requests included."""
    work = assumptions.work
    effort = chunk_effort(assumptions) if function == "chunk" else assumptions.measured.embed
    seconds = billed_seconds_a_thousand(effort, megabytes, work.cpu_factor) * 1000
    return FunctionUse(1e6 / effort.chunks_an_event, seconds, megabytes).dollars(assumptions)
