"""What every contestant in Python does around its work: read its task, get warm, wait for the start, say what it did.

Standard library only: each peer runs in an environment of its own.
"""

import json
import os
import sys
from dataclasses import dataclass
from itertools import islice
from typing import Any

_answers = os.fdopen(os.dup(1), "w")  # what libraries print goes with the complaints
os.dup2(2, 1)


@dataclass(frozen=True)
class Task:
    """What the harness writes for one turn."""

    variant: str  # "users": as its users would write it; "tuned": as well as it can be
    texts: list[str]
    dimensions: int
    base_url: str  # of the provider, /v1 included
    database_url: str
    rest: dict[str, Any]


def read_task() -> Task:
    with open(sys.argv[1], encoding="utf-8") as file:
        rest = json.load(file)
    with open(rest.pop("corpus"), encoding="utf-8") as lines:
        texts = [json.loads(line) for line in islice(lines, rest.pop("chunks"))]
    return Task(
        rest.pop("variant"), texts, rest.pop("dimensions"), rest.pop("base_url"), rest.pop("database_url"), rest
    )


def wait_for_go() -> None:
    """Everything is imported and connected: from here on it counts."""
    print("ready", file=_answers, flush=True)
    sys.stdin.readline()


def done(**said: Any) -> None:
    """It counts until here. The harness looks at this process before it lets it end."""
    print(json.dumps(said), file=_answers, flush=True)
    sys.stdin.readline()
