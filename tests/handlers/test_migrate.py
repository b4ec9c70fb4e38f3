"""The migrate function as CloudFormation's custom resource, and by hand."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from edda.store.migrations import released_migrations

from tests.handlers.environment import ColdStart, call, event
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
    assert as_owner(urls, "SELECT slug FROM tenants JOIN api_keys USING (tenant_id)") == [("acme",)]


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
