"""A database is fresh once, and its planner knows nothing then: a look at a key must be one all the same."""

import psycopg
import pytest
from edda.models import EmbeddingModel, Tenant
from edda.store.queries import queries

from tests.postgres import DatabaseUrls

CHUNKS = 2_000
ROWS = """
INSERT INTO documents (document_id, tenant_id, object_key, name) VALUES (md5('d')::uuid, %(tenant)s, 'a', 'a');
INSERT INTO document_versions (version_id, tenant_id, document_id, s3_version_id, sequencer, modified_at)
    VALUES (md5('v')::uuid, %(tenant)s, md5('d')::uuid, '1', 'a', now());
INSERT INTO chunks (tenant_id, version_id, ordinal, chunk_id, content_hash, text, tokens, char_start, char_end,
                    heading_path)
    SELECT %(tenant)s, md5('v')::uuid, n, md5('c' || n)::uuid, md5('h' || n)::uuid, 'a', 1, 0, 1, '{}'
    FROM generate_series(1, %(chunks)s) n;
INSERT INTO embeddings (tenant_id, model_id, content_hash, vector)
    SELECT %(tenant)s, %(model)s, md5('h' || n)::uuid, array_fill(1.0::float8, ARRAY[%(dimensions)s])::halfvec
    FROM generate_series(1, %(chunks)s) n;
"""


@pytest.fixture
async def fresh(database_urls: DatabaseUrls, tenant: Tenant, embedding_model: EmbeddingModel) -> DatabaseUrls:
    values = {
        "tenant": tenant.tenant_id,
        "model": embedding_model.model_id,
        "dimensions": embedding_model.dimensions,
        "chunks": CHUNKS,
    }
    with psycopg.connect(database_urls.owner, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(ROWS, values)
    return database_urls


@pytest.mark.anyio
async def test_chunks_are_recounted_by_their_keys(
    fresh: DatabaseUrls, tenant: Tenant, embedding_model: EmbeddingModel
) -> None:
    values = {"version_id": None, "model_id": embedding_model.model_id}
    with psycopg.connect(fresh.app, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant.tenant_id)])
        (values["version_id"],) = connection.execute("SELECT version_id FROM document_versions").fetchone() or (None,)
        recount = queries("pipeline")["recount"]
        counted = connection.execute(recount, values).fetchone()
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN (ANALYZE) " + recount, values))
    assert counted == (CHUNKS, CHUNKS, 0)
    assert "embeddings_pkey" in plan
    assert "embeddings_by_segment" not in plan
