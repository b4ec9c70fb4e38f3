"""Which memory size is the cheapest: `python -m benchmarks.memory_sizes`. embed and chunk at Lambda's shares of a CPU.

Lambda gives one CPU for 1,769 MB and a share of it for less. Each size is one turn of the real handler in a control
group with that share (root, Linux), at the provider's usual latency: what waits costs the same at any share, what
computes takes longer. Results are seconds for 1,000 chunks by size, which benchmarks.cost turns into dollars.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.contestants import CONTESTANTS, ROOT
from benchmarks.corpus import corpus, read
from benchmarks.postgres import TENANT, Fresh, Server, server
from benchmarks.processes import turn
from benchmarks.regimes import REGIMES
from benchmarks.running import Cell, Stage, turns

SIZES = (512, 768, 1024, 1280, 1769, 2048, 3008)
LEAST_MEGABYTES, MOST_MEGABYTES = 128, 10_240
ONE_CPU_MEGABYTES = 1769  # Lambda's documentation: the equivalent of one vCPU
PERIOD_US = 20_000
DIMENSIONS = 1536  # as in the record of python -m benchmarks
DOCUMENT_CHUNKS = 40
DOCUMENT_SUFFIXES = {".txt", ".md", ".html", ".pdf", ".docx", ".pptx", ".xlsx", ".csv", ".eml"}
CGROUPS = Path("/sys/fs/cgroup")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_sizes", description=__doc__)
    parser.add_argument("--function", choices=("embed", "chunk"), nargs="+", default=["embed", "chunk"])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="MB", help="0: all CPU")
    parser.add_argument("--chunks", type=int, default=2000, help="a turn (2,000)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--documents", type=Path, help="files to chunk (text, 40 chunks each, if it is not given)")
    parser.add_argument("--state", type=Path, default=ROOT / ".bench", help="as for python -m benchmarks")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    if any(size and not LEAST_MEGABYTES <= size <= MOST_MEGABYTES for size in arguments.sizes):
        parser.error(f"Lambda has from {LEAST_MEGABYTES} to {MOST_MEGABYTES} MB")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # in good order: control groups stay otherwise
    state = arguments.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    with server(state) as running:
        for function in arguments.function:
            print(f"\n{function}: | MB | s for 1,000 chunks | CPU s | peak MB | chunks an event |", flush=True)
            for size in arguments.sizes:
                with cpu_share(size) as prefix:
                    measure = embed if function == "embed" else chunk
                    one = measure(running, state, prefix, arguments)
                found.append({"function": function, "megabytes": size, "load": os.getloadavg()[0], **one})
                print(
                    f"{function}: | {size} | {one['seconds_a_thousand']:.3f} | {one['cpu_s_a_thousand']:.3f} "
                    f"| {one['peak_megabytes']:.0f} | {one['chunks_an_event']:.0f} |",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


@contextlib.contextmanager
def cpu_share(megabytes: int) -> Iterator[Sequence[str]]:
    """What to put before a command so that it has this size's share; nothing for 0, which is all there is.

    Raises SystemExit where no control group can be made.
    """
    if not megabytes:
        yield ()
        return
    quota_us = max(1000, int(PERIOD_US * megabytes / ONE_CPU_MEGABYTES))
    old = CGROUPS / "cpu" / "cpu.shares"
    group = (CGROUPS / "cpu" if old.exists() else CGROUPS) / f"edda-{os.getpid()}"
    try:
        group.mkdir()
        if old.exists():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    except OSError as error:
        raise SystemExit(f"no control group for CPU can be made here ({error}): run as root on Linux") from None
    try:
        yield "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"
    finally:
        group.rmdir()


def embed(running: Server, state: Path, prefix: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    alone = CONTESTANTS["edda/one-environment"]
    slowed = replace(alone, command=[*prefix, *alone.command])
    cell = Cell(REGIMES["unlimited"], arguments.chunks, DIMENSIONS, [slowed], arguments.repetitions)
    results = list(turns(Stage(running, state, None, 600), [cell]))
    for one in results:
        if "error" in one:
            raise SystemExit(one["error"])
    return _medians(
        [
            (one["seconds"], one["cpu_s"], one["peak_megabytes"], one["chunks"], one["said"]["invocations"])
            for one in results
        ]
    )


def chunk(running: Server, state: Path, prefix: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """The bucket and the queues are moto's, in this process: they are not within the share."""
    found = []
    for _ in range(arguments.repetitions):
        with emulator() as endpoint, running.fresh("edda", DIMENSIONS) as fresh:
            task = fill(endpoint, state, arguments) | {"database_url": fresh.application_url, "dimensions": DIMENSIONS}
            file = state / "logs" / "chunk.task.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(task))
            effort = turn(
                [*prefix, sys.executable, "-m", "benchmarks.chunk", str(file)],
                {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
                | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"},
                state / "logs" / "chunk.log",
                600,
                at_go=lambda: None,
            )
            stored = chunks_stored(fresh)
            found.append((effort.seconds, effort.cpu_s, effort.peak_megabytes, stored, effort.said["events"]))
    return _medians(found)


def chunks_stored(fresh: Fresh) -> int:
    """Those of the first document came before the start. Raises SystemExit when a document failed."""
    failed = fresh.rows("SELECT error_code FROM document_versions WHERE status = 'failed'", [])
    if failed:
        print(f"  {len(failed)} documents have no chunks: {sorted({code for (code,) in failed})}", file=sys.stderr)
    query = (
        "SELECT count(*) FROM chunks JOIN document_versions USING (version_id) JOIN documents d USING (document_id) "
    )
    return int(fresh.rows(query + "WHERE d.object_key NOT LIKE '%%/0000-%%'", [])[0][0])


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        running.stop()


def fill(endpoint: str, state: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A bucket with the documents, and two queues: the task's part that names them."""
    import boto3

    keys = {"aws_access_key_id": "benchmark", "aws_secret_access_key": "benchmark", "region_name": "us-east-1"}
    s3, sqs = (boto3.client(service, endpoint_url=endpoint, **keys) for service in ("s3", "sqs"))
    bucket = f"uploads-{uuid4().hex}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    objects = []
    for number, (name, body) in enumerate(documents(state, arguments)):
        key = f"{TENANT}/{number:04}-{name}"
        put = s3.put_object(Bucket=bucket, Key=key, Body=body)
        objects.append({"key": key, "size": len(body), "version_id": put["VersionId"]})
    urls = {kind: sqs.create_queue(QueueName=f"{kind}-{uuid4().hex}")["QueueUrl"] for kind in ("ingest", "embed")}
    return {
        "aws_endpoint_url": endpoint,
        "bucket": bucket,
        "objects": objects,
        "ingest_queue_url": urls["ingest"],
        "embed_queue_url": urls["embed"],
    }


def documents(state: Path, arguments: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """The first one is for warming up."""
    if arguments.documents:
        files = sorted(path for path in arguments.documents.rglob("*") if path.suffix.lower() in DOCUMENT_SUFFIXES)
        yield files[0].name, files[0].read_bytes()
        yield from ((path.name, path.read_bytes()) for path in files)
        return
    texts = read(corpus(state, arguments.chunks + DOCUMENT_CHUNKS))
    for start in range(0, len(texts), DOCUMENT_CHUNKS):
        yield "text.md", "\n\n".join(texts[start : start + DOCUMENT_CHUNKS]).encode()


def _medians(turns_taken: list[tuple[float, float, float, int, int]]) -> dict[str, Any]:
    middle = [statistics.median(column) for column in zip(*turns_taken, strict=True)]
    seconds, cpu_s, peak, chunks, events = middle
    return {
        "seconds_a_thousand": seconds / chunks * 1000,
        "cpu_s_a_thousand": cpu_s / chunks * 1000,
        "peak_megabytes": peak,
        "chunks_an_event": chunks / events,
    }


if __name__ == "__main__":
    main()
