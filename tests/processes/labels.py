"""Labelled points: before and after every call by which a worker leaves its own memory.

They are derived, not sprinkled through the product: every public coroutine method of the store's classes and of the
adapters is a label, `<class>.<method>`. A worker process wraps them all, counts who passes, and strikes itself where it
was told to.
"""

import functools
import importlib
import inspect
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

STORES = ("bucket", "embed", "events", "ingest", "keys", "redrive", "sweep")
ADAPTERS = ("event_bus", "openai_embedder", "parser_process", "s3", "secrets", "sqs", "webhooks")

# Modules without a label, and why.
LEFT_OUT = {
    "edda.store.documents": "only the HTTP functions use it",
    "edda.store.search": "only the HTTP functions use it",
    "edda.store.usage": "its class is for the HTTP functions; what workers charge is inside of labelled transactions",
    "edda.adapters.bedrock_embedder": "another provider behind the same port",
    "edda.adapters.minilm_embedder": "another provider behind the same port",
    "edda.adapters.bedrock_client": "inside of the adapters of Bedrock's APIs",
    "edda.adapters.bedrock_chat": "only the HTTP functions use it",
    "edda.adapters.openai_chat": "only the HTTP functions use it",
    "edda.adapters.bedrock_reranker": "only the HTTP functions use it",
    "edda.adapters.http_reranker": "only the HTTP functions use it",
    "edda.adapters.http_client": "inside of the provider's label",
    "edda.adapters.http_provider": "inside of the provider's label",
    "edda.adapters.aws": "inside of the labels of S3, SQS, EventBridge and Secrets Manager",
    "edda.adapters.usual_time": "remembers, and calls nobody",
    "edda.store.indexing": "the schema owner's; tests/database/test_indexing.py kills its builds",
    "edda.store.budgets": "a budget that was not told shows at the next refusal; it keeps no work",
    "edda.store.database": "inside of the labels of the stores: one method is one transaction",
}
# Labels that no worker passes, and why.
NOT_FOR_WORKERS = {
    "KeyStore.authenticate": "the HTTP functions'",
    "S3ObjectStore.put": "the HTTP functions'",
    "S3ObjectStore.presign_post": "the HTTP functions'",
}

When = Literal["before", "after"]
Action = Literal["kill", "stop"]


@dataclass(frozen=True, slots=True)
class Strike:
    """At this passage of a labelled point the worker kills (-9) or stops itself."""

    label: str
    when: When
    passage: int = 1
    action: Action = "kill"

    def __str__(self) -> str:
        return f"{self.action} {self.when} {self.label}, passage {self.passage}"


@dataclass(slots=True)
class Points:
    """What one worker passes, and what strikes it."""

    tell: Callable[[Strike], None]  # that it strikes now
    passages: Counter[str] = field(default_factory=Counter)
    _strikes: dict[tuple[str, str, int], Strike] = field(default_factory=dict)

    def arm(self, strikes: tuple[Strike, ...]) -> None:
        """From now on these, counted from now on."""
        self.passages.clear()
        self._strikes = {(strike.label, strike.when, strike.passage): strike for strike in strikes}

    def pass_by(self, label: str, when: When, passage: int) -> None:
        strike = self._strikes.pop((label, when, passage), None)
        if strike is not None:
            self.tell(strike)
            os.kill(os.getpid(), signal.SIGKILL if strike.action == "kill" else signal.SIGSTOP)

    def wrap(self, owner: type, name: str, label: str) -> None:
        call = getattr(owner, name)

        @functools.wraps(call)
        async def labelled(*arguments: Any, **named: Any) -> Any:
            self.passages[label] += 1
            passage = self.passages[label]
            self.pass_by(label, "before", passage)
            try:
                return await call(*arguments, **named)
            finally:
                self.pass_by(label, "after", passage)

        setattr(owner, name, labelled)

    def wrap_all(self) -> None:
        for owner in labelled_classes():
            for name in coroutine_methods(owner):
                self.wrap(owner, name, f"{owner.__name__}.{name}")


def labelled_classes() -> Iterator[type]:
    """Every class of the stores and adapters that workers use."""
    for module in (*(f"edda.store.{name}" for name in STORES), *(f"edda.adapters.{name}" for name in ADAPTERS)):
        yield from classes_of(module)


def classes_of(module: str) -> Iterator[type]:
    """The module's own public classes."""
    for name, found in vars(importlib.import_module(module)).items():
        if inspect.isclass(found) and found.__module__ == module and not name.startswith("_"):
            yield found


def coroutine_methods(owner: type) -> Iterator[str]:
    """Its public coroutine methods. `aclose` is none of them: Lambda never asks for it."""
    for name, method in vars(owner).items():
        if inspect.iscoroutinefunction(method) and not name.startswith("_") and name != "aclose":
            yield name


def all_labels() -> list[str]:
    """Of these classes, also those that are not for workers."""
    return [f"{owner.__name__}.{name}" for owner in labelled_classes() for name in coroutine_methods(owner)]
