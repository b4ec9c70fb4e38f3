"""The real answer function as an execution environment has it, its providers on the wire."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.aws import client
from tests.fakes.chat import said
from tests.fakes.chat_server import OpenAIChatServer
from tests.fakes.provider_server import Fault, hang, reset, status
from tests.handlers.asking import LASTING, Ask, codes
from tests.handlers.environment import ProviderThread, ServerThread, Surroundings

LINES = "First of all.\nDays of leave: there are 25.\nThe days are long."
QUESTION = "How many days of leave are there?"
GOOD = said("There are 25 days of leave [1].", (1, "Days of leave: there are 25."))


@pytest.fixture
def chat(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIChatServer]:
    """A model that the function's environment names, with a key in Secrets Manager."""
    thread = ServerThread(OpenAIChatServer(GOOD))
    thread.start()
    secrets = client("secretsmanager")
    arn = secrets.create_secret(Name=f"chat-{thread.server.port}", SecretString="sk-chat")["ARN"]
    monkeypatch.setenv("EDDA_CHAT_PROVIDER", "openai")
    monkeypatch.setenv("EDDA_CHAT_MODEL", "gpt-5-mini")
    monkeypatch.setenv("EDDA_CHAT_BASE_URL", f"{thread.server.url}/v1")
    monkeypatch.setenv("EDDA_CHAT_API_KEY_SECRET_ARN", arn)
    yield thread.server  # type: ignore[misc]  # the one it was made with
    thread.stop()


@pytest.fixture
def ask(ask_about: Callable[..., Ask]) -> Ask:
    """By words: the vectors of this provider mean nothing."""
    return ask_about(LINES, "answer", "/v1/answers", question=QUESTION, mode="text")


def test_an_answer_comes_from_the_model_with_the_key_of_the_secret(chat: OpenAIChatServer, ask: Ask) -> None:
    answer = ask()
    assert codes(answer) == []
    assert (answer["kind"], answer["model"]) == ("generated", "openai/gpt-5-mini")
    assert answer["answer"] == "There are 25 days of leave [1]."
    assert [one["quote"] for one in answer["citations"]] == ["Days of leave: there are 25."]
    assert answer["usage"] == {"requests": 1, "input_tokens": 11, "output_tokens": 3}
    (request,) = chat.requests
    assert request.headers["authorization"] == "Bearer sk-chat"


def test_without_a_model_the_answer_is_extractive(ask: Ask) -> None:
    answer = ask()
    assert codes(answer) == []
    assert (answer["kind"], answer["model"]) == ("extractive", None)
    assert answer["answer"].startswith("Days of leave: there are 25. [1]")


FAULTS = LASTING | {"too long": (status(413), "chat_rejected")}


@pytest.mark.parametrize(("fault", "code"), FAULTS.values(), ids=FAULTS)
def test_a_model_that_fails_leaves_an_extractive_answer_that_says_so(
    chat: OpenAIChatServer, ask: Ask, fault: Fault, code: str
) -> None:
    chat.script = [fault, fault]
    answer = ask()
    assert codes(answer) == [("chat", code)]
    assert (answer["status"], answer["kind"]) == ("answered", "extractive")
    assert "sk-chat" not in json.dumps(answer)
    chat.script = []
    assert ask()["kind"] == "generated"


@pytest.mark.parametrize("secret", ['{"other": "x"}', '{"api_key": 7}', "{broken", "sk-ключ"])
def test_a_secret_without_a_key_leaves_an_extractive_answer(
    chat: OpenAIChatServer, ask: Ask, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    arn = client("secretsmanager").create_secret(Name=f"no-key-{abs(hash(secret))}", SecretString=secret)["ARN"]
    monkeypatch.setenv("EDDA_CHAT_API_KEY_SECRET_ARN", arn)
    answer = ask()
    assert codes(answer) == [("chat", "provider_misconfigured")]
    assert answer["kind"] == "extractive"
    assert chat.requests == []


def test_a_connection_that_died_in_a_freeze_is_not_noticed(chat: OpenAIChatServer, ask: Ask) -> None:
    ask()
    chat.script = [reset]
    answer = ask()
    assert (codes(answer), answer["kind"], answer["usage"]["requests"]) == ([], "generated", 2)


def test_a_model_that_hangs_leaves_time_for_an_answer(chat: OpenAIChatServer, ask: Ask) -> None:
    ask()
    chat.script = [hang, hang]
    began = time.monotonic()
    answer = ask(seconds=6)
    assert time.monotonic() - began < 5
    assert codes(answer) == [("chat", "provider_unavailable")]
    assert answer["kind"] == "extractive"


def test_an_embedding_provider_that_is_down_leaves_the_words(
    chat: OpenAIChatServer, ask: Ask, provider: ProviderThread
) -> None:
    ask()
    provider.server.script = [status(503)] * 4
    answer = ask(mode="hybrid")
    assert codes(answer) == [("vector", "provider_unavailable")]
    assert answer["kind"] == "generated"
    provider.server.script = [status(503)] * 4
    refused = ask(mode="vector")
    assert (refused["status_code"], refused["code"]) == (503, "provider_unavailable")
