"""A queue in a list."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class FakeQueue:
    """Passes the same contract suite as SQS. `refuses`: bodies it does not take, whatever is tried."""

    messages: list[str] = field(default_factory=list)
    refuses: Callable[[str], bool] = lambda body: False
    delays_s: dict[str, int] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)  # of every message that was ever taken

    async def send(self, bodies: Sequence[str], group: str = "") -> list[int]:
        taken = [body for body in bodies if not self.refuses(body)]
        self.messages += taken
        self.groups += [group] * len(taken)
        return [index for index, body in enumerate(bodies) if self.refuses(body)]

    async def delay(self, delays_s: Mapping[str, int]) -> None:
        self.delays_s |= delays_s

    def take(self) -> list[str]:
        """Receive and delete everything."""
        taken, self.messages = self.messages, []
        return taken
