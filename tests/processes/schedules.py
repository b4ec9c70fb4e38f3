"""A random mix of what users do and what goes wrong, from a seed.

The seed decides what is done and what strikes where; how the processes interleave, they decide among themselves.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from edda.s3_events import METADATA_SUFFIX

from tests.fakes import provider_server
from tests.fakes.provider_server import Fault, Reply
from tests.processes import invariants
from tests.processes.labels import Action, Strike
from tests.processes.servers import spoiling
from tests.processes.stack import Stack
from tests.simulation.schedules import HTTPS, POISON
from tests.simulation.schedules import Schedule as SimulatedSchedule
from tests.simulation.violations import Violation

# What each function passes on its usual way.
USUAL = {
    "chunk": [
        "KeyStore.tenant_of_slug", "BucketStore.last_known", "S3ObjectStore.head", "BucketStore.object_is_there",
        "BucketStore.object_is_gone", "IngestStore.claim_version", "BucketStore.set_metadata",
        "IngestStore.refuse_over_cap", "S3ObjectStore.download", "ParserProcess.parse", "IngestStore.save_chunks",
        "IngestStore.unsent_batches", "SqsQueue.send", "IngestStore.mark_sent", "EventStore.claim",
    ],
    "embed": [
        "EmbedStore.claim_batches", "OpenAIEmbedder.embed", "EmbedStore.save",
        "EventStore.claim", "EventBridge.send", "HttpWebhooks.post", "EventStore.settle",
    ],
    "sweep": [
        "KeyStore.all_tenants", "EventStore.claim", "SweepStore.finish_versions", "SweepStore.stuck_versions",
        "SweepStore.stuck_batches", "SweepStore.superseded_versions", "SweepStore.drop_version", "SqsQueue.send",
        "IngestStore.mark_rung", "BucketStore.walk", "S3ObjectStore.page", "BucketStore.known_objects",
        "BucketStore.advance",
    ],
}  # fmt: skip
Telling = Literal["once", "twice", "late", "never"]
Pause = Literal["none", "quiet", "minute"]


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a user does, how S3 tells of it, and how long nothing else is done then."""

    kind: Literal["put", "delete", "metadata", "poison"]
    key: str
    lines: tuple[str, ...]
    telling: Telling
    pause: Pause

    def __str__(self) -> str:
        return f"{self.kind} {self.key} {list(self.lines) or ''} told {self.telling}, then {self.pause}"


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int
    steps: tuple[Step, ...]
    strikes: tuple[tuple[str, Strike], ...]  # with the function they strike
    provider_faults: tuple[str, ...]  # of the first requests
    staff: dict[str, int]
    stopped_for: int  # minutes, at most: then what was stopped goes on
    replayed: bool

    @classmethod
    def drawn(cls, seed: int) -> "Schedule":
        random = Random(f"processes {seed}")
        return cls(
            seed=seed,
            steps=tuple(_steps(random, seed)),
            strikes=tuple(_strike(random) for _ in range(random.randint(2, 5))),
            provider_faults=tuple(random.choices(list(PROVIDER_FAULTS), k=random.choice((0, 0, 1, 2, 3)))),
            staff={"chunk": random.randint(1, 2), "embed": random.randint(1, 2)},
            stopped_for=random.choice((1, 3, 7, 60)),
            replayed=seed % 4 == 0,
        )

    def __str__(self) -> str:
        strikes = [f"  {function}: {strike}" for function, strike in self.strikes]
        rest = f"  provider: {', '.join(self.provider_faults) or 'well'}; {self.staff}; stopped for {self.stopped_for}"
        return "\n".join((*(f"  {step}" for step in self.steps), *strikes, rest))


