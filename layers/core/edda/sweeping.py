"""Whatever was lost, stuck or superseded is found in the database and driven to an end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from edda.concurrency import Deadline
from edda.delivering import Delivery
from edda.errors import EddaError
from edda.messages import IngestVersion, Message
from edda.models import Tenant
from edda.ports import Queue
from edda.store.ingest import IngestStore
from edda.store.keys import KeyStore
from edda.store.sweep import Patience, SweepStore

DELIVER_S = 20.0  # of a sweep's 52: slow receivers must not keep lost work from being found


class AttemptsExhausted(EddaError):
    """The work was begun again and again and never came to an end."""

    code = "attempts_exhausted"
    default_message = "Processing was tried several times and never came to an end; an operator should look."


@dataclass(frozen=True, slots=True)
class Sweep:
    """The verb of the sweep function."""

    store: SweepStore
    ingest_store: IngestStore
    keys: KeyStore
    ingest_queue: Queue
    embed_queue: Queue
    patience: Patience = field(default_factory=Patience)
    delivery: Delivery | None = None

    async def sweep(self, deadline: Deadline) -> dict[str, int]:
        """One round over all tenants. What was done, by kind. Running twice at once does no harm."""
        done: Counter[str] = Counter()
        if self.delivery is not None:
            done.update(await self.delivery.deliver_all(deadline.sooner(DELIVER_S)))
        for tenant in await self.keys.all_tenants():
            if deadline.expired:
                break
            await self._sweep_tenant(tenant, done)
        return dict(done)

    async def _sweep_tenant(self, tenant: Tenant, done: Counter[str]) -> None:
        done["versions_finished"] += await self.store.finish_versions(tenant.tenant_id, self.patience.grace_s)
        await self._ring_for_versions(tenant, done)
        await self._ring_for_batches(tenant, done)
        done["versions_dropped"] += await self.store.drop_superseded(tenant.tenant_id)

    async def _ring_for_versions(self, tenant: Tenant, done: Counter[str]) -> None:
        messages = []
        for version_id, exhausted in await self.store.stuck_versions(tenant.tenant_id, self.patience):
            if not exhausted:
                messages.append(IngestVersion(tenant_id=tenant.tenant_id, version_id=version_id))
            else:
                done["given_up"] += await self.store.give_up(tenant.tenant_id, version_id, AttemptsExhausted())
        failed = set(await _send(self.ingest_queue, messages, tenant))
        sent = [message.version_id for index, message in enumerate(messages) if index not in failed]
        if sent:
            await self.store.mark_rung(tenant.tenant_id, sent)
        done["versions_rung"] += len(sent)

    async def _ring_for_batches(self, tenant: Tenant, done: Counter[str]) -> None:
        batches = []
        for batch, exhausted in await self.store.stuck_batches(tenant.tenant_id, self.patience):
            if not exhausted:
                batches.append(batch)
            else:
                done["given_up"] += await self.store.give_up(tenant.tenant_id, batch.version_id, AttemptsExhausted())
        failed = set(await _send(self.embed_queue, batches, tenant))
        for index, batch in enumerate(batches):
            if index not in failed:
                await self.ingest_store.mark_sent(tenant.tenant_id, batch.version_id, [batch.first_ordinal])
        done["batches_rung"] += len(batches) - len(failed)


async def _send(queue: Queue, messages: Sequence[Message], tenant: Tenant) -> list[int]:
    bodies = [message.model_dump_json() for message in messages]
    return await queue.send(bodies, group=str(tenant.tenant_id)) if bodies else []
