"""What workers talk to besides AWS: the provider of embeddings and a tenant's receiver of webhooks."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.fakes.provider_server import Fault, OpenAIServer, Reply, Request
from tests.handlers.environment import ProviderThread
from tests.simulation.database import MODEL_DIMENSIONS
from tests.simulation.schedules import REFUSED


class _Marked(set[str]):
    """Every text with the mark."""

    def __contains__(self, text: object) -> bool:
        return REFUSED in str(text)


_SPOILING: set[Fault] = set()


def spoiling(fault: Fault) -> Fault:
    """It makes the first text's vector none."""
    _SPOILING.add(fault)
    return fault


class Provider(OpenAIServer):
    """Refuses what is marked, and counts what it embedded, whether its answer arrived or not."""

    def __init__(self) -> None:
        super().__init__(MODEL_DIMENSIONS)
        self.refuses = _Marked()
        self.paid: Counter[str] = Counter()
        self.spoilt: Counter[str] = Counter()  # texts answered with a vector that is none

    def _reply_to(self, request: Request) -> Reply:
        spoils = bool(self.script) and self.script[0] in _SPOILING
        reply = super()._reply_to(request)
        if spoils and reply.status == 200:
            self.spoilt[self.texts(request.body)[0]] += 1
        if reply.status == 200 and not reply.hang:
            self.paid.update(self.texts(request.body))
        return reply

    def forget(self) -> None:
        self.latency_s = 0.0
        self.script.clear()
        self.requests.clear()
        self.paid.clear()
        self.spoilt.clear()


@contextmanager
def serving(provider: Provider) -> Iterator[Provider]:
    thread = ProviderThread(provider)
    thread.start()
    try:
        yield provider
    finally:
        thread.stop()


class Receiver:
    """Of webhooks: the ids of the events that came, as often as they came."""

    def __init__(self) -> None:
        self.ids: Counter[str] = Counter()
        ids = self.ids

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                ids[self.headers["webhook-id"]] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass  # nobody reads it

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks"

    @contextmanager
    def listening(self) -> Iterator["Receiver"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
