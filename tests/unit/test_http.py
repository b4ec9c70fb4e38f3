"""Every error has its status, its headers, and nothing to hide."""

import inspect

import pytest
from edda import errors
from edda.errors import EddaError
from edda.http import headers_of, problem_of, status_of

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EddaError)]


def made(kind: type[EddaError]) -> EddaError:
    return errors.MethodNotAllowed(("GET",)) if kind is errors.MethodNotAllowed else kind()


@pytest.mark.parametrize("kind", TREE)
def test_every_error_has_a_status_that_fits_its_branch(kind: type[EddaError]) -> None:
    status = status_of(made(kind))
    if issubclass(kind, errors.RequestError | errors.DocumentError):
        assert 400 <= status < 500
    elif issubclass(kind, errors.RetryableError):
        assert status == 503
    else:
        assert status == 500


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_a_problem_with_its_code(kind: type[EddaError]) -> None:
    problem = problem_of(made(kind), "request-1")
    assert problem.type == f"urn:edda:problem:{kind.code}"
    assert problem.title == kind.default_message
    assert (problem.code, problem.request_id) == (kind.code, "request-1")


def test_codes_tell_errors_apart() -> None:
    branches = {errors.RequestError, EddaError}
    codes = [kind.code for kind in TREE if kind not in branches]
    assert len(codes) == len(set(codes))


def test_a_foreign_error_is_told_nothing_of() -> None:
    assert "hunter2" not in problem_of(ValueError("password=hunter2"), "r").model_dump_json()


@pytest.mark.parametrize(("asked", "told"), [(None, "5"), (0.2, "1"), (7.2, "8"), (30, "30")])
def test_a_retryable_error_says_when(asked: float | None, told: str) -> None:
    assert headers_of(errors.ProviderThrottled(retry_after_s=asked)) == {"Retry-After": told}
