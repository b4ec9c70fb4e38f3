"""The indexing verb: HNSW indexes are built behind the writers' backs."""

import asyncio
from dataclasses import dataclass

from edda.concurrency import Deadline
from edda.index_ranges import Build, Policy
from edda.store.indexing import Connection, IndexStore


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
                due = None if deadline.expired else await self.store.due(connection, self.policy)
                if due is None or (due.build.is_merge and not await self._is_calm(connection, due.build)):
                    break
                await self.store.create(connection, due, self.policy)
                built += 1
        return {"indexes_built": built, "indexes_dropped": dropped}

    async def _is_calm(self, connection: Connection, merge: Build) -> bool:
        if not self.policy.watch_s:
            return True
        before = await self.store.numbers(connection)
        await asyncio.sleep(self.policy.watch_s)
        rows_a_second = (await self.store.numbers(connection) - before) / self.policy.watch_s
        return merge.may_take_its_time_at(rows_a_second, self.policy)
