"""The migrate function as CloudFormation's custom resource, and by hand."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from edda.store.migrations import released_migrations

from tests.aws import client, make_queue, take
from tests.handlers.environment import ColdStart, Surroundings, call, event
from tests.handlers.stage import Stage
from tests.postgres import DatabaseUrls, as_owner

NAMES = [migration.name for migration in released_migrations()]


class CloudFormation(HTTPServer):
    """Takes answers at a presigned address."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.answers: list[dict[str, Any]] = []
        self.content_types: list[str | None] = []


class _Answers(BaseHTTPRequestHandler):
    server: CloudFormation

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answers.append(json.loads(body))
        self.server.content_types.append(self.headers["Content-Type"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    with CloudFormation() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def owner_url(empty_database_url: str, aws: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EDDA_DATABASE_OWNER_URL", empty_database_url)
    monkeypatch.setenv("EDDA_EMBEDDING_PROVIDER", "openai")
    monkeypatch.setenv("EDDA_EMBEDDING_MODEL", "fake-embedding")
    monkeypatch.setenv("EDDA_EMBEDDING_DIMENSIONS", "64")
    monkeypatch.setenv("EDDA_FIRST_TENANT", "acme")
    return empty_database_url


def to(cloudformation: CloudFormation, name: str) -> dict[str, Any]:
    address = f"http://127.0.0.1:{cloudformation.server_port}/edda?signature=x"
    return event(name) | {"ResponseURL": address}


def test_creating_the_stack_makes_schema_model_and_tenant_and_says_so_and_updating_it_changes_nothing(
    cold_start: ColdStart, cloudformation: CloudFormation, owner_url: str
) -> None:
    migrate = cold_start("migrate")
    call(migrate, to(cloudformation, "migrate-create.json"))
    update = to(cloudformation, "migrate-create.json") | {"RequestType": "Update", "PhysicalResourceId": "edda-schema"}
    call(migrate, update)
    first, second = cloudformation.answers
    assert first["Status"] == second["Status"] == "SUCCESS"
    assert first["PhysicalResourceId"] == second["PhysicalResourceId"] == "edda-schema"
    for field in ("StackId", "RequestId", "LogicalResourceId"):
        assert first[field] == event("migrate-create.json")[field]
    assert (first["Data"]["applied"], second["Data"]["applied"]) == (NAMES, [])
    assert set(cloudformation.content_types) <= {None, ""}  # the address is signed without one
    urls = DatabaseUrls(owner_url, owner_url)
    assert as_owner(urls, "SELECT name, dimensions FROM embedding_models") == [("openai/fake-embedding", 64)]
    assert as_owner(urls, "SELECT slug FROM tenants") == [("acme",)]


def test_every_minute_indexes_are_built_that_are_due(cold_start: ColdStart, owner_url: str) -> None:
    urls = DatabaseUrls(owner_url, owner_url)
    migrate = cold_start("migrate")
    nothing = {"indexes_built": 0, "indexes_dropped": 0}
    assert call(migrate, event("index.json")) == nothing  # before the first deployment is over
    call(migrate, {})
    assert call(migrate, event("index.json")) == nothing
    as_owner(urls, "SELECT setval('embedding_numbers', 40 * 1024)")
    assert call(migrate, event("index.json")) == nothing | {"indexes_built": 1}
    query = "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'embeddings_hnsw%'"
    assert as_owner(urls, query) == [("embeddings_hnsw_1_0_40",)]


def test_the_price_of_a_million_tokens_is_kept_with_the_model(
    cold_start: ColdStart, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for price in ("0.02", "0.13"):
        monkeypatch.setenv("EDDA_EMBEDDING_PRICE_PER_MILLION_TOKENS", price)
        call(cold_start("migrate"), {})
        urls = DatabaseUrls(owner_url, owner_url)
        assert as_owner(urls, "SELECT price_per_million_tokens::text FROM embedding_models") == [(price,)]


def test_deleting_the_stack_deletes_no_data_and_needs_no_database(
    cold_start: ColdStart, cloudformation: CloudFormation, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDDA_DATABASE_OWNER_URL", "postgresql://127.0.0.1:9/edda")
    migrate = cold_start("migrate")
    for _ in range(2):
        call(migrate, to(cloudformation, "migrate-delete.json"))
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS", "SUCCESS"]


def test_a_migration_that_fails_is_told_to_cloudformation_without_a_secret(
    cold_start: ColdStart, cloudformation: CloudFormation, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDDA_DATABASE_OWNER_URL", "postgresql://owner:top-secret@127.0.0.1:9/edda")
    call(cold_start("migrate"), to(cloudformation, "migrate-create.json"))
    (answer,) = cloudformation.answers
    assert answer["Status"] == "FAILED"
    assert "OperationalError" in answer["Reason"]
    assert "top-secret" not in json.dumps(answer)


@pytest.mark.parametrize(
    "malformed",
    [
        "postgresql://owner:top-secret@host:port/edda",
        "owner:top-secret@host",
        "postgresql://owner:top secret@host/edda",
    ],
)
def test_a_malformed_address_is_told_without_its_password(
    cold_start: ColdStart,
    cloudformation: CloudFormation,
    owner_url: str,
    monkeypatch: pytest.MonkeyPatch,
    malformed: str,
) -> None:
    monkeypatch.setenv("EDDA_DATABASE_OWNER_URL", malformed)
    call(cold_start("migrate"), to(cloudformation, "migrate-create.json"))
    (answer,) = cloudformation.answers
    assert answer["Status"] == "FAILED"
    assert "top" not in answer["Reason"]


def test_by_hand_a_dry_run_says_what_is_pending(cold_start: ColdStart, owner_url: str) -> None:
    migrate = cold_start("migrate")
    for _ in range(2):
        assert call(migrate, {"DryRun": True}) == {"applied": NAMES, "dry_run": True}
    assert call(migrate, {})["applied"] == NAMES
    assert call(migrate, {"DryRun": True}) == {"applied": [], "dry_run": True}


def test_by_hand_a_migration_that_fails_fails_loudly(
    cold_start: ColdStart, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDDA_DATABASE_OWNER_URL", "postgresql://127.0.0.1:9/edda")
    with pytest.raises(Exception, match="connection"):
        call(cold_start("migrate"), {})


def test_a_key_is_made_by_hand_where_only_the_function_reaches_the_database(
    cold_start: ColdStart, owner_url: str
) -> None:
    migrate = cold_start("migrate")
    call(migrate, {})
    made = call(migrate, {"CreateKey": {"tenant": "acme"}})
    assert made["key"].startswith("edda_")
    urls = DatabaseUrls(owner=owner_url, app=owner_url)
    keys = "SELECT slug FROM tenants JOIN api_keys USING (tenant_id) WHERE revoked_at IS NULL"
    assert as_owner(urls, keys) == [("acme",)]
    revoked = {"RevokeKey": {"prefix": made["key"].split("_")[1]}}
    assert call(migrate, revoked) == {"revoked": revoked["RevokeKey"]["prefix"]}
    assert as_owner(urls, keys) == []
    with pytest.raises(Exception, match="No key in use"):
        call(migrate, revoked)


# What an operator does, where only the function reaches the database ------------------------------------------------


@pytest.fixture
def queues(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    made = {"ingest": make_queue(), "embed": make_queue()}
    for name, url in made.items():
        monkeypatch.setenv(f"EDDA_{name.upper()}_DEAD_LETTER_QUEUE_URL", url)
    return made


@pytest.mark.usefixtures("owner_of_acme")
def test_a_failed_document_and_a_tenant_are_begun_again_by_hand(
    cold_start: ColdStart, surroundings: Surroundings
) -> None:
    surroundings.put("acme/handbook/welcome aboard.md", "")
    call(cold_start("chunk"), event("s3-put.json"))
    ((document_id,),) = surroundings.rows("SELECT document_id FROM documents")
    migrate = cold_start("migrate")
    assert call(migrate, {"Redrive": {"document": str(document_id)}}) == {"begun": 1}
    assert call(migrate, {"Redrive": {"tenant": "acme"}}) == {"begun": 0}
    assert call(cold_start("sweep"), event("sweep.json"))["versions_rung"] == 1


@pytest.mark.usefixtures("owner_of_acme")
def test_dead_letters_are_moved_back_by_hand_without_those_that_are_stale(
    cold_start: ColdStart, surroundings: Surroundings, queues: dict[str, str]
) -> None:
    nothing = json.loads(event("embed.json")["Records"][0]["body"])
    client("sqs").send_message(QueueUrl=queues["embed"], MessageBody=json.dumps(nothing))
    lost = {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "acme/a", "sequencer": "01"}}}]}
    client("sqs").send_message(QueueUrl=queues["ingest"], MessageBody=json.dumps(lost))
    migrate = cold_start("migrate")
    counts = {"moved": 0, "stale": 1, "unreadable": 0, "not_sent": 0}
    assert call(migrate, {"Redrive": {"queue": "embed"}}) == counts
    assert call(migrate, {"Redrive": {"queue": "ingest"}}) == counts | {"moved": 1, "stale": 0}
    assert [json.loads(message["body"]) for message in take(surroundings.ingest_queue)] == [lost]
    assert take(surroundings.embed_queue) == take(queues["ingest"]) == []


@pytest.mark.usefixtures("owner_of_acme")
def test_held_deletes_are_confirmed_or_discarded_by_hand(cold_start: ColdStart, surroundings: Surroundings) -> None:
    surroundings.put("acme/handbook/welcome aboard.md", "")
    call(cold_start("chunk"), event("s3-put.json"))
    migrate = cold_start("migrate")
    for request, hold, answer in [
        ({"DiscardDeletes": {"tenant": "acme"}}, "held", {"kept": 1}),
        ({"ConfirmDeletes": {"tenant": "acme"}}, "kept", {"deleted": 0}),
        ({"ConfirmDeletes": {"tenant": "acme"}}, "held", {"deleted": 1}),
    ]:
        surroundings.rows("UPDATE documents SET hold = %s", [hold])
        assert call(migrate, request) == answer


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"Redrive": {}}, "needs one of"),
        ({"Redrive": {"tenant": "acme", "queue": "ingest"}}, "needs one of"),
        ({"Redrive": {"queue": "other"}}, "ingest or embed"),
        ({"Redrive": {"queue": "ingest"}}, "EDDA_INGEST_DEAD_LETTER_QUEUE_URL"),
        ({"Redrive": {"tenant": "nobody"}}, "no tenant 'nobody'"),
        ({"Redrive": {"document": "0193c7f0-0000-7000-8000-000000000001"}}, "no document"),
        ({"ConfirmDeletes": {"document": "x"}}, "needs one of"),
        ({"DiscardDeletes": {"tenant": "nobody"}}, "no tenant 'nobody'"),
    ],
)
@pytest.mark.usefixtures("owner_of_acme", "surroundings")
def test_what_cannot_be_done_by_hand_says_why(cold_start: ColdStart, request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        call(cold_start("migrate"), request_)


# The same from a shell ------------------------------------------------------------------------------------------------


def admin(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edda.admin", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_commands_print_counts_and_clear_errors(stage: Stage) -> None:
    client = stage.client.upload(b" ", "blank.txt")
    stage.digest()
    document_id, slug = client.json["document_id"], stage.world.tenant.slug
    url = stage.world.urls.app
    began = admin("redrive", "--document", document_id, EDDA_DATABASE_URL=url)
    assert (began.returncode, began.stdout) == (0, "{'begun': 1}\n")
    confirmed = admin("confirm-deletes", "--tenant", slug, EDDA_DATABASE_URL=url)
    assert (confirmed.returncode, confirmed.stdout) == (0, "{'deleted': 0}\n")
    nobody = admin("redrive", "--tenant", "nobody", EDDA_DATABASE_URL=url)
    assert (nobody.returncode, nobody.stderr) == (1, "NotFound: There is no tenant 'nobody'.\n")
    nowhere = admin("discard-deletes", "--tenant", slug)
    assert (nowhere.returncode, "EDDA_DATABASE_URL" in nowhere.stderr) == (2, True)
    owner = admin("confirm-deletes", "--tenant", slug, EDDA_DATABASE_URL=stage.world.urls.owner)
    assert (owner.returncode, "rows of all tenants" in owner.stderr) == (1, True)
    both = admin("redrive", "--tenant", slug, "--queue", "ingest", EDDA_DATABASE_URL=url)
    assert (both.returncode, "not allowed with" in both.stderr) == (2, True)


def test_caps_are_set_by_hand_and_a_tenant_that_is_none_is_told(cold_start: ColdStart, owner_url: str) -> None:
    migrate = cold_start("migrate")
    call(migrate, {})
    call(migrate, {"CreateKey": {"tenant": "acme"}})
    call(migrate, {"SetCaps": {"tenant": "acme", "tokens_per_day": 5, "cost_per_month": 1.5}})
    urls = DatabaseUrls(owner=owner_url, app=owner_url)
    caps = "SELECT tokens_per_day, tokens_per_month, cost_per_day, cost_per_month::text FROM usage_caps"
    assert as_owner(urls, caps) == [(5, None, None, "1.5")]
    call(migrate, {"SetCaps": {"tenant": "acme"}})
    assert as_owner(urls, caps) == [(None, None, None, None)]
    with pytest.raises(Exception, match="no tenant acmee"):
        call(migrate, {"SetCaps": {"tenant": "acmee"}})
    for wrong in (
        {"tokens_per_day": -1}, {"tokens_per_month": 2**63}, {"tokens_per_day": 0.5}, {"cost_per_day": "NaN"},
        {"cost_per_month": "Infinity"}, {"cost_per_day": -0.01}, {"cost_per_day": "much"}, {"tokens_per_year": 5},
    ):  # fmt: skip
        with pytest.raises(Exception, match=next(iter(wrong))):
            call(migrate, {"SetCaps": {"tenant": "acme", **wrong}})
    assert as_owner(urls, caps) == [(None, None, None, None)]


def test_a_webhook_is_set_and_removed_by_hand(cold_start: ColdStart, owner_url: str) -> None:
    migrate = cold_start("migrate")
    call(migrate, {})
    call(migrate, {"CreateKey": {"tenant": "acme"}})
    made = call(migrate, {"SetWebhook": {"tenant": "acme", "url": "https://acme.example/hooks"}})
    urls = DatabaseUrls(owner=owner_url, app=owner_url)
    webhooks = "SELECT url, secret FROM webhooks"
    assert as_owner(urls, webhooks) == [("https://acme.example/hooks", made["secret"])]
    for wrong in ({"url": "http://acme.example/"}, {"url": "https://acme.example/", "secret": "short"}):
        with pytest.raises(Exception, match="webhook's"):
            call(migrate, {"SetWebhook": {"tenant": "acme", **wrong}})
    call(migrate, {"RemoveWebhook": {"tenant": "acme"}})
    assert as_owner(urls, webhooks) == []


def test_the_commands_of_the_owner_do_the_same_from_a_shell(owner_url: str) -> None:
    def done(*arguments: str) -> str:
        ended = admin(*arguments, EDDA_DATABASE_OWNER_URL=owner_url)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    urls = DatabaseUrls(owner=owner_url, app=owner_url)
    assert "0001_schema.sql" in done("migrate")
    key = done("create-key", "--tenant", "acme", "--name", "mine")
    assert as_owner(urls, "SELECT name, prefix FROM api_keys") == [("mine", key.split("_")[1])]
    done("set-caps", "--tenant", "acme", "--tokens-per-day", "5")
    assert as_owner(urls, "SELECT tokens_per_day, cost_per_day FROM usage_caps") == [(5, None)]
    secret = done("set-webhook", "--tenant", "acme", "--url", "https://acme.example/hooks")
    assert as_owner(urls, "SELECT url, secret FROM webhooks") == [("https://acme.example/hooks", secret)]
    done("remove-webhook", "--tenant", "acme")
    assert as_owner(urls, "SELECT count(*) FROM webhooks") == [(0,)]
    done("revoke-key", key.split("_")[1])
    again = admin("revoke-key", key.split("_")[1], EDDA_DATABASE_OWNER_URL=owner_url)
    assert (again.returncode, "No key in use" in again.stderr) == (1, True)
    nowhere = admin("revoke-key", "x")
    assert (nowhere.returncode, "EDDA_DATABASE_OWNER_URL" in nowhere.stderr) == (2, True)
    malformed = admin("revoke-key", "x", EDDA_DATABASE_OWNER_URL="postgresql://u:hunter2@[/edda")
    assert (malformed.returncode, "hunter2" in malformed.stderr, "Traceback" in malformed.stderr) == (1, False, False)
