"""`sam deploy` of the built template to the emulator, when something changed."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from local import build
from local.emulator import aws_environment
from local.errors import LocalError
from local.processes import run_step
from local.settings import REGION, ROOT, STACK_NAME, LocalSettings


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the template's outputs say, as this machine reaches it."""

    api_url: str
    uploads_bucket: str
    ingest_queue_url: str
    ingest_dead_letter_queue_url: str
    embed_queue_url: str
    embed_dead_letter_queue_url: str


def fingerprint(settings: LocalSettings, parameters: dict[str, str]) -> str:
    """Of all that goes into a deployment; the parameters hold passwords, so only their hash."""
    values = json.dumps([build.identity(settings), parameters, settings.port, settings.zipped_layers], sort_keys=True)
    return hashlib.sha256(values.encode()).hexdigest()


def is_current(settings: LocalSettings, parameters: dict[str, str]) -> bool:
    """Whether the emulator's saved state holds just this deployment. Raises LocalError if it is of another port."""
    mark = _mark(settings)
    if not mark.exists() or not _written(settings):
        return False
    deployed = json.loads(mark.read_text())
    if deployed["port"] != settings.port:
        raise LocalError(
            f"this stack was made for port {deployed['port']}: set EDDA_PORT={deployed['port']}, or make clean first"
        )
    return bool(deployed["fingerprint"] == fingerprint(settings, parameters))


def sam_deploy(settings: LocalSettings, parameters: dict[str, str]) -> None:
    """`sam deploy` to the running emulator. Raises StepFailed."""
    real_layers = settings.containers is not None or settings.zipped_layers
    template = build.packed(settings) if real_layers else build.linked(settings)
    run_step(
        "sam deploy",
        [
            *(str(build.SAM), "deploy", "--template-file", str(template), "--config-env", "none"),
            *("--stack-name", STACK_NAME, "--region", REGION, "--resolve-s3", "--capabilities", "CAPABILITY_IAM"),
            *("--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-progressbar"),
            *("--parameter-overrides", *build.as_overrides(parameters)),
        ],
        aws_environment(settings),
        settings.logs / "deploy.log",
        ROOT,
        within_s=300,  # a migration that cannot start never answers, and CloudFormation would wait for 15 minutes
    )
    build.forget_copy(settings)
    _repair_concurrency(settings)


@contextlib.contextmanager
def deployment(
    settings: LocalSettings,
    parameters: dict[str, str],
    deploy: Callable[[LocalSettings, dict[str, str]], None] = sam_deploy,
) -> Iterator[Callable[[], None]]:
    """What deploys the build, to be called while the emulator is up; it may raise StepFailed.

    The emulator writes its state when it stops, so run it inside this block. At the block's end what it knows is the
    deployment or, if that failed or was not written, what it was before: a stack whose update failed takes no other.
    """
    state, before = settings.state / "emulator" / "state", settings.state / "emulator" / "state-before"
    mark, deployed = _mark(settings), fingerprint(settings, parameters)
    mark.unlink(missing_ok=True)
    written_before = _written(settings)
    shutil.rmtree(before, ignore_errors=True)
    if state.exists():
        shutil.copytree(state, before)
    succeeded = False

    def deploy_now() -> None:
        nonlocal succeeded
        deploy(settings, parameters)
        succeeded = True

    try:
        yield deploy_now
    finally:
        if succeeded and _written(settings) != written_before:
            mark.write_text(json.dumps({"port": settings.port, "fingerprint": deployed}))
        else:
            shutil.rmtree(state, ignore_errors=True)
            if before.exists():
                before.rename(state)
        shutil.rmtree(before, ignore_errors=True)


def describe(settings: LocalSettings) -> Deployment:
    """Read the outputs of the deployed stack."""
    stack = client(settings, "cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return Deployment(
        # By path: <id>.execute-api.localhost is not resolved everywhere.
        api_url=f"{settings.endpoint}/_aws/execute-api/{outputs['ApiId']}",
        uploads_bucket=outputs["UploadsBucket"],
        ingest_queue_url=outputs["IngestQueueUrl"],
        ingest_dead_letter_queue_url=outputs["IngestDeadLetterQueueUrl"],
        embed_queue_url=outputs["EmbedQueueUrl"],
        embed_dead_letter_queue_url=outputs["EmbedDeadLetterQueueUrl"],
    )


def client(settings: LocalSettings, service: str) -> Any:
    """A boto3 client of the emulator."""
    return boto3.client(
        service,
        endpoint_url=settings.endpoint,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - the emulator takes any
    )


def _repair_concurrency(settings: LocalSettings) -> None:
    """The emulator keeps `MaximumConcurrency: !Ref Parameter` as text and cannot compare that: say it as a number."""
    functions = client(settings, "lambda")
    for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
        concurrency = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": concurrency})


def _written(settings: LocalSettings) -> int:
    """When the emulator last wrote what it knows of stacks; 0 if it never did."""
    state = settings.state / "emulator" / "state" / "cloudformation.json"
    return state.stat().st_mtime_ns if state.exists() else 0


def _mark(settings: LocalSettings) -> Path:
    return settings.state / "deployed.json"
