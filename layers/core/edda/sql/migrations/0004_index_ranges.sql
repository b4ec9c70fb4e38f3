-- HNSW indexes that are built afterwards, each over a range of segments: docs/architecture.md, "Search".

-- Every vector gets the next number, and a segment is a thousand of them in the order of writing. Numbers that nobody used
-- (a text that was there already) are lost.
CREATE SEQUENCE embedding_numbers;
GRANT USAGE ON SEQUENCE embedding_numbers TO edda_app;
ALTER TABLE embeddings ADD COLUMN segment integer NOT NULL DEFAULT (nextval('embedding_numbers') / 1024);

-- A tenant's vectors of some segments, for those that no HNSW index covers yet. Equal keys are stored once. It is for what
-- asks by segments only, hence the condition: a vector that is looked up by its text must never be sought among all of a
-- tenant's, which a planner without statistics thinks as good.
CREATE INDEX embeddings_by_segment ON embeddings (tenant_id, model_id, segment) WHERE segment >= 0;
