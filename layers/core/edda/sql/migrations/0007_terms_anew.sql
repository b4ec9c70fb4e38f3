-- Terms that are to be made anew: docs/architecture.md, "Search".

-- From which chunk of a version on; null: none. What is made of a file begins at 0, and is null when its last part is
-- stored, unless the document's title changed meanwhile, which makes it -1, as is what earlier releases stored.
ALTER TABLE document_versions ADD COLUMN terms_from integer DEFAULT -1;
ALTER TABLE document_versions ALTER COLUMN terms_from SET DEFAULT 0;
