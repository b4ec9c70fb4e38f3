"""What embedding costs, counted request by request.

A lease reserves the tokens of its texts in the ledger (`tokens_unsettled`) before anything is paid. Here the outcome of
every request is noted, until a transaction takes the notes over: what was paid, and what of the reservations is settled
by that. Notes are handed out once: where their transaction fails, or where a worker dies with them, the reservation
stands. So `tokens` <= paid <= `tokens` + `tokens_unsettled`, and without faults nothing is unsettled. One thing
escapes: a request that failed, noted by a worker that dies before it writes again.
"""

from collections.abc import Iterable, Sequence
from uuid import UUID

from edda.concurrency import Deadline
from edda.errors import EmbeddingRejected, ProviderMisconfigured, ProviderThrottled
from edda.models import Account, Usage
from edda.ports import Embedder
from edda.store.embed import BatchLease, ContentHash, TextToEmbed
from edda.vectors import WrongDimensions

Charges = dict[Account, Usage]


class Meter:
    """Asks an Embedder and counts, for one tenant's leases. A request counts with the document of its first text."""

    def __init__(self, embedder: Embedder, leases: Iterable[BatchLease]) -> None:
        self._embedder = embedder
        self._payers: dict[ContentHash, BatchLease] = {}  # each text is of one lease
        self._reserved: dict[tuple[UUID, int], dict[ContentHash, int]] = {}
        self._notes: Charges = {}
        for lease in leases:
            self._reserved[lease.name] = {text.content_hash: text.tokens for text in lease.texts}
            self._payers |= dict.fromkeys(self._reserved[lease.name], lease)

    async def embed(self, texts: Sequence[TextToEmbed], deadline: Deadline) -> Sequence[bytes | EmbeddingRejected]:
        """One provider request; see Embedder."""
        asked = [text.text for text in texts]
        if not texts or deadline.expired:  # then no request is made
            return await self._embedder.embed(asked, purpose="document", deadline=deadline)
        self._of(texts[0]).provider_calls += 1
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
        """The notes, handed out once; of these leases also what was reserved and not used."""
        for lease in leases:
            unused = sum(self._reserved.pop(lease.name, {}).values())
            self._notes.setdefault(lease.account, Usage()).tokens_unsettled -= unused
        notes, self._notes = self._notes, {}
        return notes

    def _paid(self, texts: Sequence[TextToEmbed]) -> None:
        for text in texts:
            usage = self._of(text)
            usage.tokens += text.tokens
            reserved = self._reserved.get(self._payers[text.content_hash].name)
            if reserved is not None:
                usage.tokens_unsettled -= reserved.pop(text.content_hash, 0)

    def _lost(self, texts: Sequence[TextToEmbed]) -> None:
        self._of(texts[0]).provider_calls_lost += 1
        for text in texts:
            self._of(text).tokens_unsettled += text.tokens

    def _of(self, text: TextToEmbed) -> Usage:
        account = self._payers[text.content_hash].account
        usage = self._notes.get(account)
        if usage is None:
            usage = self._notes[account] = Usage()
        return usage
