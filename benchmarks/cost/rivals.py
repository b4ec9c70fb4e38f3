"""What others would cost for the same work: Bedrock Knowledge Bases with its vector stores, and Node on containers."""

import math

from benchmarks.cost.assumptions import Assumptions, Effort, User
from benchmarks.cost.money import (
    GB,
    HOURS_A_MONTH,
    Bill,
    chunk_effort,
    database_bill,
    objects_dollars,
    provider_dollars,
)

HNSW_LINK_BYTES = 8 * 16  # of a vector, at the default of 16


def knowledge_base(assumptions: Assumptions, user: User, store: str) -> Bill:
    """Parsing (the default parser) and chunking are free; model, files and vector store are paid.

    `store` is classic or next (OpenSearch Serverless), or s3-vectors. Raises ValueError for another.
    """
    stores = {"classic": _open_search, "next": _open_search_next, "s3-vectors": _s3_vectors}
    if store not in stores:
        raise ValueError(f"{store} is none of {', '.join(stores)}")
    return {
        "embedding provider": provider_dollars(assumptions, user.chunks),
        "S3": objects_dollars(assumptions, user),
        "vector store": stores[store](assumptions, user),
    }


def ocus(assumptions: Assumptions, user: User) -> float:
    """So many keep all vectors in memory for searching, redundantly."""
    vector_bytes = 4 * assumptions.work.dimensions + HNSW_LINK_BYTES
    memory_gb = user.chunks_kept * vector_bytes * assumptions.rivals.graph_bytes_a_vector / GB
    return math.ceil(memory_gb / assumptions.rivals.ocu_vector_gb) * assumptions.rivals.ocu_redundancy


def _stored_dollars(assumptions: Assumptions, user: User) -> float:
    bytes_each = 4 * assumptions.work.dimensions + assumptions.rivals.metadata_bytes
    return user.chunks_kept * bytes_each / GB * assumptions.prices.open_search.gb_month


def _open_search(assumptions: Assumptions, user: User) -> float:
    """Classic: half of the least is for indexing and stays; searching grows with the vectors."""
    least = assumptions.prices.open_search.least_ocus
    running = least / 2 + max(least / 2, ocus(assumptions, user))
    return running * HOURS_A_MONTH * assumptions.prices.open_search.ocu_hour + _stored_dollars(assumptions, user)


def _open_search_next(assumptions: Assumptions, user: User) -> float:
    """NextGen: the same units without redundancy, only in the hours in which somebody does something."""
    running = 1.0 + ocus(assumptions, user) / assumptions.rivals.ocu_redundancy
    hours = min(HOURS_A_MONTH, user.active_hours)
    return running * hours * assumptions.prices.open_search.ocu_hour + _stored_dollars(assumptions, user)


def _s3_vectors(assumptions: Assumptions, user: User) -> float:
    price = assumptions.prices.s3_vectors
    bytes_each = 4 * assumptions.work.dimensions + assumptions.rivals.metadata_bytes
    looked_at = query_dollars(user.chunks_kept, bytes_each, price.query_tb_tiers)
    return (
        user.chunks_kept * bytes_each / GB * price.gb_month
        + user.chunks * bytes_each / GB * price.put_gb
        + user.searches * (price.million_queries / 1e6 + looked_at)
    )


def query_dollars(vectors: float, bytes_each: float, tiers: tuple[tuple[float, float], ...]) -> float:
    """Of one query: it pays for every vector of the index, the later ones less."""
    dollars, below = 0.0, 0.0
    for up_to, terabyte in tiers:
        dollars += max(0.0, min(vectors, up_to) - below) * bytes_each / 1e12 * terabyte
        below = up_to
    return dollars


def containers(assumptions: Assumptions, user: User, effort: Effort, task_gb: float) -> Bill:
    """A service of Node on Fargate with the same Aurora: always there, and enough for the busiest hour.

    Its embedding is as measured; reading files is taken to cost what Edda's chunk function costs.
    """
    price, rivals, measured = assumptions.prices, assumptions.rivals, assumptions.measured
    cpu_s = (effort.cpu_s_a_thousand + chunk_effort(assumptions).cpu_s_a_thousand) * user.chunks / 1000
    a_task = HOURS_A_MONTH * 3600 * rivals.task_vcpu * rivals.utilisation
    tasks = max(rivals.minimum_tasks, math.ceil(cpu_s * rivals.peak_to_mean / a_task))
    hour = rivals.task_vcpu * price.containers.vcpu_hour + task_gb * price.containers.gb_hour
    database_s = (
        effort.database_cpu_s_a_thousand
        + chunk_effort(assumptions).database_cpu_s_a_thousand
        + measured.live_index.database_cpu_s_a_thousand
    ) * (user.chunks / 1000)
    return {
        "containers": tasks * (hour * HOURS_A_MONTH + price.containers.address_month),
        "load balancer": price.containers.balancer_month,
        "S3": objects_dollars(assumptions, user),
        **database_bill(assumptions, user, database_s),
        "embedding provider": provider_dollars(assumptions, user.chunks),
    }
