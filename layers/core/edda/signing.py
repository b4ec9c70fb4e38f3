"""Signatures of webhooks, in the way of Standard Webhooks (standardwebhooks.com), for which there are libraries."""

import base64
import binascii
import hmac
import secrets

PREFIX = "whsec_"
SECRET_BYTES = 32  # the standard asks for 24 to 64


def new_secret() -> str:
    """A secret to share with a receiver."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Is it `whsec_` and 24 to 64 bytes of base64?"""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(PREFIX) and 24 <= len(key) <= 64


def signed_headers(secret: str, event_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Id, time and signature of one attempt. The time is signed, so that a receiver can refuse what is replayed."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signature = hmac.digest(key, f"{event_id}.{timestamp_s}.".encode() + body, "sha256")
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
