"""What is raised when an invariant does not hold."""


class Violation(Exception):
    """Which invariant, and what was seen instead."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(invariant, detail)
        self.invariant = invariant
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"
