"""The adapters of models, as the settings name them: a part of the composition root."""

from edda.adapters.aws import AwsClients
from edda.concurrency import Deadline
from edda.errors import ProviderMisconfigured
from edda.models import ChatReply, ChatRequest
from edda.ports import ChatModel, Embedder, Reranker
from edda.settings import Settings


def model_name(settings: Settings) -> str:
    """How a model is named in the database: another provider's model of the same name is another model."""
    return f"{settings.embedding_provider}/{settings.embedding_model}"


async def build_embedder(settings: Settings, clients: AwsClients) -> Embedder:
    """The configured provider's adapter. Raises ProviderMisconfigured when settings do not fit together."""
    model, dimensions = settings.embedding_model, settings.embedding_dimensions
    if settings.embedding_provider == "openai":
        from edda.adapters.openai_embedder import OpenAIEmbedder

        return OpenAIEmbedder(
            settings.provider_base_url, model, dimensions, await _key(settings, clients, "provider_api_key")
        )
    if settings.embedding_provider == "bedrock":
        import aioboto3

        from edda.adapters.bedrock_embedder import BedrockEmbedder

        return BedrockEmbedder(aioboto3.Session(), model, dimensions)
    from edda.adapters.minilm_embedder import MiniLMEmbedder

    embedder = MiniLMEmbedder()
    if embedder.name != model_name(settings) or embedder.dimensions != dimensions:
        raise ProviderMisconfigured(f"The in-process model is {embedder.name}, {embedder.dimensions} dimensions.")
    return embedder


async def build_reranker(settings: Settings, clients: AwsClients) -> Reranker | None:
    """The configured reranker's adapter, None if there is none. Raises ProviderMisconfigured as above."""
    if settings.rerank_provider == "none":
        return None
    if settings.rerank_provider == "bedrock":
        import aioboto3

        from edda.adapters.bedrock_reranker import BedrockReranker

        return BedrockReranker(aioboto3.Session(), settings.rerank_model)
    from edda.adapters.http_reranker import HttpReranker

    key = await _key(settings, clients, "rerank_api_key")
    return HttpReranker(settings.rerank_provider, settings.rerank_model, key, base_url=settings.rerank_base_url)


class LateChat:
    """The configured chat model, built for its first reply: settings that do not fit together, or a secret without a
    key, cost an answer its model and not the answer."""

    def __init__(self, settings: Settings, clients: AwsClients) -> None:
        self.name = f"{settings.chat_provider}/{settings.chat_model}"
        self._settings, self._clients = settings, clients
        self._chat: ChatModel | None = None

    async def reply(self, request: ChatRequest, deadline: Deadline) -> ChatReply:
        if self._chat is None:
            try:
                self._chat = await _build_chat(self._settings, self._clients)
            except (KeyError, ValueError, AttributeError) as error:
                raise ProviderMisconfigured("The chat provider's secret holds no key.") from error
        return await self._chat.reply(request, deadline)

    async def aclose(self) -> None:
        if self._chat is not None:
            await self._chat.aclose()


def build_chat(settings: Settings, clients: AwsClients) -> ChatModel | None:
    """The configured chat model, None if there is none."""
    return None if settings.chat_provider == "none" else LateChat(settings, clients)


async def _build_chat(settings: Settings, clients: AwsClients) -> ChatModel:
    if settings.chat_provider == "bedrock":
        import aioboto3

        from edda.adapters.bedrock_chat import BedrockChat

        return BedrockChat(aioboto3.Session(), settings.chat_model)
    from edda.adapters.openai_chat import OpenAIChat

    key = await _key(settings, clients, "chat_api_key")
    return OpenAIChat(settings.chat_base_url, settings.chat_model, key)


async def _key(settings: Settings, clients: AwsClients, name: str) -> str:
    """A key by the name of its setting: from its secret, or as it stands there for a local run."""
    from edda.adapters.secrets import SecretsManager

    arn: str = getattr(settings, f"{name}_secret_arn")
    if not arn:
        key: str = getattr(settings, name)
        return key
    secret = await SecretsManager(clients).read(arn)
    return secret.get("api_key") or secret["value"]
