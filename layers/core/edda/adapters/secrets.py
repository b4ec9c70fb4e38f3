"""Secrets Manager over aioboto3."""

import json
from collections.abc import Mapping

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from edda.adapters.aws import AwsClients
from edda.errors import RetryableError


class SecretsManager:
    """Reads secrets. Not cached: callers ask when they connect, so that a rotation is picked up."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients

    async def read(self, arn: str) -> Mapping[str, str]:
        """A secret's fields; a plain string is the field `value`."""
        try:
            client = await self._clients.get("secretsmanager")
            text = (await client.get_secret_value(SecretId=arn))["SecretString"]
        except (BotoCoreError, ClientError, HTTPClientError) as error:
            raise RetryableError("A secret could not be read.") from error
        if not text.startswith("{"):
            return {"value": text}
        fields: dict[str, str] = json.loads(text)
        return fields
