"""Who takes part, and where what they wrote can be found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"


@dataclass(frozen=True, slots=True)
class Contestant:
    """`rows` is a query for (text, vector) of all that it stored."""

    name: str
    variant: str
    command: Sequence[str]
    rows: str
    database: str = "table"  # what it finds: Edda's schema, a plain table, or nothing
    most_chunks: int | None = None  # the slow ones take part with fewer: their rate does not depend on the number
    index: str = (
        "CREATE INDEX ON chunks USING hnsw (embedding vector_cosine_ops)"  # made before its turn; '': by itself
    )

    @property
    def title(self) -> str:
        return f"{self.name}/{self.variant}"

    @property
    def missing(self) -> str | None:
        """Why it cannot take part."""
        mark = PEERS / self.name / ("node_modules" if self.name == "node" else ".venv/.ready")
        return None if self.name in OWN or mark.exists() else "not installed: make bench-setup says why"


OWN = {"edda", "reference"}  # these run in the project's own environment
EDDA_PYTHON = str(ROOT / ".venv" / "bin" / "python")
PLAIN = "SELECT text, embedding FROM chunks"


def _python(peer: str) -> Sequence[str]:
    return str(PEERS / peer / ".venv" / "bin" / "python"), str(PEERS / peer / "run.py")


def _edda(variant: str) -> Contestant:
    rows = (
        "SELECT c.text, e.vector FROM chunks c JOIN embeddings e USING (tenant_id, content_hash) "
        "JOIN documents d ON d.current_version_id = c.version_id JOIN document_versions v USING (version_id) "
        "WHERE v.status = 'ready'"
    )
    command = EDDA_PYTHON, "-m", "benchmarks.edda"
    return Contestant("edda", variant, command, rows, "edda", index="")


CONTESTANTS = {
    contestant.title: contestant
    for contestant in (
        _edda("deployed"),
        _edda("one-environment"),
        _edda("one-event"),
        _edda("with-chunks"),
        # No peer, but what the tests of the harness compare with.
        Contestant("reference", "plain", (EDDA_PYTHON, str(PEERS / "reference" / "run.py")), PLAIN),
        # The startup: one request a chunk, all at once, one flush through an ORM.
        Contestant("node", "startup", ("node", str(PEERS / "node" / "startup.mjs")), PLAIN),
        Contestant("node", "ideal", ("node", str(PEERS / "node" / "ideal.mjs")), PLAIN),
        # What it left: Django, one request after another.
        Contestant("synchronous", "users", _python("synchronous"), PLAIN, most_chunks=100),
        Contestant("synchronous", "tuned", _python("synchronous"), PLAIN),
        *(
            Contestant(
                "llamaindex",
                variant,
                _python("llamaindex"),
                "SELECT text, embedding FROM data_benchmark",
                "empty",
                most_chunks=most,
                index="",
            )
            for variant, most in (("users", 500), ("tuned", 5000))
        ),
        *(
            Contestant(
                "langchain",
                variant,
                _python("langchain"),
                "SELECT document, embedding FROM langchain_pg_embedding",
                "empty",
                most_chunks=most,
                index="",
            )
            for variant, most in (("users", 5000), ("tuned", 5000))
        ),
        *(
            Contestant(
                "pgai",
                variant,
                _python("pgai"),
                "SELECT chunk, embedding FROM benchmark_embedding_store",
                "empty",
                most_chunks=most,
                index="",
            )
            for variant, most in (("users", 2000), ("tuned", 5000))
        ),
    )
}
