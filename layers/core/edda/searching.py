"""The search verb."""

from dataclasses import dataclass

from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected
from edda.filters import Filter
from edda.models import Hit, Tenant
from edda.ports import Embedder
from edda.store.conditions import compile_filter
from edda.store.database import HalfVector
from edda.store.search import SearchStore
from edda.vectors import to_halfvec_binary


@dataclass(frozen=True, slots=True)
class Searching:
    """The verb of the search function."""

    store: SearchStore
    embedder: Embedder

    async def search(
        self, tenant: Tenant, query: str, top_k: int, filter_: Filter | None, deadline: Deadline
    ) -> list[Hit]:
        """The passages nearest to the query, best first: `top_k` of them, or all that match.

        Raises EmbeddingRejected when the provider refuses the query, ProviderUnavailable, DatabaseUnavailable.
        """
        (vector,) = await self.embedder.embed([query], purpose="query", deadline=deadline)
        if isinstance(vector, EmbeddingRejected):
            raise vector
        half = HalfVector(to_halfvec_binary(vector))
        return await self.store.nearest(tenant.tenant_id, half, compile_filter(filter_), top_k)
