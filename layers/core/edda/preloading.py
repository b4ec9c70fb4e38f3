"""What the first request would import, imported when an environment is started ahead of it.

On demand, a function imports what it needs where it needs it. Provisioned concurrency and SnapStart keep only what was
loaded with the module: without this, their first request would still pay for half of the cold start. Only modules are
loaded: no client, no connection, no event loop and no random number is there to be wrong when a snapshot is restored.
"""

from collections.abc import Sequence
from importlib import import_module

from edda.settings import Settings, is_started_ahead

DATABASE = ("aioboto3", "edda.adapters.secrets")  # its password comes from Secrets Manager
API = (*DATABASE, "edda.adapters.s3", "edda.store.documents", "edda.store.usage")
SEARCH = (*DATABASE, "edda.searching")
ANSWER = (*SEARCH, "edda.answering")
EMBEDDERS = {
    "openai": "edda.adapters.openai_embedder",
    "bedrock": "edda.adapters.bedrock_embedder",
    "in-process": "edda.adapters.minilm_embedder",
}


def preload(modules: Sequence[str], *, embedder: bool = False, chat: bool = False) -> None:
    """Import these, and the configured models' adapters, if this environment is started ahead; else do nothing."""
    if not is_started_ahead():
        return
    for module in modules:
        import_module(module)
    if embedder:
        settings = Settings.from_environment()
        import_module(EMBEDDERS[settings.embedding_provider])
        if settings.rerank_provider != "none":
            kind = "bedrock" if settings.rerank_provider == "bedrock" else "http"
            import_module(f"edda.adapters.{kind}_reranker")
    if chat and (provider := Settings.from_environment().chat_provider) != "none":
        import_module(f"edda.adapters.{provider}_chat")
