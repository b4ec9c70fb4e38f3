"""Why a local stack did not come up."""


class LocalError(Exception):
    """One line that says what is wrong and what to do; the exit code is 2."""


class StepFailed(LocalError):
    """A tool failed; its log says why. The exit code is 1."""
