"""What happens in one schedule: what users do, and what goes wrong. Both follow from the seed.

A fault names a site (a kind of place where something can go wrong) and the how-manieth passage of that site it strikes.
So a schedule stays the same schedule when some of its faults or operations are left out, which is how it is shrunk.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

TENANTS = ("acme", "globex")
# Marks within a line of a document: the provider refuses it, the parser says so, the parser takes the worker along.
REFUSED, CORRUPT, DEADLY = "(refused)", "(corrupt)", "(deadly)"
POISON = '{"poison": "\\ud83d"'  # a message that is no JSON
MAX_CHUNKS = 12
NAMES = ("a.txt", "b.txt", "folder/ü +&c.txt")
HTTPS = "https:"  # before a name: the document comes through the API


@dataclass(frozen=True, slots=True)
class Operation:
    """What a user does at some time. `name` is that of a document, or of a poison message's queue.

    `erase` deletes all versions of an object for good but the newest, as a lifecycle rule does; `undo` deletes the
    newest for good, so that the one before it is the newest again. `describe` puts the metadata file beside an object,
    or deletes it (without lines).
    """

    kind: Literal["put", "delete", "erase", "undo", "describe", "search", "poison"]
    at_s: float
    tenant: str
    name: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.at_s:7.1f} s  {self.kind} {self.tenant}/{self.name} {list(self.lines) or ''}"


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` strikes the `at`-th passage of its site; `amount` is seconds where that means something."""

    kind: str
    at: int
    amount: float

    @property
    def site(self) -> str:
        return SITE_OF[self.kind]

    def __str__(self) -> str:
        return f"{self.kind} at {self.site} {self.at}" + (f", {self.amount:.0f} s" if self.kind in AMOUNTS else "")


# site: its kinds with their weights, and about how many passages a schedule has.
SITES: dict[str, tuple[int, dict[str, int]]] = {
    # S3 tells of a change.
    "event": (6, {"event_duplicated": 3, "event_delayed": 4, "event_lost": 6}),
    # SendMessageBatch takes one entry.
    "send": (4, {"send_failed": 3, "send_omitted": 3, "send_refused": 1, "send_answer_lost": 2}),
    # The event source mapping gets messages.
    "receive": (12, {"message_duplicated": 4, "throttled": 3, "message_lost": 3}),
    # ... and deletes one that was handled.
    "acknowledge": (8, {"acknowledgement_lost": 4}),
    # A step of a function: a statement, or a call of a service.
    "step": (250, {"killed": 8, "zombie": 5, "frozen": 3}),
    # A function begins a transaction, and holds no lock yet: it falls asleep, and wakes up when another one is at it.
    "begin": (60, {"overtaken": 4, "overtaken_soon": 6}),
    # The same when it has looked at an object, and when it parses one.
    "look": (6, {"overtaken_looking": 16}),
    "parse": (3, {"overtaken_parsing": 3}),
    # A transaction was committed; nobody knows yet.
    "commit": (45, {"killed_after_commit": 5, "commit_answer_lost": 4}),
    # A statement, anywhere.
    "sql": (250, {"cut": 3, "cut_after": 2, "read_only": 1, "outage": 1}),
    # A call to the bucket.
    "storage": (16, {"storage_unavailable": 3}),
    # A request to the embedding provider.
    "request": (8, {
        "throttled_429": 3, "throttled_retry_after": 2, "server_error": 3, "hangs": 2, "reset": 2, "truncated": 1,
        "html": 1, "too_few": 2, "other_order": 3, "twice_the_index": 1, "other_dimensions": 1, "nan": 2, "zero": 1,
    }),
    # A round of the sweep.
    "sweep": (5, {"sweep_skipped": 2, "sweep_twice": 3}),
}  # fmt: skip
SITE_OF = {kind: site for site, (_, kinds) in SITES.items() for kind in kinds}
WEIGHTS = {kind: weight for _, kinds in SITES.values() for kind, weight in kinds.items()}
AMOUNTS = {
    "event_delayed": (1, 2400), "message_duplicated": (0, 1200), "zombie": (130, 900), "frozen": (1, 60),
    "outage": (5, 120), "throttled_retry_after": (1, 30),
}  # fmt: skip
FEWEST_FAULTS, MOST_FAULTS = 8, 16


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int
    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...]

    @classmethod
    def drawn(cls, seed: int) -> "Schedule":
        random = Random(f"schedule {seed}")
        return cls(seed, tuple(_operations(random)), tuple(_faults(random)))


def _operations(random: Random) -> list[Operation]:
    draw = random.choices((_anything, _rewrites, _twins, _takes_back), (3, 2, 2, 3))[0]
    tenants = random.choice((TENANTS[:1], TENANTS))
    span_s = random.choice((2.0, 20.0, 60.0, 600.0))
    operations = draw(random, tenants, span_s)
    described = [operation for operation in operations if operation.name in NAMES and operation.kind == "put"]
    if described and random.random() < 0.4:
        one = random.choice(described)
        for _ in range(random.randint(1, 3)):
            at_s = max(0.0, one.at_s + random.uniform(-5, 60))
            operations.append(Operation("describe", at_s, one.tenant, one.name, _metadata(random)))
    if random.random() < 0.15:
        queue = random.choice(("ingest", "embed"))
        operations.append(Operation("poison", random.uniform(0, span_s), tenants[0], queue))
    operations += [Operation("search", random.uniform(0, span_s + 60), random.choice(tenants), "") for _ in range(3)]
    return sorted(operations, key=lambda operation: operation.at_s)


