"""Secrets Manager: fields, plain strings, and what is not there."""

from uuid import uuid4

import pytest
from edda.adapters.aws import AwsClients
from edda.adapters.secrets import SecretsManager
from edda.errors import RetryableError

from tests.aws import client


def make_secret(text: str) -> str:
    """A new secret's ARN."""
    arn: str = client("secretsmanager").create_secret(Name=uuid4().hex, SecretString=text)["ARN"]
    return arn


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"username": "edda", "password": "p{w"}', {"username": "edda", "password": "p{w"}),
        ("sk-plain", {"value": "sk-plain"}),
        ("12345", {"value": "12345"}),
    ],
)
async def test_a_secret_is_its_fields_and_a_plain_string_is_a_value(
    aws: str, text: str, fields: dict[str, str]
) -> None:
    async with AwsClients() as clients:
        assert await SecretsManager(clients).read(make_secret(text)) == fields


async def test_a_rotated_secret_is_read_anew(aws: str) -> None:
    arn = make_secret("before")
    async with AwsClients() as clients:
        secrets = SecretsManager(clients)
        assert await secrets.read(arn) == {"value": "before"}
        client("secretsmanager").put_secret_value(SecretId=arn, SecretString="after")
        assert await secrets.read(arn) == {"value": "after"}


async def test_a_secret_that_cannot_be_read_is_tried_again(aws: str) -> None:
    async with AwsClients() as clients:
        with pytest.raises(RetryableError):
            await SecretsManager(clients).read("arn:aws:secretsmanager:eu-central-1:123456789012:secret:nothing-abcdef")
