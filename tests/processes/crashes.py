"""Every labelled point, struck: which scenario passes it, and what becomes of it when a worker dies there."""

from collections.abc import Iterable

from tests.processes.labels import Strike
from tests.processes.scenarios import SCENARIOS
from tests.processes.stack import Stack
from tests.simulation.violations import Violation

# A worker passes these once in its life.
WHEN_NEW = {"SecretsManager.read", "RedriveStore.sees_one_tenant_only"}

Passages = dict[tuple[str, str], list[str]]  # function and label: the scenarios in which it is passed


def plain_passages(stack: Stack) -> Passages:
    """Run every scenario undisturbed."""
    passages: Passages = {}
    for name, scenario in SCENARIOS.items():
        stack.begin()
        scenario(stack)
        stack.settle()
        stack.check()
        for passed in stack.passed:
            passages.setdefault(passed, []).append(name)
    return passages


def run_crash(stack: Stack, scenarios: Iterable[str], function: str, strike: Strike) -> float:
    """How long after the last death everything was done, in the clock in use. Raises Violation.

    In the first of these scenarios that comes by there: some do so only when a worker was slow.
    """
    for scenario in scenarios:
        if strike.label in WHEN_NEW:
            stack.end()
        stack.begin()
        stack.strike(function, strike)
        SCENARIOS[scenario](stack)
        stack.settle()
        stack.check()
        if strike in stack.struck:
            return stack.ended_at - stack.deaths[-1]
    raise Violation("labelled points", f"{strike} struck nobody")
