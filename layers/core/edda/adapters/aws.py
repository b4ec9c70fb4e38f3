"""AWS clients of one execution environment: made on first use, kept while it lives."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from botocore.config import Config

# botocore's own defaults (60 s to connect, 60 s to read, legacy retries) would outlive the function.
OPTIONS: Mapping[str, Any] = {
    "connect_timeout": 3,
    "read_timeout": 20,
    "retries": {"mode": "standard", "total_max_attempts": 4},
    "max_pool_connections": 32,
    # A presigned form must name the virtual host or path that answers: path style works with every emulator.
    "s3": {"addressing_style": "auto"},
}


def usual_config(**changes: Any) -> "Config":
    """botocore's, with ours in place of its defaults. Imported late: botocore is a sixth of a function's import."""
    from botocore.config import Config

    return Config(**{**OPTIONS, **changes})


class AwsClients:
    """`await clients.get("s3")`: one client a service, for the one event loop of the environment."""

    def __init__(self, config: "Config | None" = None) -> None:
        self._config = config
        self._clients: dict[str, Any] = {}
        self._stack = AsyncExitStack()
        self._session: Any = None

    async def get(self, service: str) -> Any:
        """The client of a service, configured from the environment (region, credentials, AWS_ENDPOINT_URL)."""
        if service not in self._clients:
            if self._session is None:
                import aioboto3  # half a second: only for functions that talk to AWS

                self._session = aioboto3.Session()
            # Presigned forms: botocore's default is still version 2 in the oldest regions, which KMS refuses.
            ours = usual_config(signature_version="s3v4") if service == "s3" else usual_config()
            config = ours.merge(self._config) if self._config else ours
            client = self._session.client(service, config=config)
            self._clients[service] = await self._stack.enter_async_context(client)
        return self._clients[service]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every client."""
        self._clients.clear()
        await self._stack.aclose()
