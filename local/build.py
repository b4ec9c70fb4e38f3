"""`sam build` of the real template for this machine, when something changed."""

import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from local.emulator import aws_environment, endpoint_for_functions
from local.errors import LocalError
from local.processes import run_step
from local.settings import ARCHITECTURE, ROOT, LocalSettings

SAM = ROOT / ".venv-sam" / "bin" / "sam"
LAYERS = ("CoreLayer", "DependenciesLayer", "ParsingLayer", "ModelLayer")


def parameters(settings: LocalSettings, database_url: str, owner_url: str) -> dict[str, str]:
    """The template's parameters for this machine; all others keep their defaults."""
    return {
        "PythonRuntime": settings.runtime,
        "Architecture": ARCHITECTURE,
        "AwsEndpointUrl": endpoint_for_functions(settings),
        "DatabaseUrl": database_url.replace("@127.0.0.1:", f"@{settings.host_for_functions}:"),
        "DatabaseOwnerUrl": owner_url.replace("@127.0.0.1:", f"@{settings.host_for_functions}:"),
        "EmbeddingProvider": "in-process",
        "EmbeddingModel": "all-MiniLM-L6-v2",
        "EmbeddingDimensions": "384",
        "FirstTenant": "demo",
        "WebhookAllowPrivate": "true",  # a receiver on this machine
        "ApiRequestsPerSecond": "1000",
        # One document and one batch for each processor; 2 is Lambda's least.
        "ChunkConcurrency": str(max(2, os.cpu_count() or 2)),
        "EmbedConcurrency": str(max(2, (os.cpu_count() or 2) // 2)),
        **settings.parameters,
    }


def as_overrides(values: dict[str, str]) -> list[str]:
    """For SAM's --parameter-overrides."""
    return [f"{name}={value}" for name, value in values.items()]


def build(settings: LocalSettings) -> bool:
    """Build if an input changed since the last time; whether it did. Raises LocalError, StepFailed.

    Not for containers: their build is `make sam-build`'s, and the user's to make.
    """
    if not SAM.exists():
        raise LocalError("SAM is not installed: run make setup")
    fingerprint = _fingerprint(settings)
    mark = settings.state / "build.sha256"
    if mark.exists() and mark.read_text() == fingerprint:
        return False
    mark.unlink(missing_ok=True)
    _forget_cache_of_other_recipes(settings)
    run_step(
        "sam build",
        [
            *(str(SAM), "build", "--template-file", str(ROOT / "template.yaml"), "--cached", "--parallel"),
            *("--build-dir", str(built(settings)), "--cache-dir", str(settings.state / "cache")),
            *("--config-env", "none"),
            *("--parameter-overrides", *as_overrides(parameters(settings, "postgresql://local", "postgresql://local"))),
        ],
        {
            **aws_environment(settings),
            # layers/Makefile: for this machine, with this very interpreter for the bytecode
            "PATH": f"{Path(sys.executable).parent}:{SAM.parent}:{os.environ.get('PATH', os.defpath)}",
            "RUNTIME": settings.runtime,
            "ARCHITECTURE": ARCHITECTURE,
        },
        settings.logs / "build.log",
        ROOT,
    )
    mark.write_text(fingerprint)
    return True


def built(settings: LocalSettings) -> Path:
    """Where SAM builds to; apart from .aws-sam, which is for AWS and for sam local."""
    return settings.containers.build if settings.containers else settings.state / "build"


def identity(settings: LocalSettings) -> str:
    """Changes with the build."""
    if settings.containers is None:
        return (settings.state / "build.sha256").read_text()
    return str((built(settings) / "template.yaml").stat().st_mtime_ns)  # SAM writes it last


def packed(settings: LocalSettings) -> Path:
    """A copy of the build in which each layer is a zip. Its template.

    SAM would compress them at each deployment, which takes longer than all the rest of it; these are only stored.
    """
    copy = _copy_without_layers(settings)
    for layer in LAYERS:
        source = built(settings) / layer
        with zipfile.ZipFile(copy / layer, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(source.rglob("*")):
                if path.is_file():
                    entry = zipfile.ZipInfo(str(path.relative_to(source)))  # of 1980: the same files, the same zip
                    entry.external_attr = path.stat().st_mode << 16
                    archive.writestr(entry, path.read_bytes())
    return copy / "template.yaml"


def linked(settings: LocalSettings) -> Path:
    """A copy of the build in which each layer only points to its built folder. Its template."""
    copy = _copy_without_layers(settings)
    for layer in LAYERS:
        source = built(settings) / layer / "python"
        site = copy / layer / "python" / "lib" / settings.runtime / "site-packages"
        site.mkdir(parents=True)
        # Python runs a .pth line that starts with import. The hash makes a changed layer a new version of it.
        line = f"import sys; sys.path.insert(0, {str(source)!r})  # {hash_of(files(source))}\n"
        (site / f"{layer}.pth").write_text(line)
    return copy / "template.yaml"


def forget_copy(settings: LocalSettings) -> None:
    """Remove what `packed` or `linked` made."""
    shutil.rmtree(settings.state / "to-deploy", ignore_errors=True)


def _copy_without_layers(settings: LocalSettings) -> Path:
    forget_copy(settings)
    copy = settings.state / "to-deploy"
    shutil.copytree(built(settings), copy, ignore=lambda folder, names: [name for name in names if name in LAYERS])
    return copy


def hash_of(paths: Iterable[Path]) -> str:
    """One hash of names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted, without bytecode."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield path


def _fingerprint(settings: LocalSettings) -> str:
    """Of all that goes into the build."""
    sources = [ROOT / "template.yaml", *files(ROOT / "functions"), *files(ROOT / "layers")]
    return hash_of(sources) + f" {settings.runtime} {ARCHITECTURE} {sys.version}"


def _forget_cache_of_other_recipes(settings: LocalSettings) -> None:
    """SAM's cache looks at a layer's folder only, not at the Makefile that builds it, nor at this interpreter."""
    recipe = hash_of([ROOT / "layers" / "Makefile", ROOT / "functions" / "Makefile"]) + sys.version
    mark = settings.state / "recipe.sha256"
    if not mark.exists() or mark.read_text() != recipe:
        shutil.rmtree(settings.state / "cache", ignore_errors=True)
        settings.state.mkdir(parents=True, exist_ok=True)
        mark.write_text(recipe)
