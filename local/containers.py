"""`make sam-build` and `make sam-local`: the same stack with its functions in Lambda's containers.

The emulator runs what has a trigger (chunk, embed, sweep, migrate) and `sam local start-api` serves the API. Files for
`sam local` by hand are left where samconfig.toml looks for them.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg

from local import build, engine
from local.emulator import aws_environment, endpoint_for_functions
from local.errors import LocalError
from local.processes import Child, run_step, serving
from local.settings import (
    ARCHITECTURE,
    OWN_RUNTIME,
    ROOT,
    TENANT,
    Containers,
    LocalSettings,
    add_arguments,
    from_arguments,
    port,
)
from local.stack import Stack, run, sam_pid_file, stack

BUILD = ROOT / ".aws-sam" / "build"
DEFAULT_RUNTIME = "python3.13"  # the template's
FUNCTIONS = (
    "ApiFunction",
    "SearchFunction",
    "AnswerFunction",
    "ChunkFunction",
    "EmbedFunction",
    "SweepFunction",
    "MigrateFunction",
)
# The key in the files of events/. It opens this machine's stack only.
EVENTS_KEY = f"edda_0123456789ab_{'A' * 43}"
START_WITHIN_S = 60

USAGE = """
  API       {api}   ({api}/docs)
  bucket    {bucket}   files under {tenant}/ are taken in as well
  postgres  {database}

  export API={api} KEY={key}
  curl -H "Authorization: Bearer $KEY" -F file=@README.md $API/v1/documents
  curl -H "Authorization: Bearer $KEY" $API/v1/documents
  curl -H "Authorization: Bearer $KEY" $API/v1/search -d '{{"query": "how do I deploy?"}}'

  logs are in {logs}; the first call of a function starts its container; Ctrl-C stops, the data stays
"""


def main() -> int:
    """Entry point of both."""
    parser = argparse.ArgumentParser(
        prog="make sam-build | sam-local", description="The stack with its functions in Lambda containers."
    )
    parser.add_argument("command", choices=("build", "run"))
    parser.add_argument(
        "--build", type=Path, default=BUILD, help="SAM's build folder (default: .aws-sam/build, where sam local looks)"
    )
    parser.add_argument(
        "--runtime",
        default=os.environ.get("RUNTIME", ""),
        help=f"what to build for (RUNTIME; default: {DEFAULT_RUNTIME}, or {OWN_RUNTIME} if its image cannot be pulled)",
    )
    parser.add_argument(
        "--api-port",
        type=port,
        default=os.environ.get("EDDA_API_PORT", "3000"),
        help="port of sam local start-api (EDDA_API_PORT; default: 3000)",
    )
    add_arguments(parser)
    options = parser.parse_args()
    settings = from_arguments(options)
    settings = dataclasses.replace(settings, state=settings.state / "sam-local")
    folder = options.build.expanduser().resolve()

    def command() -> int:
        if len({options.api_port, options.port, options.database_port}) < 3:
            raise LocalError("the API, the emulated AWS and PostgreSQL need a port each")
        if options.runtime and not re.fullmatch(r"python3\.1[1-4]", options.runtime):
            raise LocalError(f"{options.runtime!r} is none of Lambda's Python runtimes, python3.11 to python3.14")
        with engine.trouble():
            if options.command == "build":
                return make_build(settings, folder, options.runtime)
            return _serve(settings, folder, options.api_port)

    return run(command)


def make_build(settings: LocalSettings, folder: Path, runtime: str) -> int:
    """The base image, and a build for it and this machine. Raises LocalError, StepFailed."""
    client = engine.connect()
    if runtime:
        engine.ensure_base_image(client, runtime)
    else:
        runtime = engine.base_image_for(client, DEFAULT_RUNTIME)
    overrides = [f"PythonRuntime={runtime}", f"Architecture={ARCHITECTURE}", "EmbeddingProvider=in-process"]
    began = time.monotonic()
    run_step(
        "sam build",
        [
            *(str(build.SAM), "build", "--template-file", str(ROOT / "template.yaml"), "--parallel"),
            *("--build-dir", str(folder), "--config-env", "none", "--parameter-overrides", *overrides),
        ],
        {**aws_environment(settings), "RUNTIME": runtime, "ARCHITECTURE": ARCHITECTURE},
        settings.logs / "build.log",
        ROOT,
    )
    print(f"  build      {time.monotonic() - began:5.1f} s   {runtime} on {ARCHITECTURE}, for make sam-local")
    return 0


def runtime_of(folder: Path) -> str:
    """The runtime that a build is for. Raises LocalError if it cannot serve here: none, old, or for elsewhere."""
    where, remedy = os.path.relpath(folder), "run make sam-build"
    if not (folder / "template.yaml").exists():
        raise LocalError(f"there is no build in {where}: {remedy}")
    missing = [name for name in (*build.LAYERS, *FUNCTIONS) if not (folder / name).is_dir()]
    if missing:
        raise LocalError(f"the build in {where} lacks {', '.join(missing)}: {remedy}")
    names = [path.name for path in folder.glob("DependenciesLayer/python/psycopg_binary/*.so")]
    found = next((match for name in names if (match := re.search(r"cpython-3(\d+)-(\w+)-linux", name))), None)
    if found is None:
        raise LocalError(f"the build in {where} has no compiled packages for Linux: {remedy}")
    architecture = "arm64" if found[2] == "aarch64" else found[2]
    if architecture != ARCHITECTURE:
        raise LocalError(f"the build in {where} is for {architecture}, this machine is {ARCHITECTURE}: {remedy}")
    made = (folder / "template.yaml").stat().st_mtime
    sources = [ROOT / "template.yaml", *build.files(ROOT / "functions"), *build.files(ROOT / "layers")]
    newer = [path for path in sources if path.stat().st_mtime > made]
    if newer:
        raise LocalError(f"the build in {where} is older than {os.path.relpath(newer[0], ROOT)}: {remedy}")
    return f"python3.{found[1]}"


@contextlib.contextmanager
def stack_in_containers(settings: LocalSettings, folder: Path, api_port: int) -> Iterator[tuple[Stack, str]]:
    """Everything up for as long as the block lasts: the stack and the API's address. Raises LocalError, StepFailed."""
    runtime = runtime_of(folder)
    client = engine.connect()
    engine.ensure_base_image(client, runtime)
    engine.check_containers(client, runtime, settings)
    host, host_is_local = engine.host_for_containers(client)
    settings = dataclasses.replace(settings, containers=Containers(folder, runtime, host, host_is_local, api_port))
    with stack(settings) as up:
        _create_key_of_events(up.database.owner_url)
        write_files(up)
        began = time.monotonic()
        with _start_api(up, api_port) as server:
            print(f"  start-api  {time.monotonic() - began:5.1f} s", flush=True)
            yield (
                dataclasses.replace(up, servers={**up.servers, "sam local start-api": server}),
                f"http://127.0.0.1:{api_port}",
            )


