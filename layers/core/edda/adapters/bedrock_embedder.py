"""Embeddings from Amazon Bedrock: Titan Text Embeddings V2 (one text a call) and Cohere Embed 3 and 4 (up to 96)."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import aioboto3

from edda.adapters.bedrock_client import BedrockClient
from edda.adapters.usual_time import UsualTime
from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderUnavailable
from edda.models import EmbeddingLimits
from edda.vectors import InvalidVector, from_floats

Purpose = Literal["document", "query"]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one maker are spoken to."""

    pattern: str  # found in the model id, which may also be an inference profile or an ARN
    dimensions: frozenset[int]
    limits: EmbeddingLimits
    body: Callable[[Sequence[str], Purpose, int], Body]
    vectors: Callable[[Any], list[Any]]


def _titan_body(texts: Sequence[str], _: Purpose, dimensions: int) -> Body:
    (text,) = texts
    return {"inputText": text, "dimensions": dimensions, "normalize": True}


def _cohere_3_body(texts: Sequence[str], purpose: Purpose, _: int) -> Body:
    return {
        "texts": list(texts),
        "input_type": f"search_{purpose}",
        "embedding_types": ["float"],
        "truncate": "NONE",  # an error that is seen, rather than half a text without a word
    }


def _cohere_4_body(texts: Sequence[str], purpose: Purpose, dimensions: int) -> Body:
    return {**_cohere_3_body(texts, purpose, dimensions), "output_dimension": dimensions}


def _titan_vectors(answer: Any) -> list[Any]:
    return [answer["embedding"]]


def _cohere_vectors(answer: Any) -> list[Any]:
    embeddings = answer["embeddings"]
    return list(embeddings["float"] if isinstance(embeddings, Mapping) else embeddings)


FAMILIES = (
    Family(
        pattern="titan-embed-text-v2",
        dimensions=frozenset({256, 512, 1024}),
        # The quota counts requests (2,000 a minute and more): at 100 ms a call, 32 in flight use up to 19,000.
        limits=EmbeddingLimits(1, 8_192, 8_192, 32),
        body=_titan_body,
        vectors=_titan_vectors,
    ),
    Family(
        pattern=r"cohere\.embed-(english|multilingual)-v3",
        dimensions=frozenset({1024}),
        # 512 tokens a text, and besides 2,048 characters: texts above either are rejected.
        limits=EmbeddingLimits(96, 96 * 512, 512, 8),
        body=_cohere_3_body,
        vectors=_cohere_vectors,
    ),
    Family(
        pattern=r"cohere\.embed-v4",
        dimensions=frozenset({256, 512, 1024, 1536}),
        limits=EmbeddingLimits(96, 128_000, 128_000, 8),
        body=_cohere_4_body,
        vectors=_cohere_vectors,
    ),
)

LAMBDAS_LONGEST_S = 900


class BedrockEmbedder:
    """InvokeModel on bedrock-runtime.

    Raises ProviderMisconfigured for a model or a number of dimensions that is not known here.
    """

    def __init__(
        self,
        session: aioboto3.Session,
        model_id: str,
        dimensions: int,
        *,
        endpoint_url: str | None = None,
        limits: EmbeddingLimits | None = None,
        connect_timeout_s: float = 3.0,
        silence_s: float = 60.0,
    ) -> None:
        self._family = _family_of(model_id, dimensions)
        self.name = f"bedrock/{model_id}"
        self.dimensions = dimensions
        self.limits = limits or self._family.limits
        self._model_id = model_id
        self._usual_time = UsualTime(silence_s)
        self._bedrock = BedrockClient(
            session,
            "bedrock-runtime",
            EmbeddingRejected,
            setting="dimension",
            endpoint_url=endpoint_url,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=LAMBDAS_LONGEST_S,  # it is `UsualTime` that bounds a request
            max_connections=self.limits.max_concurrent_requests,
        )

    async def embed(
        self, texts: Sequence[str], *, purpose: Purpose, deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        if not texts:
            return []
        body = json.dumps(self._family.body(texts, purpose, self.dimensions))
        async with self._bedrock.asked(deadline) as client:
            async with self._usual_time.patience(len(body), deadline) as wait:
                response = await client.invoke_model(
                    modelId=self._model_id, body=body, contentType="application/json", accept="application/json"
                )
                async with response["body"] as stream:
                    answer: bytes = await stream.read()
            self._usual_time.answered(wait)
            return self._vectors(answer, len(texts))

    async def aclose(self) -> None:
        await self._bedrock.aclose()

    def _vectors(self, answer: bytes, count: int) -> list[bytes | EmbeddingRejected]:
        vectors = self._family.vectors(json.loads(answer))
        if len(vectors) != count:
            raise ProviderUnavailable("Bedrock returned other vectors than were asked for.")
        return [self._vector(values) for values in vectors]

    def _vector(self, values: Any) -> bytes | EmbeddingRejected:
        try:
            return from_floats(values or (), self.dimensions)
        except InvalidVector as invalid:
            return invalid


def _family_of(model_id: str, dimensions: int) -> Family:
    for family in FAMILIES:
        if re.search(family.pattern, model_id):
            if dimensions in family.dimensions:
                return family
            offered = ", ".join(str(each) for each in sorted(family.dimensions))
            raise ProviderMisconfigured(f"{model_id} has vectors of {offered} dimensions, not {dimensions}.")
    raise ProviderMisconfigured(f"{model_id} is not a Bedrock embedding model that Edda knows.")
