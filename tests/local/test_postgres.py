"""The embedded server: its data stays, its roles are those of a deployment."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from local.postgres import data_home, database
from local.settings import LocalSettings


@pytest.fixture
def settings(tmp_path: Path, free_ports: tuple[int, int]) -> Iterator[LocalSettings]:
    """A state folder of the test's own; the server's files may have to be elsewhere."""
    settings = LocalSettings(state=tmp_path, port=free_ports[0], database_port=free_ports[1], zipped_layers=False)
    yield settings
    shutil.rmtree(data_home(settings), ignore_errors=True)


def test_data_is_found_again_and_roles_are_those_of_a_deployment(settings: LocalSettings) -> None:
    with database(settings) as first:
        assert first.is_new
        with psycopg.connect(first.owner_url, autocommit=True) as owner:
            owner.execute("CREATE TABLE kept (vector halfvec(3))")
            owner.execute("INSERT INTO kept VALUES ('[1,2,3]')")
        with psycopg.connect(first.application_url) as application, pytest.raises(errors.InsufficientPrivilege):
            application.execute("SELECT * FROM kept")
        with psycopg.connect(first.application_url) as application:
            rights = "SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user"
            assert application.execute(rights).fetchone() == (False, False, False)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(first.owner_url, connect_timeout=2)
    with database(settings) as second:
        assert not second.is_new
        assert second.application_url == first.application_url
        with psycopg.connect(second.owner_url) as owner:
            assert owner.execute("SELECT count(*) FROM kept").fetchone() == (1,)
