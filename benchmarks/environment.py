"""One of Lambda's environments: the embed function in a process of its own.

`python -m benchmarks.environment timeout-in-seconds [profile]`: events as lines of JSON in; responses out, each with
the most megabytes that this process has had.
"""

import cProfile
import importlib.util
import json
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edda import services
from edda.runtime import run

from benchmarks.processes import peak_megabytes

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class FakeContext:
    """Lambda's context at the beginning of an invocation."""

    timeout_s: int

    def get_remaining_time_in_millis(self) -> int:
        return self.timeout_s * 1000


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # what the function prints goes with the complaints
    os.dup2(2, 1)
    handler, context = load_handler(), FakeContext(int(sys.argv[1]))
    with cProfile.Profile() if sys.argv[2:] else nullcontext() as profile:
        for line in sys.stdin:
            response = handler(json.loads(line), context)
            print(json.dumps([response, peak_megabytes(os.getpid())]), file=answers, flush=True)
    if profile is not None:
        profile.dump_stats(sys.argv[2])
    run(services.aclose())


def load_handler() -> Any:
    spec = importlib.util.spec_from_file_location("embed_app", ROOT / "functions" / "embed" / "app.py")
    if spec is None or spec.loader is None:
        raise LookupError("functions/embed/app.py is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lambda_handler


if __name__ == "__main__":
    main()
