"""EventBridge over aioboto3."""

import logging
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from edda.adapters.aws import AwsClients
from edda.models import BusEvent

logger = logging.getLogger(__name__)

SOURCE = "edda"
MAX_ENTRIES = 10  # EventBridge: events in one request


class EventBridge:
    """One bus. The type of an event is its detail-type."""

    def __init__(self, clients: AwsClients, bus_name: str) -> None:
        self._clients = clients
        self._bus_name = bus_name

    async def send(self, events: Sequence[BusEvent]) -> list[int]:
        """Every event is accounted for: EventBridge may take some of a request and refuse others."""
        refused: list[int] = []
        for start in range(0, len(events), MAX_ENTRIES):
            group = range(start, min(start + MAX_ENTRIES, len(events)))
            entries = [
                {
                    "EventBusName": self._bus_name,
                    "Source": SOURCE,
                    "DetailType": events[index].type,
                    "Time": events[index].time,
                    "Detail": events[index].detail,
                }
                for index in group
            ]
            try:
                client = await self._clients.get("events")
                answers = (await client.put_events(Entries=entries)).get("Entries", [])
            except (BotoCoreError, ClientError, HTTPClientError) as error:
                logger.warning("the event bus took nothing", extra={"error": type(error).__name__})
                answers = []
            taken = {index for index, answer in zip(group, answers, strict=False) if answer.get("EventId")}
            refused += [index for index in group if index not in taken]
        return refused
