"""The indexing verb: HNSW indexes are built behind the writers' backs."""

from dataclasses import dataclass

from edda.concurrency import Deadline
from edda.index_ranges import Policy
from edda.store.indexing import IndexStore


@dataclass(frozen=True, slots=True)
class Indexing:
    """The verb of the schedule."""

    store: IndexStore
    policy: Policy

    async def index(self, deadline: Deadline) -> dict[str, int]:
        """Build and merge until nothing is left to do or the time is up; how many indexes were built and dropped.

        Nothing, if another does so now. A build that outlives its caller goes on in the server.
        """
        built = dropped = 0
        async with self.store.alone() as connection:
            while connection is not None:
                dropped += await self.store.drop_leftovers(connection)
                if deadline.expired or not await self.store.build_next(connection, self.policy):
                    break
                built += 1
        return {"indexes_built": built, "indexes_dropped": dropped}
