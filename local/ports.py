"""Whether a port is free."""

import socket
from collections.abc import Iterable

from local.errors import LocalError


def refuse_taken(addresses: Iterable[str], port: int, what: str, variable: str) -> None:
    """Raises LocalError if something listens there, or nothing may."""
    for address in addresses:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise LocalError(
                    f"port {port} for {what} is taken ({error.strerror}): set {variable} to a free one"
                ) from None
