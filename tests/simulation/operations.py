"""What users do in a schedule: put, delete and erase objects, call the API until it answers, search."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any
from uuid import UUID

from edda.documents import Description, Documents
from edda.errors import QuotaExceeded
from edda.models import Hit, Tenant
from edda.s3_events import METADATA_SUFFIX
from edda.store.conditions import compile_filter
from edda.store.database import HalfVector
from edda.store.search import SearchStore
from edda.terms import query_terms
from edda.vectors import from_floats, to_halfvec_binary

from tests.simulation.database import MODEL_DIMENSIONS
from tests.simulation.provider import vector_of
from tests.simulation.schedules import HTTPS, POISON, Operation
from tests.simulation.violations import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

API_TIMEOUT_S = 29  # as in template.yaml
MOST_TRIES = 60  # of a client: a zombie may hold a lock for 15 minutes


class Users:
    """The clients of one schedule."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._documents: dict[tuple[str, str], UUID] = {}  # by tenant and name, once the API has said so
        self.deleted: set[str] = set()  # documents, once the API has said so

    async def do(self, operation: Operation) -> None:
        world = self._world
        if operation.kind == "search":
            await self.search(world.tenants[operation.tenant])
        elif operation.kind == "poison":
            (world.ingest_queue if operation.name == "ingest" else world.embed_queue).add(POISON)
        elif operation.name.startswith(HTTPS):
            await self._over_https(operation)
        elif operation.kind == "erase":
            world.bucket.erase_old_versions(f"{operation.tenant}/{operation.name}")
        elif operation.kind == "undo":
            world.bucket.erase_newest_version(f"{operation.tenant}/{operation.name}")
        elif operation.kind == "describe":
            if not world.bucket.versioned:
                return  # a metadata file that is read while it is replaced would never be read again
            key = f"{operation.tenant}/{operation.name}{METADATA_SUFFIX}"
            if operation.lines or key in world.bucket.history:
                world.bucket.add(key, operation.lines[0].encode() if operation.lines else None)
        else:
            body = "\n".join(operation.lines).encode() if operation.kind == "put" else None
            world.bucket.add(f"{operation.tenant}/{operation.name}", body)

    async def _over_https(self, operation: Operation) -> None:
        """A client that does not give up: the same request until it is answered."""
        tenant = self._world.tenants[operation.tenant]
        idempotency_key = f"{operation.at_s}"
        name = f"{operation.name}{operation.at_s:.3f}"
        if operation.kind == "delete":
            mine = [known for known in self._documents if known[0] == operation.tenant]
            for document_id in [self._documents.pop(known) for known in mine]:
                await self._try(lambda api: api.delete(tenant, document_id))  # noqa: B023 - awaited at once
                self.deleted.add(str(document_id))
            return
        description = Description(name, None, (), {})
        body = "\n".join(operation.lines).encode()
        view = await self._try(lambda api: api.upload(tenant, description, body, "text/plain", idempotency_key))
        if view is not None:
            self._documents[operation.tenant, name] = view.document_id

    async def _try(self, call: Callable[[Documents], Coroutine[Any, Any, Any]]) -> Any:
        for _ in range(MOST_TRIES):
            environment = self._world.environment("api")
            environment.error = None
            answer = await self._world.run_in(environment, call(environment.services.documents()), API_TIMEOUT_S)
            self._world.give_back(environment)
            if isinstance(environment.error, QuotaExceeded) and self._world.tokens_per_day is not None:
                return None
            if environment.error is None and not environment.dead:
                return answer
            await asyncio.sleep(self._world.random.uniform(1, 20))
        raise Violation("N3 liveness", f"the API did not answer {MOST_TRIES} times")

    async def search(self, tenant: Tenant) -> None:
        environment = self._world.environment("search")
        store = SearchStore(environment.database, self._world.database.model)
        vector = HalfVector(to_halfvec_binary(from_floats(vector_of("a question"), MODEL_DIMENSIONS)))
        deleted = set(self.deleted)
        terms = query_terms("a question, line 3")

        async def find() -> list[Hit]:
            found = await store.candidates(tenant.tenant_id, vector, terms, compile_filter(None), 1000)
            # By words also those are found that have no vector: the provider refused them.
            return await store.hits(tenant.tenant_id, [one for one in found if one.similarity is not None])

        hits = await self._world.run_in(environment, find(), API_TIMEOUT_S)
        self._world.give_back(environment)
        if hits is not None:
            self._world.observer.searched(tenant, hits, deleted)
