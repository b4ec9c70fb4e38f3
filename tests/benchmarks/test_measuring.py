"""What measures cold starts and memory sizes, at its smallest. Nothing here says how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cold_start import CLIENTS, LAYERS, _imports, packages
from benchmarks.memory_sizes import _medians, cpu_share

ROOT = Path(__file__).parents[2]
TRACE = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |   json
import time:      1500 |       2500 |   pydantic.main
import time:       700 |       9000 | edda.services
import time:        10 |       9500 | app
"""


def test_both_handlers_are_measured_on_real_events(state: Path) -> None:
    figures = state / "sizes.json"
    command = [sys.executable, "-m", "benchmarks.memory_sizes", "--state", str(state), "--json", str(figures)]
    done = subprocess.run(
        [*command, "--sizes", "0", "--chunks", "200", "--repetitions", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    by_function = {one["function"]: one for one in json.loads(figures.read_text())}
    assert set(by_function) == {"embed", "chunk"}
    for one in by_function.values():
        assert one["cpu_s_a_thousand"] > 0
        assert one["peak_megabytes"] > 20
    assert by_function["chunk"]["chunks_an_event"] > 40  # a file of 40 passages is cut anew


def test_all_of_the_machine_needs_no_control_group() -> None:
    with cpu_share(0) as prefix:
        assert list(prefix) == []


def test_figures_are_medians_for_a_thousand_chunks() -> None:
    found = _medians([(1.0, 0.1, 90, 500, 5), (2.0, 0.2, 100, 500, 5), (9.0, 0.3, 110, 500, 5)])

    assert found == {
        "seconds_a_thousand": pytest.approx(4.0),
        "cpu_s_a_thousand": pytest.approx(0.4),
        "peak_megabytes": 100,
        "chunks_an_event": 100,
    }


def test_the_heaviest_imports_are_those_that_are_not_pythons_own_nor_the_function() -> None:
    assert dict(_imports(TRACE)) == {"pydantic.main": 2.5, "edda.services": 9.0}


def test_a_layers_packages_are_told_by_size(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "module.py").write_bytes(b"x" * 1024)
    (tmp_path / "large" / "data").mkdir(parents=True)
    (tmp_path / "large" / "data" / "file").write_bytes(b"x" * 2 * 1024**2)

    assert packages(tmp_path) == [("large", 2.0), ("small", 1 / 1024)]


def test_every_function_has_layers_and_clients() -> None:
    functions = {folder.parent.name for folder in (ROOT / "functions").glob("*/app.py")}

    assert functions == CLIENTS.keys() == LAYERS.keys()
