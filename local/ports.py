"""Whether a port is free."""

import socket

from local.errors import LocalError


def refuse_taken(port: int, what: str, variable: str) -> None:
    """Raises LocalError if something listens there, or nothing may."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LocalError(
                f"port {port} for {what} is taken ({error.strerror}): set {variable} to a free one"
            ) from None
