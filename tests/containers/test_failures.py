"""What a user of `sam local` sees of a function that fails."""

from pathlib import Path

import docker
import pytest

from local import containers
from local.settings import ARCHITECTURE
from tests.containers.conftest import last_line, sam

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

FAULTY = Path(__file__).parent / "faulty"


def invoke(function: str, built: Path, folder: Path) -> tuple[int, str, str]:
    overrides = [f"PythonRuntime={containers.runtime_of(built)}", f"Architecture={ARCHITECTURE}"]
    template = ["--template-file", str(FAULTY / "template.yaml"), "--parameter-overrides", *overrides]
    answer = sam(folder, "local", "invoke", function, *template, "--skip-pull-image", "--region", "us-east-1")
    return answer.returncode, answer.stdout, answer.stderr


def test_an_error_is_the_answer_no_exit_code_and_leaves_no_container(
    client: docker.DockerClient, built: Path, tmp_path: Path
) -> None:
    code, out, _ = invoke("RaisesFunction", built, tmp_path)

    assert code == 0
    assert last_line(out)["errorType"] == "ValueError"
    assert last_line(out)["errorMessage"] == "as asked"
    left = client.containers.list(all=True, filters={"label": "sam.cli.container.type=lambda"}, ignore_removed=True)
    assert not [one for one in left if any(str(FAULTY) in mount["Source"] for mount in one.attrs["Mounts"])]


def test_a_timeout_is_said_on_the_error_stream_and_there_is_no_answer(built: Path, tmp_path: Path) -> None:
    _, out, error = invoke("SleepsFunction", built, tmp_path)

    assert out.strip() == ""
    assert "Function 'SleepsFunction' timed out after 2 seconds" in error


def test_out_of_memory_is_a_killed_runtime(built: Path, tmp_path: Path) -> None:
    _, out, error = invoke("AllocatesFunction", built, tmp_path)

    assert "signal: killed" in out + error or "maximum memory usage" in out + error