def write_files(up: Stack) -> None:
    """What `sam local` has to know of a running stack, where samconfig.toml looks for it; it holds passwords."""
    parameters = build.parameters(up.settings, up.database.application_url, up.database.owner_url)
    _write(up.settings.state / "parameters.yaml", parameters)
    variables = {
        "AWS_ENDPOINT_URL": endpoint_for_functions(up.settings),  # again: the shell's would come before the template's
        "EDDA_UPLOADS_BUCKET": up.deployment.uploads_bucket,
        "EDDA_INGEST_QUEUE_URL": up.deployment.ingest_queue_url,
        "EDDA_EMBED_QUEUE_URL": up.deployment.embed_queue_url,
    }
    _write(up.settings.state / "variables.json", {"Parameters": variables})


def _write(path: Path, content: object) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=2))  # JSON is YAML as well


@contextlib.contextmanager
def _start_api(up: Stack, api_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`sam local start-api`, as the user would run it, with this stack's files."""
    state = up.settings.state
    scratch = state / "tmp"  # for SAM's locks: one that a killed run has left would be waited for, for minutes
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    child = Child(
        name="sam local start-api",
        command=[
            *(str(build.SAM), "local", "start-api", "--config-file", str(ROOT / "samconfig.toml")),
            *("--template-file", str(build.built(up.settings) / "template.yaml"), "--port", str(api_port)),
            *("--parameter-overrides", f"file://{state / 'parameters.yaml'}"),
            *("--env-vars", str(state / "variables.json")),
        ],
        environment={**sam_environment(up.settings), "TMPDIR": str(scratch)},
        log=up.settings.logs / "start-api.log",
        pid_file=sam_pid_file(up.settings),
        stop_signal=signal.SIGTERM,
        stop_within_s=15,
        folder=state,
    )
    with serving(child, lambda: _answers(api_port), START_WITHIN_S) as server:
        yield server


def sam_environment(settings: LocalSettings) -> dict[str, str]:
    """For a `sam local`: the user's engine, none of the user's AWS."""
    engine_variables = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    aws = {name: value for name, value in aws_environment(settings).items() if name != "AWS_ENDPOINT_URL"}
    return {**aws, **engine_variables, "AWS_MAX_ATTEMPTS": "1"}


def _answers(api_port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", api_port), 1).close()
    except OSError:
        return False
    return True


def _create_key_of_events(owner_url: str) -> None:
    """The files of events/ carry a key: it is one of this stack's tenant."""
    with psycopg.connect(owner_url) as connection:
        connection.execute("INSERT INTO tenants (slug) VALUES (%s) ON CONFLICT DO NOTHING", [TENANT])
        connection.execute(
            "INSERT INTO api_keys (prefix, key_sha256, tenant_id, name) "
            "SELECT %s, %s, tenant_id, 'events' FROM tenants WHERE slug = %s ON CONFLICT DO NOTHING",
            [EVENTS_KEY.split("_")[1], hashlib.sha256(EVENTS_KEY.encode()).digest(), TENANT],
        )


def _serve(settings: LocalSettings, folder: Path, api_port: int) -> int:
    """Up, and wait."""
    with stack_in_containers(settings, folder, api_port) as (up, api):
        print(
            USAGE.format(
                api=api,
                key=EVENTS_KEY,
                tenant=TENANT,
                bucket=up.deployment.uploads_bucket,
                database=up.database.owner_url,
                logs=up.settings.logs,
            ),
            flush=True,
        )
        threading.Thread(target=_warm_up, args=[api], daemon=True).start()
        client, runtime = engine.connect(), up.settings.runtime
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
                up.check()
                engine.check_base_image(client, runtime)
    return 0


def _warm_up(api: str) -> None:
    """SAM makes a function's image and starts its container at the first call: let that not be the user's."""
    headers = {"Authorization": f"Bearer {EVENTS_KEY}"}
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=api, headers=headers, timeout=120) as client:
        client.get("/v1/health")
        client.post("/v1/search", json={"query": "warm", "top_k": 1})


if __name__ == "__main__":
    sys.exit(main())
