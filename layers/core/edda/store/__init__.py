"""Postgres, which holds the truth. One method is one transaction, and a write may be repeated.

There is no port in front of it: it has no second implementation and is never faked, so the verbs use it as it is.
The SQL lives in `edda/sql/*.sql`, each query under a name.
"""