def _anything(random: Random, tenants: Sequence[str], span_s: float) -> list[Operation]:
    names = random.sample((*NAMES, f"{HTTPS}d.txt"), random.randint(1, 3))
    operations: list[Operation] = []
    for _ in range(random.randint(2, 5)):
        tenant, name = random.choice(tenants), random.choice(names)
        kind: Literal["put", "delete", "erase", "undo"] = "put"
        if random.random() < 0.35:
            kind = random.choices(("delete", "erase", "undo"), (7, 2, 2))[0] if name in NAMES else "delete"
        lines = _lines(random, tenant) if kind == "put" else ()
        operations.append(Operation(kind, random.uniform(0, span_s), tenant, name, lines))
        if name.startswith(HTTPS) and random.random() < 0.3:
            soon_s = operations[-1].at_s + random.uniform(0, 20)
            operations.append(Operation("delete", soon_s, tenant, name))
    return operations


def _rewrites(random: Random, tenants: Sequence[str], span_s: float) -> list[Operation]:
    """One file is put again and again, faster than it can be worked on."""
    tenant, name = random.choice(tenants), random.choice(NAMES)
    operations = []
    for _ in range(4):
        lines = _lines(random, tenant) if random.random() < 0.7 else (f"{tenant} {CORRUPT}",)
        operations.append(Operation("put", random.uniform(0, 20), tenant, name, lines))
    if random.random() < 0.5:
        kind: Literal["delete", "erase", "undo"] = random.choice(("delete", "erase", "undo"))
        operations.append(Operation(kind, random.uniform(5, 40), tenant, name))
    return operations


def _twins(random: Random, tenants: Sequence[str], span_s: float) -> list[Operation]:
    """Two documents share texts, and one is deleted or replaced while the other is worked on."""
    tenant, (one, other) = random.choice(tenants), random.sample(NAMES, 2)
    lines = _lines(random, tenant)
    some = lines[: random.randint(1, len(lines))] if lines else ()
    later_s = random.uniform(10, 60)
    soon_s = later_s + random.uniform(0, 8)
    operations = [Operation("put", 0, tenant, one, lines), Operation("put", later_s, tenant, other, some)]
    if random.random() < 0.8:
        operations.append(Operation("delete", soon_s, tenant, random.choice((one, one, other))))
    else:
        operations.append(Operation("put", soon_s, tenant, one, _lines(random, tenant)))
    return operations


def _takes_back(random: Random, tenants: Sequence[str], span_s: float) -> list[Operation]:
    """Files are deleted as soon as they are there, and put again."""
    operations: list[Operation] = []
    for name in random.sample((NAMES[0], f"{HTTPS}d.txt", f"{HTTPS}e.txt"), 2):
        tenant, at_s = random.choice(tenants), random.uniform(0, span_s)
        operations.append(Operation("put", at_s, tenant, name, _lines(random, tenant)))
        if not name.startswith(HTTPS) and random.random() < 0.5:
            operations.append(Operation("put", at_s + random.uniform(0, 4), tenant, name, _lines(random, tenant)))
        deleted_s = at_s + random.uniform(0, random.choice((6, 60)))
        operations.append(Operation("delete", deleted_s, tenant, name))
        if not name.startswith(HTTPS) and random.random() < 0.5:  # what is put then cannot be read
            operations.append(
                Operation("put", deleted_s + random.uniform(0, 2), tenant, name, (f"{tenant} {CORRUPT}",))
            )
    return operations


def _lines(random: Random, tenant: str) -> tuple[str, ...]:
    """A document: mostly lines of a small vocabulary, so that texts come again in other documents and versions."""
    special = random.random()
    if special < 0.05:
        return ()
    if special < 0.1:
        good = [f"{tenant} line {number}" for number in range(int(special * 1000) % 4)]  # before what cannot be read
        return (*good, f"{tenant} {CORRUPT if random.random() < 0.7 else DEADLY}")
    if special < 0.13:
        return tuple(f"{tenant} line {number}" for number in range(MAX_CHUNKS + 1))
    if special < 0.16:
        return (f"{tenant} line 1 {REFUSED}", f"{tenant} line 2 {REFUSED}")
    lines = [f"{tenant} line {random.randrange(14)}" for _ in range(random.randint(1, 9))]
    if special < 0.33:
        lines.insert(random.randrange(len(lines) + 1), f"{tenant} line {random.randrange(4)} {REFUSED}")
    return tuple(lines)


def _metadata(random: Random) -> tuple[str, ...]:
    if random.random() < 0.2:
        return ()
    return ("{",) if random.random() < 0.2 else (json.dumps({"metadataAttributes": {"number": random.randrange(99)}}),)


def _faults(random: Random) -> list[Fault]:
    kinds = random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=random.randint(FEWEST_FAULTS, MOST_FAULTS))
    taken: set[tuple[str, int]] = set()
    faults = []
    for kind in kinds:
        site = SITE_OF[kind]
        at = random.randrange(SITES[site][0])
        while (site, at) in taken:
            at += 1
        taken.add((site, at))
        faults.append(Fault(kind, at, random.uniform(*AMOUNTS.get(kind, (0, 0)))))
    return faults


@dataclass(slots=True)
class FaultPlan:
    """Which fault strikes now?"""

    faults: tuple[Fault, ...]
    fired: list[Fault] = field(default_factory=list)
    passages: Counter[str] = field(default_factory=Counter)
    _waiting: dict[tuple[str, int], Fault] = field(init=False)
    over: bool = False

    def __post_init__(self) -> None:
        self._waiting = {(fault.site, fault.at): fault for fault in self.faults}

    def pass_by(self, site: str) -> Fault | None:
        """Called at every passage of a site."""
        number = self.passages[site]
        self.passages[site] += 1
        fault = self._waiting.pop((site, number), None)
        if fault is None or self.over:
            return None
        self.fired.append(fault)
        return fault
