"""What a cold start costs: `python -m benchmarks.cold_start`. CPU of importing and of the first request's own part, and
sizes. The first request imports what it needs, opens clients, and (search, answer) works out a question's terms.

The layers are built for this machine and this Python as `make build` does it for Lambda. Each figure is the median of
many processes, in CPU milliseconds, less a bare interpreter; what Lambda adds (fetching the package, starting the
sandbox) is not in it. `--build` measures layers that are there already.
"""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edda import preloading

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1024**2
# What its first request opens besides a connection to Postgres, with Aurora (whose password is a secret) and Bedrock.
CLIENTS = {
    "api": ("secretsmanager", "s3"),
    "search": ("secretsmanager", "bedrock-runtime"),
    "answer": ("secretsmanager", "bedrock-runtime"),
    "chunk": ("sqs", "secretsmanager", "s3"),
    "embed": ("sqs", "secretsmanager", "bedrock-runtime"),
    "sweep": ("secretsmanager", "s3", "sqs"),
    "migrate": ("secretsmanager",),
}
LAYERS = {name: ["DependenciesLayer", "CoreLayer", *(["ParsingLayer"] if name == "chunk" else [])] for name in CLIENTS}

# What its first request imports besides, as `edda.preloading` has it, with a model of Bedrock's.
BEDROCK = "edda.adapters.bedrock_"
LATER = {
    "api": preloading.API,
    "search": (*preloading.SEARCH, f"{BEDROCK}embedder", f"{BEDROCK}reranker"),
    "answer": (*preloading.ANSWER, f"{BEDROCK}embedder", f"{BEDROCK}reranker", f"{BEDROCK}chat"),
}
QUESTION = "How many days of parental leave do I get in Germany?"

IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import app"
FIRST_REQUEST = (
    IMPORT
    + f"""
import asyncio, importlib
for module in {LATER}.get(sys.argv[1].rpartition("/")[2], ()):
    importlib.import_module(module)
if "edda.terms" in sys.modules and "edda.searching" in sys.modules:
    sys.modules["edda.terms"].query_terms({QUESTION!r})
"""
    + """
from edda.adapters.aws import AwsClients
async def open_clients():
    async with AwsClients() as clients:
        for service in sys.argv[2:]:
            await clients.get(service)
asyncio.run(open_clients())
"""
)
MEMORY = "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Of one function."""

    function: str
    import_ms: float
    first_request_ms: float  # the import included
    peak_megabytes: float
    unzipped_megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__)
    parser.add_argument("--build", type=Path, help="folder with the layers (they are built if it is not given)")
    parser.add_argument("--state", type=Path, default=ROOT / ".bench", help="where they are built (.bench)")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--imports", type=int, default=8, metavar="N", help="show the N heaviest imports of each")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    build = arguments.build or built(arguments.state.resolve() / "cold-start")
    found = [measure(function, build.resolve(), arguments.repetitions) for function in CLIENTS]
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"Python {platform.python_version()}, load {load}, medians of {arguments.repetitions}\n")
    print("| function | import, CPU ms | with the first request | peak MB | unzipped MB with layers |")
    print("|---|---|---|---|---|")
    for one in found:
        print(
            f"| {one.function} | {one.import_ms:.0f} | {one.first_request_ms:.0f} "
            f"| {one.peak_megabytes:.0f} | {one.unzipped_megabytes:.0f} |"
        )
    for layer in sorted({layer for layers in LAYERS.values() for layer in layers}):
        sizes = packages(build / layer / "python")
        shown = ", ".join(f"{name} {size:.1f}" for name, size in sizes[:6])
        print(f"\n{layer}: {sum(size for _, size in sizes):.0f} MB: {shown}")
    for function in CLIENTS:
        print(f"\n{function}, heaviest imports (ms with all that they import):")
        for name, milliseconds in heaviest(function, build.resolve())[: arguments.imports]:
            print(f"  {milliseconds:6.0f}  {name}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


def built(folder: Path) -> Path:
    """The layers, for this Python and this machine."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    machine = platform.machine().replace("aarch64", "arm64")
    for layer in ("CoreLayer", "DependenciesLayer", "ParsingLayer"):
        target = folder / layer
        subprocess.run(["rm", "-rf", target], check=True)
        target.mkdir(parents=True)
        command = ["make", "-s", f"build-{layer}", f"RUNTIME={version}", f"ARCHITECTURE={machine}"]
        subprocess.run([*command, f"ARTIFACTS_DIR={target}"], cwd=ROOT / "layers", check=True)
    return folder


def measure(function: str, build: Path, repetitions: int) -> ColdStart:
    """Raises CalledProcessError when the function cannot be imported."""
    bare = _median_cpu_ms("pass", function, build, repetitions)
    files = (path for layer in LAYERS[function] for path in (build / layer).rglob("*") if path.is_file())
    return ColdStart(
        function,
        _median_cpu_ms(IMPORT, function, build, repetitions) - bare,
        _median_cpu_ms(FIRST_REQUEST, function, build, repetitions) - bare,
        int(_run(FIRST_REQUEST + MEMORY, function, build).splitlines()[-1]) / 1024,
        sum(path.stat().st_size for path in files) / MEGABYTE,
    )


def packages(site: Path) -> list[tuple[str, float]]:
    """What a layer carries and its megabytes, the largest first."""
    sizes = (
        (path.name, sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()) / MEGABYTE)
        for path in site.iterdir()
    )
    return sorted(sizes, key=lambda one: -one[1])


def heaviest(function: str, build: Path) -> list[tuple[str, float]]:
    """Imports by their time, those that they made included; packages of ours and of others, no standard library."""
    command = [sys.executable, "-X", "importtime", "-c", IMPORT, str(ROOT / "functions" / function)]
    trace = subprocess.run(command, env=_environment(function, build), capture_output=True, text=True, check=True)
    return sorted(_imports(trace.stderr), key=lambda one: -one[1])


def _imports(trace: str) -> Iterator[tuple[str, float]]:
    for line in trace.splitlines():
        found = re.match(r"import time:\s+\d+ \|\s+(\d+) \| +([\w.]+)$", line)
        if found and found[2].partition(".")[0] not in {*sys.stdlib_module_names, "app"}:
            yield found[2], int(found[1]) / 1000


def _median_cpu_ms(script: str, function: str, build: Path, repetitions: int) -> float:
    _run(script, function, build)  # the files come from memory from here on
    return statistics.median(_cpu_ms(script, function, build) for _ in range(repetitions))


def _cpu_ms(script: str, function: str, build: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(script, function, build)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000


def _run(script: str, function: str, build: Path) -> str:
    command = [sys.executable, "-c", script, str(ROOT / "functions" / function), *CLIENTS[function]]
    return subprocess.run(
        command, env=_environment(function, build), stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def _environment(function: str, build: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ":".join(str(build / layer / "python") for layer in LAYERS[function]),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # Lambda cannot either
        "POWERTOOLS_SERVICE_NAME": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
    }


if __name__ == "__main__":
    main()
