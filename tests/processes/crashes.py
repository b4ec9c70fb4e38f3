"""Every labelled point, struck: which scenario passes it, and what becomes of it when a worker dies there."""

from collections.abc import Iterable

from tests.processes.labels import Strike
from tests.processes.scenarios import SCENARIOS
from tests.processes.stack import Stack

# A worker asks for these once in its life.
WHEN_NEW = {"SecretsManager.read"}

Passages = dict[tuple[str, str], str]  # function and label: the first scenario in which it is passed


def plain_passages(stack: Stack, scenarios: Iterable[str] = SCENARIOS) -> Passages:
    """Run every scenario undisturbed."""
    first: Passages = {}
    for name in scenarios:
        stack.begin()
        SCENARIOS[name](stack)
        stack.settle()
        stack.check()
        for passed in stack.passed:
            first.setdefault(passed, name)
    return first


def run_crash(stack: Stack, scenario: str, function: str, strike: Strike) -> float:
    """Raises Violation. How long after the last death everything was done, in the clock in use."""
    if strike.label in WHEN_NEW:
        stack.end()
    stack.begin()
    stack.strike(function, strike)
    SCENARIOS[scenario](stack)
    stack.settle()
    assert strike in stack.struck, f"{strike} struck nobody"
    stack.check()
    return stack.ended_at - stack.deaths[-1]
