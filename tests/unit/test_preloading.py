"""Environments that are started ahead of a request: what is loaded with them, and what two copies must not share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edda.settings import is_started_ahead

ROOT = Path(__file__).parents[2]
# The first request builds services and clients; these are the packages that cost it most.
LATE = {"aioboto3", "aiobotocore", "botocore.config", "aiohttp"}
LOADED = "import sys, runpy; runpy.run_path(sys.argv[1]); print(*sys.modules)"
# Two copies of one process, as of one snapshot, each with its first invocation.
COPIES = """
import os, random
from edda.runtime import run

async def a_number():
    return random.random()

random.random()
for _ in range(2):
    child = os.fork()
    if not child:
        print(run(a_number()), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def loaded(function: str, **environment: str) -> set[str]:
    return set(output(LOADED, str(ROOT / "functions" / function / "app.py"), **environment).split())


def output(script: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["snap-start", "provisioned-concurrency"])
@pytest.mark.parametrize("function", ["api", "search", "answer"])
def test_what_the_first_request_needs_is_there_when_an_environment_starts_ahead(function: str, mode: str) -> None:
    modules = loaded(function, AWS_LAMBDA_INITIALIZATION_TYPE=mode, EDDA_EMBEDDING_PROVIDER="bedrock")

    assert modules >= LATE
    assert ("edda.adapters.bedrock_embedder" in modules) == (function != "api")


@pytest.mark.parametrize("function", ["api", "search", "answer", "chunk", "embed", "sweep", "migrate"])
def test_on_demand_nothing_is_loaded_before_it_is_needed(function: str) -> None:
    assert not loaded(function, AWS_LAMBDA_INITIALIZATION_TYPE="on-demand") & LATE


def test_who_runs_without_lambda_starts_nothing_ahead() -> None:
    assert not is_started_ahead({})
    assert not is_started_ahead({"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"})


def test_environments_restored_from_one_snapshot_have_random_numbers_of_their_own() -> None:
    first, second = output(COPIES).split()

    assert first != second
