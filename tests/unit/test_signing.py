"""Signatures as Standard Webhooks makes them, so that its libraries can check them."""

import pytest
from edda.signing import is_secret, new_secret, signed_headers

EXAMPLE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_standards_own_example_has_the_standards_signature() -> None:
    headers = signed_headers(EXAMPLE, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_another_body_id_time_or_secret_has_another_signature() -> None:
    signatures = {
        signed_headers(secret, event_id, time_s, body)["webhook-signature"]
        for secret, event_id, time_s, body in [
            (EXAMPLE, "a", 1, b"x"),
            (EXAMPLE, "a", 1, b"y"),
            (EXAMPLE, "b", 1, b"x"),
            (EXAMPLE, "a", 2, b"x"),
            (new_secret(), "a", 1, b"x"),
        ]
    }
    assert len(signatures) == 5


def test_a_new_secret_is_one_and_no_two_are_alike() -> None:
    made = [new_secret() for _ in range(20)]
    assert all(map(is_secret, made))
    assert len(set(made)) == 20


@pytest.mark.parametrize(
    "wrong", ["", "whsec_", "whsec_c2hvcnQ=", EXAMPLE.removeprefix("whsec_"), "whsec_ä", "whsec_!"]
)
def test_what_is_no_secret_is_told(wrong: str) -> None:
    assert not is_secret(wrong)
