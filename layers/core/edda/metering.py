"""What embedding costs, counted request by request.

A lease reserves the tokens of its texts in the ledger (`tokens_unsettled`) before anything is paid. Here the outcome of
every request is noted, until a transaction takes the notes over: what was paid, and what of the reservations is settled
by that. Notes are handed out once: where their transaction fails, or where a worker dies with them, the reservation
stands. So `tokens` <= paid <= `tokens` + `tokens_unsettled`, and without faults nothing is unsettled. One thing
escapes: a request that failed, noted by a worker that dies before it writes again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderThrottled
from edda.models import Account, Usage
from edda.ports import Embedder
from edda.store.embed import BatchLease, ContentHash, TextToEmbed
from edda.vectors import WrongDimensions

Charges = dict[Account, Usage]
NOTHING = Usage()


@dataclass(slots=True)
class _Bill:
    """One lease's: what it reserved for texts that were not paid yet, and what is to be written."""

    account: Account
    reserved: dict[ContentHash, int]
    usage: Usage = field(default_factory=Usage)


class Meter:
    """Asks an Embedder and counts, for one tenant's leases. A request counts with the document of its first text."""

    def __init__(self, embedder: Embedder, leases: Iterable[BatchLease]) -> None:
        self._embedder = embedder
        self._bills: dict[tuple[UUID, int], _Bill] = {}
        self._payers: dict[ContentHash, _Bill] = {}  # each text is of one lease
        for lease in leases:
            bill = _Bill(lease.account, {text.content_hash: text.tokens for text in lease.texts})
            self._bills[lease.name] = bill
            self._payers |= dict.fromkeys(bill.reserved, bill)

    async def embed(self, texts: Sequence[TextToEmbed], deadline: Deadline) -> Sequence[bytes | EmbeddingRejected]:
        """One provider request; see Embedder."""
        asked = [text.text for text in texts]
        if not texts or deadline.expired:  # then no request is made
            return await self._embedder.embed(asked, purpose="document", deadline=deadline)
        self._payers[texts[0].content_hash].usage.provider_calls += 1
        try:
            vectors = await self._embedder.embed(asked, purpose="document", deadline=deadline)
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

    def settle(self, leases: Iterable[BatchLease] = ()) -> Charges:
        """What is to be written, handed out once; of these leases also what was reserved and not used."""
        for lease in leases:
            bill = self._bills[lease.name]
            bill.usage.tokens_unsettled -= sum(bill.reserved.values())
            bill.reserved.clear()
        charges: Charges = {}
        for bill in self._bills.values():
            if bill.usage != NOTHING:
                charges.setdefault(bill.account, Usage()).add(bill.usage)
                bill.usage = Usage()
        return charges

    def _paid(self, texts: Sequence[TextToEmbed]) -> None:
        for content_hash, _, tokens in texts:
            bill = self._payers[content_hash]
            bill.usage.tokens += tokens
            bill.usage.tokens_unsettled -= bill.reserved.pop(content_hash, 0)

    def _lost(self, texts: Sequence[TextToEmbed]) -> None:
        self._payers[texts[0].content_hash].usage.provider_calls_lost += 1
        for text in texts:
            self._payers[text.content_hash].usage.tokens_unsettled += text.tokens
