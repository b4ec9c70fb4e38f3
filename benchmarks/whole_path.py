"""From object to ready on the local stack: `python -m benchmarks.whole_path --objects 200 --chunks 10`.

The template as it is, deployed to the emulator, with the mock provider instead of the in-process model. Text files are
put straight into the bucket; it counts until the last of them is ready. Where the time goes is read from the rows (how
long a document waited and was worked on) and from the CPU seconds of each process: the emulator, which plays S3, SQS
and Lambda's poller in Python, shares the cores with the functions, so this says what one machine does, not what AWS
would.
"""

import argparse
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks.contestants import ROOT
from benchmarks.corpus import corpus, read
from benchmarks.postgres import free_port
from benchmarks.processes import RunningProvider, cpu_with_children_s, provider
from benchmarks.regimes import REGIMES
from local import deploy
from local.postgres import data_home
from local.settings import LocalSettings
from local.stack import Stack, create_api_key, stack

TENANT = "benchmark"
SENDERS = 8
EVERY_S = 0.2
PROVIDER_PORT = 18_765  # the same each time: another address would be another deployment
ENDED = "SELECT count(*) FROM document_versions WHERE finished_at IS NOT NULL"
STAGES = {  # of a document, in seconds
    "from S3 until it was known": "v.created_at - v.modified_at",
    "from then until it was chunked": "v.chunked_at - v.created_at",
    "from then until it was ready": "v.finished_at - v.chunked_at",
    "from S3 until it was ready": "v.finished_at - v.modified_at",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_path", description=__doc__)
    parser.add_argument("--objects", type=int, default=200)
    parser.add_argument("--chunks", type=int, default=10, help="of an object, about")
    parser.add_argument("--dimensions", type=int, default=1536, choices=(384, 1536))
    parser.add_argument("--regime", default="unlimited", choices=sorted(REGIMES))
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=2, help="functions of each kind at the same time")
    parser.add_argument("--within", type=float, default=600, metavar="S", help="give up after this")
    parser.add_argument("--state", type=Path, default=ROOT / ".bench", help="folder of stack, corpus and results")
    arguments = parser.parse_args()
    state = arguments.state.resolve()
    texts = read(corpus(state, arguments.objects * arguments.chunks * arguments.repetitions))
    settings = LocalSettings(
        state=state / "stack",
        port=free_port(),
        database_port=free_port(),
        zipped_layers=False,
        parameters={
            "EmbeddingProvider": "openai",
            "EmbeddingModel": "benchmark",
            "EmbeddingDimensions": str(arguments.dimensions),
            "ProviderBaseUrl": f"http://127.0.0.1:{PROVIDER_PORT}/v1",
            "ChunkConcurrency": str(arguments.concurrency),
            "EmbedConcurrency": str(arguments.concurrency),
            "FirstTenant": TENANT,
        },
    )
    forget(settings)
    results = []
    behaviour = replace(REGIMES[arguments.regime].behaviour, port=PROVIDER_PORT, dimensions=arguments.dimensions)
    with provider(behaviour) as mock, stack(settings) as running:
        create_api_key(running.database, TENANT)
        waiting = iter(texts)
        warm_up = ["\n\n".join(islice(iter(texts), 3)) + f"\n\nwarm {number}" for number in range(2)]
        ingest(running, mock, "warm", warm_up, arguments.within)
        for repetition in range(arguments.repetitions):
            objects = ["\n\n".join(islice(waiting, arguments.chunks)) for _ in range(arguments.objects)]
            results.append(ingest(running, mock, f"run-{repetition}", objects, arguments.within))
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    report = {
        "began": datetime.now(UTC).isoformat(),
        "command": sys.argv,
        "cores": os.cpu_count(),
        "medians": {name: median(one[name] for one in results) for name in ("objects_a_s", "chunks_a_s", "seconds")},
        "turns": results,
    }
    folder = state / "results" / f"whole-path-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report["medians"]))
    print(f"results: {folder}")


def forget(settings: LocalSettings) -> None:
    """Each run begins without data, on ports of its own; what was built stays."""
    settings.state.mkdir(parents=True, exist_ok=True)
    for left in (data_home(settings), settings.state / "emulator"):
        shutil.rmtree(left, ignore_errors=True)


def ingest(running: Stack, mock: RunningProvider, name: str, objects: list[str], within_s: float) -> dict[str, Any]:
    """Put these into the bucket, all as fast as it takes them, and wait until the last one has ended."""
    s3 = deploy.client(running.settings, "s3")
    pids = {"postgres": running.database.server.pid, "provider": mock.pid}
    pids["emulator and functions"] = running.servers["the emulator"].pid

    def put(number: int) -> None:
        key = f"{TENANT}/{name}/{number}.txt"
        s3.put_object(Bucket=running.deployment.uploads_bucket, Key=key, Body=objects[number].encode())

    with psycopg.connect(running.database.owner_url, autocommit=True) as connection:
        tenant = connection.execute("SELECT tenant_id FROM tenant_of_slug(%s)", [TENANT]).fetchall()[0][0]
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
        before = int(connection.execute(ENDED).fetchall()[0][0])
        cpu_before = {process: cpu_with_children_s(pid) for process, pid in pids.items()}
        asked_before = mock.stats()["requests"]
        began = time.monotonic()
        with ThreadPoolExecutor(SENDERS) as senders:
            list(senders.map(put, range(len(objects))))
        put_s = time.monotonic() - began
        _wait(running, connection, before + len(objects), began + within_s)
        seconds = time.monotonic() - began
        mine = f"FROM document_versions v JOIN documents d USING (document_id) WHERE d.object_key LIKE '%/{name}/%'"
        counted = connection.execute(f"SELECT v.status, count(*) {mine} GROUP BY 1".encode()).fetchall()
        states = {str(status): int(documents) for status, documents in counted}
        if states != {"ready": len(objects)}:
            raise SystemExit(f"not all objects became ready: {states}")
        chunks = int(connection.execute(f"SELECT sum(planned_chunks) {mine}".encode()).fetchall()[0][0])
        spans = ", ".join(
            f"percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM {span}))"
            for span in STAGES.values()
        )
        (stages,) = connection.execute(f"SELECT {spans} {mine}".encode()).fetchall()
    return {
        "objects": len(objects),
        "chunks": chunks,
        "seconds": round(seconds, 2),
        "put_s": round(put_s, 2),
        "objects_a_s": round(len(objects) / seconds, 2),
        "chunks_a_s": round(chunks / seconds, 1),
        "provider_requests": mock.stats()["requests"] - asked_before,
        "stages_p50_p95_s": {
            stage: [round(float(one), 2) for one in found] for stage, found in zip(STAGES, stages, strict=True)
        },
        "cpu_s": {process: round(cpu_with_children_s(pid) - cpu_before[process], 2) for process, pid in pids.items()},
        "load": round(os.getloadavg()[0], 2),
    }


def _wait(running: Stack, connection: psycopg.Connection[Any], ended: int, until: float) -> None:
    while int(connection.execute(ENDED).fetchall()[0][0]) < ended:
        running.check()
        if time.monotonic() > until:
            raise SystemExit("not all objects came to an end in time; logs are in the stack's folder")
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
