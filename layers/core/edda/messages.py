"""The wire contracts between functions. A message is a doorbell: it names work and never carries text.

Every message carries `v`, its contract's version, so that a newer function can tell an older message.
"""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Ordinal = Annotated[int, Field(ge=0, lt=2**31)]


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class IngestVersion(Message):
    """There is a registered document version to parse (sent by the sweep; S3 sends its own events)."""

    v: Literal[1] = 1
    type: Literal["ingest_version"] = "ingest_version"
    tenant_id: UUID
    version_id: UUID


class EmbedBatch(Message):
    """Chunks `first_ordinal`..`last_ordinal` of a version may lack vectors."""

    v: Literal[1] = 1
    type: Literal["embed_batch"] = "embed_batch"
    tenant_id: UUID
    version_id: UUID
    first_ordinal: Ordinal
    last_ordinal: Ordinal
