-- Apart from the column: searches go on while it is made.
CREATE INDEX document_versions_terms_anew ON document_versions (tenant_id, terms_from)
    WHERE terms_from IS NOT NULL AND status IN ('ready', 'partial');
