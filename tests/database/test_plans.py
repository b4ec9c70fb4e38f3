"""What is asked again and again reads what it needs, however many rows there are: plans against filled tables."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

import psycopg
import pytest
from edda.models import EmbeddingModel, Tenant
from edda.store.queries import queries
from edda.store.sweep import Patience

from tests.postgres import DatabaseUrls

DOCUMENTS = 20_000
OPEN = 20  # versions that are not finished
FILL = """
SET session_replication_role = replica;  -- no triggers, for speed
INSERT INTO documents (document_id, tenant_id, object_key, name)
    SELECT md5('d' || n)::uuid, %(tenant)s, 'acme/' || lpad(n::text, 8, '0'), 'a'
    FROM generate_series(1, %(documents)s) n;
INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at,
                               planned_chunks, chunked_at, status, finished_at, terms_from)
    SELECT md5('v' || n)::uuid, %(tenant)s, md5('d' || n)::uuid, '1', 'a', now(), 1, now() - interval '1 day',
           CASE WHEN n > %(open)s THEN 'ready' WHEN n %% 2 = 0 THEN 'embedding' ELSE 'queued' END,
           CASE WHEN n > %(open)s THEN now() END, CASE WHEN n < 2 * %(open)s THEN 0 END
    FROM generate_series(1, %(documents)s) n;
INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, char_start, char_end,
                    heading_path)
    SELECT %(tenant)s, md5('v' || n)::uuid, 0, md5('c' || n)::uuid, md5('h' || n)::uuid, 'a', 1, 0, 1, '{}'
    FROM generate_series(1, %(documents)s) n;
INSERT INTO embeddings
    SELECT %(tenant)s, %(model)s, md5('h' || n)::uuid, '[1]' FROM generate_series(1, %(documents)s) n;
INSERT INTO embed_batches (tenant_id, version_id, first_ordinal, last_ordinal, done_at)
    SELECT %(tenant)s, md5('v' || n)::uuid, 0, 0, CASE WHEN n > %(open)s THEN now() END
    FROM generate_series(1, %(documents)s) n;
INSERT INTO document_usage (tenant_id, document_id, day)
    SELECT %(tenant)s, md5('d' || n)::uuid, current_date - n %% 300 FROM generate_series(1, %(documents)s) n;
INSERT INTO document_events (event_id, tenant_id, document_id, sequence, type, body)
    SELECT md5('e' || n)::uuid, %(tenant)s, md5('d' || n)::uuid, 1, 'document.ready', '{}'
    FROM generate_series(1, %(documents)s) n;
INSERT INTO event_deliveries (tenant_id, event_id, channel) SELECT tenant_id, event_id, 'webhook' FROM document_events;
ANALYZE
"""
LARGE = (
    "documents",
    "document_versions",
    "chunks",
    "embeddings",
    "embed_batches",
    "document_events",
    "event_deliveries",
    "document_usage",
)
HASH, VERSION, DOCUMENT = UUID(int=1), UUID(int=2), UUID(int=3)

# By file and name, with values as in use; what they read is in one place of an index.
QUERIES: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("sweep", name, asdict(Patience()) | {"limit": 500})
        for name in (
            "stuck_versions",
            "stuck_batches",
            "unfinished_versions",
            "superseded_versions",
            "forget_documents",
            "forget_document_usage",
        )
    ),
    ("bucket", "objects_to_delete", {"grace_s": 120, "limit": 100}),
    ("bucket", "count_held", {}),
    ("bucket", "last_known", {"object_key": "acme/00000001"}),
    ("bucket", "known_objects", {"after": "acme/00000001", "until": "acme/00000100", "limit": 1000}),
    ("pipeline", "others_in_work", {"tenant_id": None, "version_id": VERSION}),
    ("pipeline", "versions_of_document", {"document_id": DOCUMENT}),
    ("pipeline", "delete_chunks", {"version_id": VERSION, "below": 2**31 - 1, "limit": 20_000}),
    ("pipeline", "missing_ordinals", {"version_id": VERSION, "model_id": 1, "first_ordinal": 0}),
    ("pipeline", "missing_ordinals", {"version_id": VERSION, "model_id": 1, "first_ordinal": 2}),
    ("pipeline", "occurrences", {"tenant_id": None, "version_id": VERSION, "content_hashes": [HASH]}),
    ("pipeline", "recount", {"version_id": VERSION, "model_id": 1}),
    ("pipeline", "delete_orphaned_embeddings", {"content_hashes": [HASH]}),
    ("pipeline", "renew_batches", {"version_ids": [VERSION], "first_ordinals": [0], "attempts": [1], "lease_s": 45}),
    (
        "events",
        "claim_deliveries",
        {
            "tenant_id": None,
            "channels": ["event_bus", "webhook"],
            "limit": 50,
            "only_first": True,
            "first_wait_s": 30,
            "longest_wait_s": 3600,
        },
    ),
    ("search", "versions_without_terms", {"limit": 500}),
    ("search", "terms_to_make", {"version_id": VERSION}),
    ("search", "chunks_without_terms", {"version_id": VERSION, "terms_from": 256, "limit": 256, "characters": 300_000}),
    ("events", "forget_events", {"tenant_id": None, "keep_s": 86_400, "limit": 500}),
    (
        "usage",
        "usage_by_document",
        {"tenant_id": None, "first_day": "2026-01-01", "last_day": "2026-12-31", "after": None, "limit": 20},
    ),
]


@pytest.fixture
async def filled(database_urls: DatabaseUrls, tenant: Tenant, embedding_model: EmbeddingModel) -> DatabaseUrls:
    """One tenant's many documents, nearly all of them finished."""
    values = {"tenant": tenant.tenant_id, "model": embedding_model.model_id, "documents": DOCUMENTS, "open": OPEN}
    with psycopg.connect(database_urls.owner, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(FILL, values)
    return database_urls


async def test_no_repeated_question_reads_a_whole_table(filled: DatabaseUrls, tenant: Tenant) -> None:
    with psycopg.connect(filled.app, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant.tenant_id)])
        for file, name, values in QUERIES:
            given = {key: tenant.tenant_id if key == "tenant_id" else value for key, value in values.items()}
            rows = connection.execute("EXPLAIN " + queries(file)[name].rstrip().rstrip(";"), given).fetchall()
            plan = "\n".join(row[0] for row in rows)
            assert not [table for table in LARGE if f"Seq Scan on {table} " in plan], f"{file}.{name}\n{plan}"
