"""What a user sees when something is in the way: one line that says what to do, and the exit code 2."""

import argparse
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from local import build
from local.settings import ROOT, add_arguments, from_arguments


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("module", ["local.stack", "local.demo", "local.clean"])
def test_every_command_explains_itself(module: str) -> None:
    answer = run(module, "--help")

    assert answer.returncode == 0
    assert "EDDA_PORT" in answer.stdout


@pytest.mark.parametrize("flag", ["--port", "--database-port"])
@pytest.mark.parametrize("port", ["80", "65536", "http"])
def test_a_port_that_is_none_is_refused(flag: str, port: str) -> None:
    assert run("local.stack", flag, port).returncode == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ChatModle=llama3.2", "ChatModle is no Name=value"),
        ("ChatModel", "ChatModel is no Name=value"),
        ("ChatModel='llama3.2", "No closing quotation"),
    ],
)
def test_a_parameter_that_the_template_does_not_have_is_refused(given: str, said: str) -> None:
    answer = run("local.stack", "--parameters", given)
    assert answer.returncode == 2
    assert said in answer.stderr


def test_parameters_of_the_template_replace_the_local_ones(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = "ChatModel='llama 3.2' EmbeddingDimensions=256"
    settings = from_arguments(parser.parse_args(["--state", str(tmp_path), "--parameters", given]))
    parameters = build.parameters(settings, "postgresql://local", "postgresql://local")
    assert (parameters["ChatModel"], parameters["EmbeddingDimensions"]) == ("llama 3.2", "256")
    assert parameters["FirstTenant"] == "demo"


def test_a_taken_port_is_said_before_anything_is_built(tmp_path: Path, free_ports: tuple[int, int]) -> None:
    for flag, variable in (("--port", "EDDA_PORT"), ("--database-port", "EDDA_DATABASE_PORT")):
        ports = {"--port": free_ports[0], "--database-port": free_ports[1]}
        with socket.socket() as other:
            other.bind(("127.0.0.1", ports[flag]))
            other.listen()
            flags = [str(part) for pair in ports.items() for part in pair]

            answer = run("local.stack", "--state", str(tmp_path / "state"), *flags)

        assert answer.returncode == 2
        assert answer.stderr.startswith(f"error: port {ports[flag]} ")
        assert variable in answer.stderr
        assert answer.stderr.count("\n") == 1
        assert not (tmp_path / "state" / "build").exists()


def test_a_second_stack_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()

        for module in ("local.stack", "local.clean"):
            answer = run(module, "--state", str(tmp_path))
            assert answer.returncode == 2
            assert str(os.getpid()) in answer.stderr


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()

    answer = run("local.demo", "--documents", str(tmp_path))

    assert answer.returncode == 2
    assert "holds no files" in answer.stderr
