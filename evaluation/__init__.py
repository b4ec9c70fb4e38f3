"""Measures retrieval on judged questions. Not deployed."""
