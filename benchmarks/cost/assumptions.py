"""assumptions.toml, typed: a name that is missing, wrong or too much is an error that says so."""

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, model_validator

DEFAULT = Path(__file__).with_name("assumptions.toml")
# The benchmark's contestants, by the names that they have here. One environment: its seconds are what Lambda bills.
CONTESTANTS = {"embed": "edda/one-environment", "node_startup": "node/startup", "node_ideal": "node/ideal"}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _plausible(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} = {value}: a number from 0 on")
            if value > 1 and ("share" in name.split("_") or name == "utilisation" or name.endswith("_utilisation")):
                raise ValueError(f"{name} = {value}: a share, 1 at most")
        return values


class Functions(_Table):
    gb_second: float
    million_requests: float
    disk_gb_second: float
    free_gb_seconds: float
    free_requests: float


class Queues(_Table):
    million_requests: float
    free_requests: float


class Objects(_Table):
    gb_month: float
    thousand_writes: float
    thousand_reads: float


class Database(_Table):
    acu_hour: float
    gb_month: float
    million_ios: float


class Other(_Table):
    million_bus_events: float
    log_gb: float
    million_traces: float
    million_api_requests: float


class Containers(_Table):
    vcpu_hour: float
    gb_hour: float
    balancer_month: float
    address_month: float


class OpenSearch(_Table):
    ocu_hour: float
    gb_month: float
    least_ocus: float


class S3Vectors(_Table):
    gb_month: float
    put_gb: float
    million_queries: float
    query_tb_tiers: tuple[tuple[float, float], ...]


class ModelPrice(_Table):
    million_tokens: float


class ChatPrice(_Table):
    million_input_tokens: float
    million_output_tokens: float


class RerankPrice(_Table):
    thousand_queries: float


class Prices(_Table):
    functions: Functions
    queues: Queues
    objects: Objects
    database: Database
    other: Other
    containers: Containers
    open_search: OpenSearch
    s3_vectors: S3Vectors
    provider: ModelPrice
    chat: ChatPrice
    reranker: RerankPrice


class Effort(_Table):
    """What a thousand chunks took, in one process, one event after another."""

    seconds_a_thousand: PositiveFloat
    cpu_s_a_thousand: PositiveFloat
    peak_megabytes: PositiveFloat
    database_cpu_s_a_thousand: float
    chunks_an_event: PositiveFloat


class IndexEffort(_Table):
    """Of the database, to put a thousand vectors into the index."""

    database_cpu_s_a_thousand: float


class Terms(_Table):
    """What search by words adds to a thousand chunks in English, and how much more it is elsewhere."""

    cpu_s_a_thousand: float
    database_cpu_s_a_thousand: float
    bytes_a_chunk: float
    times_bytes_with_letters: float
    times_cpu_with_letters: float


class SearchEffort(_Table):
    database_cpu_s: float


class Measured(_Table):
    where: str
    embed: Effort
    chunk: Effort
    terms: Terms
    search: SearchEffort
    index: IndexEffort
    live_index: IndexEffort  # for who writes into it
    node_startup: Effort
    node_ideal: Effort


class Work(_Table):
    cpu_factor: PositiveFloat
    tokens_a_chunk: float
    dimensions: int
    embed_megabytes: PositiveFloat
    chunk_megabytes: PositiveFloat
    chunk_disk_megabytes: float
    search_megabytes: float
    search_seconds: float
    reranked_share: float
    rerank_seconds: float
    answer_seconds: float
    chat_seconds: float
    generated_share: float
    chat_requests: float
    chat_input_tokens: float
    chat_output_tokens: float
    share_with_letters: float
    api_megabytes: float
    api_seconds: float
    sweep_megabytes: float
    sweep_seconds: float
    sweeps_a_month: float
    chunks_a_message: PositiveFloat
    messages_an_event: PositiveFloat
    polls_a_month: float
    log_kilobytes_an_invocation: float
    traced_share: float
    ios_a_thousand_chunks: float
    chunk_row_bytes: float
    vector_overhead: float
    index_in_memory_share: float
    acu_memory_gb: PositiveFloat
    acu_memory_share: PositiveFloat
    vcpu_an_acu: PositiveFloat
    database_utilisation: PositiveFloat


class Rivals(_Table):
    awake_after_sweep_hours: float
    minimum_tasks: int
    task_vcpu: PositiveFloat
    task_gb: float
    startup_task_gb: float
    peak_to_mean: float
    utilisation: PositiveFloat
    ocu_vector_gb: PositiveFloat
    ocu_redundancy: float
    graph_bytes_a_vector: float
    metadata_bytes: float


