"""A file of five parts, a clock that goes on while one is parsed, and what may happen meanwhile."""

from collections.abc import Callable

from edda.concurrency import Deadline
from edda.messages import IngestVersion
from edda.s3_events import object_changes

from tests.database.world import Record, World

LINES = [f"line {number:03}" for number in range(50)]
TEXT = "\n".join(LINES)
PARTS = 5


class Clock:
    """Time goes on only while a part is parsed: ten seconds each."""

    def __init__(self, world: World) -> None:
        self.now_s = 0.0
        world.parser.meanwhile = self.tick

    async def tick(self) -> None:
        self.now_s += 10

    def deadline(self, seconds: float) -> Deadline:
        return Deadline.after(seconds, self)

    def __call__(self) -> float:
        return self.now_s


async def begin(world: World, record: Record, deadline: Deadline) -> None:
    """The chunk function hears of this change."""
    (change,) = object_changes({"Records": [record]})
    await world.ingestion.object_changed(change, deadline)


def the_version(world: World) -> IngestVersion:
    """What to say to the chunk function so that it goes on."""
    ((version_id,),) = world.rows("SELECT version_id FROM document_versions")
    return IngestVersion(tenant_id=world.tenant_id, version_id=version_id)


def stored(world: World) -> int:
    return int(world.rows("SELECT count(*) FROM chunks")[0][0])


def at_part(world: World, number: int, then: Callable[[], None]) -> None:
    """Something happens when this part, from 1, is about to be parsed; the parts before it are stored."""

    async def look() -> None:
        if stored(world) == (number - 1) * len(LINES) // PARTS:
            world.parser.meanwhile = None
            then()

    world.parser.meanwhile = look


def fail_with(world: World, error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail
