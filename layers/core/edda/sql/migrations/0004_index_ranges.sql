-- HNSW indexes that are built afterwards, each over a range of segments: docs/architecture.md, "Search".

-- Every vector gets the next number, and a segment is a thousand of them in the order of writing. Numbers that nobody used
-- (a text that was there already) are lost.
CREATE SEQUENCE embedding_numbers;
GRANT USAGE ON SEQUENCE embedding_numbers TO edda_app;
ALTER TABLE embeddings ADD COLUMN segment integer NOT NULL DEFAULT (nextval('embedding_numbers') / 1024);

-- A tenant's vectors of some segments, for those that no HNSW index covers yet. Equal keys are stored once. The sum keeps
-- it from standing in for the primary key, which a planner without statistics takes to be no better.
CREATE INDEX embeddings_by_segment ON embeddings ((model_id + 0), tenant_id, segment);
