"""A queue in a list."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from edda.ports import QueuedMessage


@dataclass(slots=True)
class FakeQueue:
    """Passes the same contract suite as SQS. `refuses`: bodies it does not take, whatever is tried."""

    messages: list[str] = field(default_factory=list)
    refuses: Callable[[str], bool] = lambda body: False
    delays_s: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)
    _handles: "count[int]" = field(default_factory=count)
    groups: list[str] = field(default_factory=list)  # of every message that was ever taken

    async def send(self, bodies: Sequence[str], group: str = "") -> list[int]:
        taken = [body for body in bodies if not self.refuses(body)]
        self.messages += taken
        self.groups += [group] * len(taken)
        return [index for index, body in enumerate(bodies) if self.refuses(body)]

    async def delay(self, delays_s: Mapping[str, int]) -> None:
        self.delays_s |= delays_s

    async def receive(self) -> list[QueuedMessage]:
        """Ten at a time; what is not removed stays hidden, as for the length of a test it would in SQS."""
        received = [QueuedMessage(body, f"handle-{next(self._handles)}") for body in self.messages[:10]]
        del self.messages[:10]
        self.hidden |= {message.receipt_handle: message.body for message in received}
        return received

    async def remove(self, receipt_handles: Sequence[str]) -> None:
        for handle in receipt_handles:
            self.hidden.pop(handle, None)

    def take(self) -> list[str]:
        """Receive and delete everything."""
        taken, self.messages = self.messages, []
        return taken
