"""When failed messages come again."""

from edda.sqs_events import LONGEST_DELAY_S, back_off


def record(name: str, received: int) -> dict[str, object]:
    return {
        "messageId": name,
        "receiptHandle": f"handle of {name}",
        "attributes": {"ApproximateReceiveCount": str(received)},
    }


def test_only_failed_messages_are_delayed() -> None:
    delays = back_off([record("good", 1), record("bad", 1)], ["bad"])
    assert list(delays) == ["handle of bad"]


def test_the_delay_doubles_with_each_delivery_up_to_a_limit() -> None:
    longest = [back_off([record("a", n)], ["a"], chance=lambda: 1.0)["handle of a"] for n in (1, 2, 3, 20)]
    assert longest == [10, 20, 40, LONGEST_DELAY_S]


def test_the_delay_has_jitter_but_is_never_nothing() -> None:
    shortest = back_off([record("a", 1)], ["a"], chance=lambda: 0.0)["handle of a"]
    assert 0 < shortest < 10


def test_a_record_without_a_receipt_handle_is_passed_over() -> None:
    assert back_off([{"messageId": "a"}], ["a"]) == {}
