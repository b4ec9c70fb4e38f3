"""Edda: documents in, searchable knowledge out."""
