"""What embedding costs, counted request by request.

A lease reserves the tokens of its texts in the ledger (`tokens_unsettled`) before anything is paid. Here the outcome of
every request is noted, until a transaction takes the notes over: what was paid, and what of the reservations is settled
by that. Notes are handed out once: where their transaction fails, or where a worker dies with them, the reservation
stands. So `tokens` <= paid <= `tokens` + `tokens_unsettled`, and without faults nothing is unsettled. One thing
escapes: a request that failed, noted by a worker that dies before it writes again.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderThrottled
from edda.models import Account, EmbeddingLimits, Usage
from edda.ports import Embedder
from edda.store.embed import BatchLease
from edda.vectors import WrongDimensions

Charges = dict[Account, Usage]


class _Payer(NamedTuple):
    """Whose text it is: the first lease that named it. Equal texts are paid for once."""

    lease: tuple[UUID, int]
    account: Account
    content_hash: UUID
    tokens: int


class Meter:
    """An Embedder that counts, for the leases of one tenant. A request counts with the document of its first text."""

    def __init__(self, embedder: Embedder, leases: Iterable[BatchLease]) -> None:
        self._embedder = embedder
        self._payers: dict[str, _Payer] = {}
        self._reserved: dict[tuple[UUID, int], dict[UUID, int]] = {}
        self._notes: Charges = {}
        for lease in leases:
            self._reserved[lease.name] = {text.content_hash: text.tokens for text in lease.texts}
            for text in lease.texts:
                self._payers.setdefault(text.text, _Payer(lease.name, lease.account, text.content_hash, text.tokens))

    @property
    def name(self) -> str:
        return self._embedder.name

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    @property
    def limits(self) -> EmbeddingLimits:
        return self._embedder.limits

    async def embed(
        self, texts: Sequence[str], *, purpose: Literal["document", "query"], deadline: Deadline
    ) -> Sequence[bytes | EmbeddingRejected]:
        if not texts or deadline.expired:  # then no request is made
            return await self._embedder.embed(texts, purpose=purpose, deadline=deadline)
        self._of(texts[0]).provider_calls += 1
        try:
            vectors = await self._embedder.embed(texts, purpose=purpose, deadline=deadline)
        except WrongDimensions:
            self._lost(texts)
            raise
        except (ProviderThrottled, EmbeddingRejected, ProviderMisconfigured):
            raise  # refused: nothing was embedded, so nothing is paid
        except BaseException:  # cut off, unreadable, or cancelled in the middle: the provider alone knows
            self._lost(texts)
            raise
        self._paid(texts)
        return vectors

    async def aclose(self) -> None:
        await self._embedder.aclose()

    def settle(self, leases: Iterable[BatchLease] = ()) -> Charges:
        """The notes, handed out once; of these leases also what was reserved and not used."""
        for lease in leases:
            unused = sum(self._reserved.pop(lease.name, {}).values())
            self._notes.setdefault(lease.account, Usage()).tokens_unsettled -= unused
        notes, self._notes = self._notes, {}
        return notes

    def _paid(self, texts: Sequence[str]) -> None:
        for text in texts:
            payer, usage = self._payers[text], self._of(text)
            usage.tokens += payer.tokens
            usage.tokens_unsettled -= self._reserved.get(payer.lease, {}).pop(payer.content_hash, 0)

    def _lost(self, texts: Sequence[str]) -> None:
        self._of(texts[0]).provider_calls_lost += 1
        for text in texts:
            self._of(text).tokens_unsettled += self._payers[text].tokens

    def _of(self, text: str) -> Usage:
        return self._notes.setdefault(self._payers[text].account, Usage())
