"""The environment, typed."""

import pytest
from edda.settings import Settings
from pydantic import ValidationError


def settings(**variables: str) -> Settings:
    return Settings.from_environment(variables)


def test_without_any_variable_the_defaults_hold() -> None:
    assert settings() == Settings()
    assert settings().embedding_provider == "in-process"


def test_a_variable_is_read_by_its_name_and_turned_into_its_type() -> None:
    read = settings(EDDA_MAX_DOCUMENT_BYTES="1000", EDDA_PARSE_TIMEOUT_S="1.5", EDDA_DATABASE_URL=" postgresql://x ")
    assert (read.max_document_bytes, read.parse_timeout_s, read.database_url) == (1000, 1.5, "postgresql://x")


def test_an_empty_variable_counts_as_absent() -> None:
    """A template's condition cannot leave a variable out everywhere."""
    assert settings(EDDA_EMBEDDING_DIMENSIONS="", EDDA_EMBEDDING_MODEL="") == Settings()


def test_variables_of_others_are_not_read() -> None:
    assert settings(AWS_REGION="eu-central-1", DATABASE_URL="x", EDDA_UNHEARD_OF="x") == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDDA_EMBEDDING_PROVIDER", "acme"),
        ("EDDA_EMBEDDING_DIMENSIONS", "0"),
        ("EDDA_EMBEDDING_LANGUAGES", "english"),
        ("EDDA_EMBEDDING_DIMENSIONS", "4001"),
        ("EDDA_EMBEDDING_DIMENSIONS", "many"),
        ("EDDA_MAX_DOCUMENT_BYTES", "0"),
        ("EDDA_MAX_DOCUMENT_BYTES", str(2 * 1024**3)),
        ("EDDA_CHUNK_TOKENS", "1"),
        ("EDDA_CHUNK_OVERLAP_TOKENS", "-1"),
        ("EDDA_CHUNK_OVERLAP_TOKENS", "101"),  # of 200
        ("EDDA_PARSE_TIMEOUT_S", "0"),
        ("EDDA_PARSE_MEMORY_BYTES", "1"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name.removeprefix("EDDA_").lower() + "|" + name):
        settings(**{name: value})


@pytest.mark.parametrize("wrong", [{"EDDA_CHUNK_OVERLAP_TOKENS": "101"}, {"EDDA_CHUNK_TOKENS": "x"}])
def test_what_is_wrong_is_told_without_the_values(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as raised:
        settings(EDDA_DATABASE_URL="postgresql://edda:top-secret@host/edda", **wrong)
    assert "top-secret" not in str(raised.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().uploads_bucket = "other"
