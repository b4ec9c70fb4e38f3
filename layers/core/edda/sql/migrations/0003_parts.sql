-- A long file is parsed in parts, each committed with how far parsing has got: whoever goes on begins there.

ALTER TABLE document_versions
    ADD parsed_chunks integer NOT NULL DEFAULT 0,      -- of the parts that are stored
    ADD parse_state   jsonb,                           -- the parser's own, where the next part begins; NULL: at the start
    ADD parted_at     timestamptz;                     -- when the last part but the final one was stored
