"""The environment, typed. Read when a function is first invoked, never at import."""

import os
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PREFIX = "EDDA_"

MEGABYTE = 1024**2
GIGABYTE = 1024**3

# What the chunk function itself needs, beside the process that parses.
OWN_MEMORY_BYTES = 256 * MEGABYTE


def is_started_ahead(environment: Mapping[str, str] | None = None) -> bool:
    """Whether Lambda starts this environment before a request needs it (StartMode of the template)."""
    kind = (os.environ if environment is None else environment).get("AWS_LAMBDA_INITIALIZATION_TYPE")
    return kind in {"provisioned-concurrency", "snap-start"}


class Settings(BaseModel):
    """`EDDA_<NAME>` gives `<name>`. A function gets only what it needs, so what others need may be empty."""

    model_config = ConfigDict(frozen=True, str_strip_whitespace=True, hide_input_in_errors=True)

    # Postgres: a URL, or host and secret (which rotates).
    database_url: str = ""
    database_host: str = ""
    database_name: str = "edda"
    database_secret_arn: str = ""
    # How long work from a queue waits for a Postgres that is away: a failover takes up to 30 s, waking up 15.
    database_patience_s: float = Field(default=45, ge=0)
    # For migrate alone: the schema's owner.
    database_owner_url: str = ""
    database_owner_secret_arn: str = ""
    first_tenant: str = ""
    index_megabytes: int = Field(default=512, ge=32)  # of Postgres' memory, for one HNSW index that is being built

    uploads_bucket: str = ""
    ingest_queue_url: str = ""
    embed_queue_url: str = ""
    ingest_dead_letter_queue_url: str = ""
    embed_dead_letter_queue_url: str = ""

    embedding_provider: Literal["in-process", "openai", "bedrock"] = "in-process"
    embedding_model: str = "all-MiniLM-L6-v2"
    embedding_dimensions: int = Field(default=384, ge=1, le=4000)
    # ISO 639-1 with commas between, or "all"; empty: as the model's name says (fusing.languages_of_model).
    embedding_languages: str = Field(default="", pattern="^(all|[a-z]{2}(,[a-z]{2})*)?$")
    embedding_price_per_million_tokens: Decimal = Field(default=Decimal(0), ge=0)
    provider_base_url: str = "https://api.openai.com/v1"
    provider_api_key_secret_arn: str = ""
    provider_api_key: str = ""  # for a local run; a deployment uses the secret

    rerank_provider: Literal["none", "bedrock", "cohere", "jina", "voyage", "tei"] = "none"
    rerank_model: str = ""
    rerank_base_url: str = ""  # empty: the provider's own
    rerank_api_key_secret_arn: str = ""
    rerank_api_key: str = ""  # for a local run
    rerank_candidates: int = Field(default=50, ge=1, le=200)
    rerank_timeout_s: float = Field(default=5, gt=0, le=25)

    chat_provider: Literal["none", "openai", "bedrock"] = "none"
    chat_model: str = ""
    chat_base_url: str = "https://api.openai.com/v1"
    chat_api_key_secret_arn: str = ""
    chat_api_key: str = ""  # for a local run
    answer_threshold: float = Field(default=0.33, ge=0, le=1)  # docs/answers.md

    event_bus_name: str = ""  # empty: none
    webhook_allow_private: bool = False  # for a local run

    chunk_concurrency: int = Field(default=10, ge=1)  # chunk functions at the same time

    # At most 2 GB: the offsets of chunks count characters in 31 bits.
    max_document_bytes: int = Field(default=GIGABYTE, ge=1, le=2 * GIGABYTE - 1)
    # Of what cannot be read in parts (see `edda.parts`), and is therefore in memory as a whole.
    max_whole_bytes: int = Field(default=100 * MEGABYTE, ge=1)
    part_bytes: int = Field(default=4 * MEGABYTE, ge=64 * 1024)
    part_pages: int = Field(default=50, ge=1)
    chunk_strategy: Literal["structure", "fixed", "sentence"] = "structure"
    chunk_tokens: int = Field(default=200, ge=20, le=8000)
    chunk_overlap_tokens: int = Field(default=30, ge=0, le=4000)
    max_chunks: int = Field(default=2_500_000, ge=1)  # 1 GB of text has about 1.8 million
    max_part_chunks: int = Field(default=100_000, ge=1)
    parse_timeout_s: float = Field(default=120, gt=0)
    parse_memory_bytes: int = Field(default=GIGABYTE, ge=64 * MEGABYTE)

    delete_brake_percent: int = Field(default=20, ge=0, le=100)
    delete_brake_minimum: int = Field(default=100, ge=0)
    walk_interval_s: float = Field(default=900, gt=0)
    history_days: int = Field(default=400, ge=31)

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> Self:
        if self.chunk_overlap_tokens * 2 > self.chunk_tokens:
            raise ValueError("EDDA_CHUNK_OVERLAP_TOKENS may be half of EDDA_CHUNK_TOKENS at most")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Empty variables count as absent: a template cannot leave one out. Raises pydantic.ValidationError."""
        variables = os.environ if environment is None else environment
        values: dict[str, str | int] = {
            name[len(PREFIX) :].lower(): value for name, value in variables.items() if name.startswith(PREFIX) and value
        }
        if function_megabytes := variables.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"):
            left = int(function_megabytes) * MEGABYTE - OWN_MEMORY_BYTES
            values.setdefault("parse_memory_bytes", max(left, 64 * MEGABYTE))
        return cls.model_validate(values)
