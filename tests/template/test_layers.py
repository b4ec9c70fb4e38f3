"""How layers are built: by the real recipe, for the layer that needs no package index."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = f"python{sys.version_info.major}.{sys.version_info.minor}"
UNCHECKED_HASH = 0b01  # PEP 552: the flags after the magic number


def build(folder: Path, runtime: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-s", "build-CoreLayer", f"RUNTIME={runtime}", f"ARTIFACTS_DIR={folder}"]
    return subprocess.run(command, cwd=ROOT / "layers", capture_output=True, text=True, check=False)


def test_bytecode_that_lambda_need_not_check_is_made_by_any_python_of_the_runtimes_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # the runtime itself need not be on it
    done = build(tmp_path, OURS)

    assert done.returncode == 0, done.stderr
    sources = list((tmp_path / "python" / "edda").glob("*.py"))
    assert sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == UNCHECKED_HASH


def test_without_such_a_python_the_layer_is_built_and_the_builder_hears_of_it(tmp_path: Path) -> None:
    done = build(tmp_path, "python3.99")

    assert done.returncode == 0, done.stderr
    assert "no bytecode" in done.stderr
    assert (tmp_path / "python" / "edda" / "services.py").exists()
    assert not list(tmp_path.rglob("*.pyc"))
