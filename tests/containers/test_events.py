"""Every file of events/ with `sam local`, in Lambda's containers."""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from local import build
from local.containers import FUNCTIONS
from local.processes import wait_until
from local.settings import ROOT
from tests.containers.conftest import Running, event_file, last_line, sam
from tests.local.conftest import free_port

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

# What each function makes of the events that are its own.
OWN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "api-upload.json": ("ApiFunction", lambda answer: answer["statusCode"] == 202),
    "api-nasty.json": ("ApiFunction", lambda answer: answer["statusCode"] == 202),
    "search-question.json": ("SearchFunction", lambda answer: answer["statusCode"] == 200),
    "search-parameters.json": ("SearchFunction", lambda answer: answer["statusCode"] == 200),
    "search-nasty.json": ("SearchFunction", lambda answer: answer["statusCode"] == 200),
    "answer-question.json": ("AnswerFunction", lambda answer: answer["statusCode"] == 200),
    "answer-nasty.json": ("AnswerFunction", lambda answer: answer["statusCode"] == 200),
    "s3-put.json": ("ChunkFunction", lambda answer: answer is None),
    "ingest-s3-put.json": ("ChunkFunction", lambda answer: answer == {"batchItemFailures": []}),
    "ingest-nasty.json": ("ChunkFunction", lambda answer: "not-json" in failed(answer)),
    "embed.json": ("EmbedFunction", lambda answer: answer == {"batchItemFailures": []}),
    "embed-nasty.json": ("EmbedFunction", lambda answer: "not-json" in failed(answer) and "good" not in failed(answer)),
    "sweep.json": ("SweepFunction", lambda answer: "versions_finished" in answer),
    "migrate-create.json": ("MigrateFunction", lambda answer: answer["applied"] == []),
    "index.json": ("MigrateFunction", lambda answer: "indexes_built" in answer),
    "migrate-delete.json": ("MigrateFunction", lambda answer: answer == {}),
}


def failed(answer: dict[str, list[dict[str, str]]]) -> set[str]:
    return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}


def test_every_event_is_some_functions_own() -> None:
    assert OWN.keys() == {path.name for path in (ROOT / "events").glob("*.json")}
    assert {function for function, _ in OWN.values()} == set(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(OWN))
def test_sam_local_invoke_answers_each_event(name: str, running: Running) -> None:
    function, expected = OWN[name]

    answer = sam(running.folder, "local", "invoke", function, "-e", str(event_file(name, running)))

    assert answer.returncode == 0, answer.stderr
    assert expected(last_line(answer.stdout)), answer.stdout


@pytest.fixture(scope="module")
def start_lambda(running: Running) -> Iterator[str]:
    """The address of `sam local start-lambda`."""
    port = free_port()
    with (running.stack.settings.logs / "start-lambda.log").open("wb") as log:
        server = subprocess.Popen(
            [str(build.SAM), "local", "start-lambda", "--port", str(port)],
            cwd=running.folder,
            env={**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_MAX_ATTEMPTS": "1", "TMPDIR": str(running.folder)},
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_until(lambda: answers(url) or server.poll() is not None, within_s=60)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url).status_code > 0
    return False


@pytest.mark.parametrize("function", FUNCTIONS)
def test_start_lambda_answers_every_event_on_every_function(function: str, start_lambda: str, running: Running) -> None:
    """A function's own are served; another's come to an end as well, and leave the function fit for its own."""
    own = [name for name, (of, _) in OWN.items() if of == function]
    with httpx.Client(base_url=f"{start_lambda}/2015-03-31/functions/{function}", timeout=180) as client:
        for name in (*sorted(OWN.keys() - set(own)), *own):
            answer = client.post("/invocations", content=event_file(name, running).read_bytes())
            assert answer.status_code == 200, (name, answer.text)
            body = json.loads(answer.text)
            if name in own:
                assert OWN[name][1](body), (name, body)
            elif "x-amz-function-error" in answer.headers:
                assert {"errorMessage", "errorType"} <= body.keys(), (name, body)
                assert not body["errorType"].startswith(("Runtime.", "Sandbox.")), (name, body)  # it did not crash
