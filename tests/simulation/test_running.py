"""A run of many schedules from the command line: what it says of itself, and how it ends before its end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.postgres import Cluster
from tests.simulation.running import ROOT, SEEDS_A_TASK, Stop, commit, run_seeds

FOR_EVER = "0:1000000"


@contextmanager
def run_of(cluster: Cluster, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.simulation", "--socket", str(cluster.folder), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers_of(pid: int) -> list[int]:
    """The processes that run its schedules."""
    listed = subprocess.run(
        ["ps", "-ww", "-A", "-o", "pid=", "-o", "ppid=", "-o", "args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=2) for line in listed.stdout.splitlines())
    return [int(row[0]) for row in rows if int(row[1]) == pid and "spawn_main" in row[-1]]


def has_database(cluster: Cluster, pid: int) -> bool:
    with psycopg.connect(cluster.url("postgres", "postgres")) as connection:
        query = "SELECT FROM pg_database WHERE datname = %s"
        return connection.execute(query, [f"edda_simulation_{pid}"]).rowcount == 1


def test_two_processes_run_every_seed_once(cluster: Cluster) -> None:
    *_, report = run_seeds(cluster, range(20, 20 + 2 * SEEDS_A_TASK), Stop(), jobs=2)
    assert (report.schedules, report.failures) == (2 * SEEDS_A_TASK, [])


def test_a_record_says_what_a_run_came_to(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    with run_of(cluster, "--seeds", "3:7", "--record", str(file)) as process:
        out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    assert "4 schedules, " in out.splitlines()[-1]
    record = json.loads(file.read_text())
    assert (record["schedules"], record["seeds"], record["complete"]) == (4, "3:7", True)
    assert record["violations"] == []
    assert record["faults"] == sum(record["faults_by_kind"].values()) > 0
    assert record["commit"] == commit()
    assert record["wall_s"] > 0
    assert record["cpu_s"]["python"] > 0


def test_a_run_that_is_interrupted_says_what_it_has_seen(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    with run_of(cluster, "--seeds", FOR_EVER, "--record", str(file)) as process:
        until(lambda: has_database(cluster, process.pid))
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=100)
    assert process.returncode == 130
    record = json.loads(file.read_text())
    assert not record["complete"]
    assert f"{record['schedules']} schedules, " in out.splitlines()[-1]
    assert record["schedules"] % SEEDS_A_TASK == 0
    assert "stopped" in error
    assert "Traceback" not in error


def test_a_process_that_dies_is_an_error(cluster: Cluster) -> None:
    with run_of(cluster, "--seeds", FOR_EVER, "--jobs", "2") as process:
        until(lambda: any(has_database(cluster, worker) for worker in workers_of(process.pid)))
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        _, error = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "died" in error
