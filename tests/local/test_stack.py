"""The real template with the real functions, from upload to hit. Takes a minute or two."""

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from local import build, deploy
from local.client import EddaClient
from local.demo import DOCUMENTS, QUESTIONS, problems_of
from local.processes import wait_until
from local.settings import ROOT, TENANT
from local.stack import Stack, create_api_key, write_operator_file
from local.uploading import Sender, SentFile, files_of, sending
from local.watching import watch

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

FOUND = {  # the file that each of the demo's questions is about
    QUESTIONS[0]: "handbook.md",
    QUESTIONS[1]: "cold-store-runbook.txt",
    QUESTIONS[2]: "kuendigung-und-urlaub.md",
    QUESTIONS[3]: "courier-prices.csv",
}
FUNCTION_LAYERS = {  # as in the template; Dependencies and Core are every function's
    "ApiFunction": [],
    "SearchFunction": ["ModelLayer"],
    "AnswerFunction": ["ModelLayer"],
    "ChunkFunction": ["ParsingLayer"],
    "EmbedFunction": ["ModelLayer"],
    "SweepFunction": [],
    "MigrateFunction": [],
}


@pytest.fixture(scope="module")
def api(running_stack: Stack) -> Iterator[EddaClient]:
    """A tenant with the demo's documents on their way to it."""
    with EddaClient(running_stack.deployment.api_url, create_api_key(running_stack.database, TENANT)) as client:
        yield client


@pytest.fixture(scope="module")
def ingested(running_stack: Stack, api: EddaClient) -> list[SentFile]:
    """The demo's documents, each at its end."""
    files = files_of(DOCUMENTS)
    s3 = deploy.client(running_stack.settings, "s3")
    with sending(Sender(api, s3, running_stack.deployment.uploads_bucket, TENANT), files):
        assert watch(api, files, 300, lambda _: None) == []
    return files


def test_every_document_comes_to_its_end(ingested: list[SentFile]) -> None:
    assert problems_of(ingested) == []
    assert {file.name: file.status for file in ingested if file.status != "ready"} == {"no-text.txt": "failed"}
    assert all(file.chunks > 0 for file in ingested if file.status == "ready")


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_finds_its_document(question: str, api: EddaClient, ingested: list[SentFile]) -> None:
    hits = api.search(question, top_k=3)

    assert hits[0]["name"] == FOUND[question], [(hit["name"], hit["score"]) for hit in hits]
    assert all({"page", "heading_path", "text", "score"} <= hit.keys() for hit in hits)


@pytest.mark.parametrize("question", QUESTIONS[:2])
def test_each_answer_quotes_its_document(question: str, api: EddaClient, ingested: list[SentFile]) -> None:
    answer = api.answer(question)

    assert (answer["status"], answer["kind"]) == ("answered", "extractive"), answer
    assert FOUND[question] in {citation["name"] for citation in answer["citations"]}


def test_another_tenant_finds_nothing(running_stack: Stack, ingested: list[SentFile]) -> None:
    with EddaClient(running_stack.deployment.api_url, create_api_key(running_stack.database, "stranger")) as stranger:
        assert list(stranger.documents()) == []
        assert stranger.search(QUESTIONS[0], top_k=3) == []
        assert stranger.answer(QUESTIONS[0])["status"] == "not_found"


def test_routes_of_all_functions_are_reached(running_stack: Stack) -> None:
    url = running_stack.deployment.api_url

    assert httpx.get(f"{url}/v1/documents").status_code == 401
    assert httpx.post(f"{url}/v1/search", json={"query": "x"}).status_code == 401
    assert httpx.post(f"{url}/v1/answers", json={"question": "x"}).status_code == 401
    assert httpx.get(f"{url}/v1/nothing").status_code in {401, 404}


def test_the_schedule_runs_the_sweep(running_stack: Stack) -> None:
    log = running_stack.settings.logs / "emulator.log"

    assert wait_until(lambda: "SweepFunction" in _dispatched(log.read_text()), within_s=90)  # it runs once a minute


def test_no_message_was_put_aside(running_stack: Stack, ingested: list[SentFile]) -> None:
    sqs = deploy.client(running_stack.settings, "sqs")
    queues = [url for url in sqs.list_queues()["QueueUrls"] if "DeadLetter" in url]

    assert len(queues) == 2
    for url in queues:
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        assert attributes["Attributes"]["ApproximateNumberOfMessages"] == "0"


@pytest.mark.parametrize("function", sorted(FUNCTION_LAYERS))
def test_each_function_imports_from_its_own_layers_alone(function: str, running_stack: Stack) -> None:
    built = build.built(running_stack.settings)
    layers = ["DependenciesLayer", "CoreLayer", *FUNCTION_LAYERS[function]]
    path = [str(built / function), *(str(built / layer / "python") for layer in layers)]
    program = f"import sys, time; sys.path[:0] = {path!r}; began = time.perf_counter(); import app; "
    program += "print(time.perf_counter() - began); assert callable(app.lambda_handler)"

    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False, cwd="/"
    )

    assert answer.returncode == 0, answer.stderr
    print(f"{function} imports in {float(answer.stdout) * 1000:.0f} ms")


def test_the_demo_reports_and_leaves_nothing_running(
    tmp_path_factory: pytest.TempPathFactory, free_ports: tuple[int, int]
) -> None:
    """`make demo` itself, in a stack of its own that has the build of the last time."""
    report = tmp_path_factory.mktemp("demo") / "report.json"
    ports = ["--port", str(free_ports[0]), "--database-port", str(free_ports[1])]
    state = ROOT / ".edda" / "tests-demo"
    subprocess.run([sys.executable, "-m", "local.clean", "--state", str(state)], cwd=ROOT, check=True)

    answer = subprocess.run(
        [sys.executable, "-m", "local.demo", "--state", str(state), "--report", str(report), *ports],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    written = json.loads(report.read_text())
    assert written["problems"] == []
    assert {file["name"] for file in written["files"]} == {file.name for file in files_of(DOCUMENTS)}
    assert len(written["searches"]) == len(QUESTIONS)
    for port in free_ports:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}")
    assert not list((state / "run").iterdir())
    subprocess.run([sys.executable, "-m", "local.clean", "--state", str(state)], cwd=ROOT, check=True)
    assert not state.exists()


def _dispatched(log: str) -> str:
    """What the schedule has started."""
    return "\n".join(line for line in log.splitlines() if "EventBridge" in line and "dispatched" in line)


def test_an_operators_commands_work_with_the_file_that_is_left_for_them(running_stack: Stack) -> None:
    file = write_operator_file(running_stack)
    assert file.stat().st_mode & 0o077 == 0
    for command in (f"redrive --tenant {TENANT}", "redrive --queue ingest", "redrive --queue embed"):
        script = f". {file} && {sys.executable} -m edda.admin {command}"
        clean = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        done = subprocess.run(["sh", "-c", script], env=clean, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