class User(_Table):
    """How much somebody does in a month."""

    name: str
    says: str
    documents: PositiveFloat
    chunks_a_document: PositiveFloat
    kilobytes_a_document: float
    months_kept: PositiveFloat
    searches: float
    answers: float
    least_acus: float
    active_hours: float

    @property
    def chunks(self) -> float:
        """New ones in a month."""
        return self.documents * self.chunks_a_document

    @property
    def questions(self) -> float:
        return self.searches + self.answers

    @property
    def chunks_kept(self) -> float:
        return self.chunks * self.months_kept


class Provider(_Table):
    name: str
    says: str
    requests_a_minute: PositiveFloat
    tokens_a_minute: PositiveFloat
    texts_a_request: PositiveFloat
    chunks_a_second_each: PositiveFloat

    @property
    def chunks_a_second_at_most(self) -> float:
        """By requests, if they are full. Tokens depend on the chunks."""
        return self.requests_a_minute * self.texts_a_request / 60


class Scale(_Table):
    documents: tuple[int, ...]
    provider: str
    providers_in_turn: tuple[str, ...]
    account_concurrency: PositiveFloat
    environments_a_second: PositiveFloat
    pollers_at_first: PositiveFloat
    pollers_a_minute: PositiveFloat
    most_pollers: PositiveFloat
    in_flight_messages: float
    connections_an_acu: PositiveFloat
    most_connections: float
    connections_kept_for_others: float
    s3_writes_a_second: PositiveFloat
    api_requests_a_second: PositiveFloat
    through_api: bool
    chunk_concurrency: PositiveFloat
    embed_concurrency: PositiveFloat
    least_acus: float
    most_acus: PositiveFloat
    highest_concurrency: float
    highest_acus: float
    highest_account_concurrency: float
    highest_quota_factor: float


class Assumptions(_Table):
    as_of: str
    region: str
    prices: Prices
    measured: Measured
    work: Work
    rivals: Rivals
    users: tuple[User, ...]
    scale: Scale
    providers: tuple[Provider, ...]

    def provider(self, name: str) -> Provider:
        """Raises LookupError for one that is not in the file."""
        for one in self.providers:
            if one.name == name:
                return one
        raise LookupError(f"no provider {name}: there is {', '.join(one.name for one in self.providers)}")


def load(path: Path = DEFAULT, results: Path | None = None) -> Assumptions:
    """Read the file; figures of `results`, a results.json of the benchmark, take the place of its own.

    Raises OSError, ValueError (no TOML, no JSON, or numbers that cannot be), LookupError.
    """
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    if results is not None:
        found = json.loads(results.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or "summary" not in found:
            raise LookupError(f"{results} is no results.json of the benchmark")
        values["measured"] |= measured(found)
        values["measured"]["where"] = str(results)
    return Assumptions.model_validate(values)


def measured(results: Mapping[str, Any]) -> dict[str, Any]:
    """Of the unlimited regime, at the largest size that all of them took part in. Raises LookupError if one did not."""
    lines = [one for one in results["summary"] if one["regime"] == "unlimited" and "rows" in one]
    places = [
        {(one["asked_chunks"], one["dimensions"]): one for one in lines if one["contestant"] == contestant}
        for contestant in CONTESTANTS.values()
    ]
    shared = set.intersection(*(set(place) for place in places))
    if not shared:
        raise LookupError(f"the results have no size with all of {', '.join(CONTESTANTS.values())}, unlimited")
    best = max(shared)
    found = {}
    for name, place in zip(CONTESTANTS, places, strict=True):
        line = place[best]
        turns = [one for one in results["turns"] if _is_of(one, line) and "error" not in one]
        events = turns[0]["said"].get("invocations", 1)
        found[name] = {
            "seconds_a_thousand": line["seconds"] / line["chunks"] * 1000,
            "cpu_s_a_thousand": line["cpu_s_a_thousand"],
            "peak_megabytes": line["peak_megabytes"],
            "database_cpu_s_a_thousand": line["database_cpu_s"] / line["chunks"] * 1000,
            "chunks_an_event": line["chunks"] / events,
        }
    return found


def _is_of(turn: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    return all(turn[name] == line[name] for name in ("contestant", "regime", "asked_chunks", "dimensions"))
