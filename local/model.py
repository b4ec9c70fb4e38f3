"""The in-process model outside of the layer, built once into the git-ignored .edda/model."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from local.settings import ROOT

BUILD = ROOT / "layers" / "model" / "build_model.py"


def minilm_folder() -> Path:
    """Where model.onnx and tokenizer.json are; another folder as soon as the way they are built changes."""
    cache = ROOT / ".edda" / "model"
    folder = cache / hashlib.sha256(BUILD.read_bytes()).hexdigest()[:12] / "edda_minilm"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            build_model(Path(scratch, "edda_minilm"))
            folder.parent.mkdir(exist_ok=True)
            os.replace(Path(scratch, "edda_minilm"), folder)  # all of it or nothing
    return folder


def build_model(target: Path) -> None:
    """Into this folder, which becomes a package."""
    subprocess.run([sys.executable, BUILD, target], check=True)