def _steps(random: Random, seed: int) -> list[Step]:
    """The simulator's users, but for what they do over HTTPS; and some metadata."""
    steps = []
    for operation in SimulatedSchedule.drawn(seed).operations:
        if operation.name.startswith(HTTPS) or operation.kind not in {"put", "delete", "poison"}:
            continue
        key = operation.name if operation.kind == "poison" else f"{operation.tenant}/{operation.name}"
        telling: Telling = random.choices(("once", "twice", "late", "never"), (6, 2, 2, 1))[0]
        pause: Pause = random.choices(("none", "quiet", "minute"), (5, 3, 2))[0]
        step = Step(operation.kind, key, operation.lines, telling, pause)
        steps.append(step)
        if operation.kind == "put" and random.random() < 0.2:
            steps.append(replace(step, kind="metadata", lines=(), pause="none"))
    return steps or [Step("put", "acme/a.txt", ("acme line 1", "acme line 2"), "once", "none")]


def _strike(random: Random) -> tuple[str, Strike]:
    function = random.choices(list(USUAL), (5, 5, 2))[0]
    label = random.choice(USUAL[function])
    action: Action = random.choices(("kill", "stop"), (7, 3))[0]
    return function, Strike(label, random.choice(("before", "after")), random.choice((1, 1, 2, 3)), action)


# --- the provider -----------------------------------------------------------------------------------------------------


def _data(edit: Callable[[list[Any]], Any]) -> Fault:
    """Change the list of vectors, where the good reply has one."""

    def fault(good: Reply) -> Reply:
        body = json.loads(good.body)
        if "data" not in body:
            return good
        edit(body["data"])
        return replace(good, body=json.dumps(body).encode())

    return fault


PROVIDER_FAULTS: dict[str, Fault] = {
    "429": provider_server.throttled(),
    "429 with Retry-After": provider_server.throttled(retry_after="1"),
    "500": provider_server.status(500),
    "reset": provider_server.reset,
    "truncated": provider_server.truncated_to(40),
    "cut off": provider_server.cut_off_after(40),
    "HTML with 200": provider_server.html_page(),
    "too few": _data(list.pop),
    "other order": _data(list.reverse),
    "other dimensions": _data(lambda data: data[0].update(embedding="AAAAAA==")),
    "NaN": spoiling(_data(lambda data: data[0].update(embedding="AADAfwAA" + "A" * 35 + "="))),
    "zero": spoiling(_data(lambda data: data[0].update(embedding="A" * 43 + "="))),
}

# --- running one ------------------------------------------------------------------------------------------------------


def run(schedule: Schedule, stack: Stack) -> None:
    """Raises Violation."""
    stack.begin(schedule.staff)
    stack.provider.script = [PROVIDER_FAULTS[name] for name in schedule.provider_faults]
    for function, strike in schedule.strikes:
        stack.strike(function, strike)
    late = [event for step in schedule.steps for event in _do(step, stack)]
    stack.wait_until_quiet()
    for event in late:
        stack.ingest_queue.send(event)
    stack.wait_until_quiet()
    for _ in range(schedule.stopped_for):
        if not stack.any_stopped or not invariants.unfinished(stack):
            break
        stack.minute()
    while stack.any_stopped:
        stack.resume_all()
        stack.wait_until_quiet()
    stack.settle()
    while stack.any_stopped:  # struck only now
        stack.resume_all()
        stack.wait_until_quiet()
        stack.settle()
    stack.check()
    if schedule.replayed:
        before = invariants.state(stack)
        stack.replay()
        stack.settle()
        if invariants.state(stack) != before:
            raise Violation("N13 replay", "the same events and messages once more have changed something")
        stack.check()


def _do(step: Step, stack: Stack) -> list[str]:
    """The events that are to be told late."""
    tell = step.telling in {"once", "twice"}
    if step.kind == "poison":
        (stack.ingest_queue if step.key == "ingest" else stack.embed_queue).send(POISON)
        return []
    if step.kind == "put":
        event = stack.put(step.key, step.lines, tell=tell)
    elif step.kind == "metadata":
        event = stack.put_metadata(step.key, {"year": 2026}, tell=tell)
    else:
        event = stack.delete(step.key, tell=tell)
        if step.key + METADATA_SUFFIX in stack.history:
            stack.delete(step.key + METADATA_SUFFIX, tell=tell)
    if step.telling == "twice":
        stack.ingest_queue.send(event)
    if step.pause != "none":
        stack.wait_until_quiet()
    if step.pause == "minute":
        stack.minute()
    return [event] if step.telling == "late" else []
