"""The secret that a front and its nodes share, and how each proves to know it without saying it.

Each side draws a number that is never drawn again and has the other one make a digest of both numbers, keyed with the
secret (HMAC, RFC 2104). What follows is neither encrypted nor signed: that is the network's affair.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

NONCE_BYTES = 32
SECRET_BYTES_MIN = 16
SECRET_BYTES_MAX = 4096
FRONT, NODE = b"front", b"node"


class SecretError(ValueError):
    """A file of a secret that cannot be used; the text says why and what to do."""


def read_secret(path: str) -> bytes:
    """The secret in a file, without white space around it; empty for no file. Raises SecretError."""
    if not path:
        return b""
    try:
        with Path(path).open("rb") as file:
            secret = file.read(SECRET_BYTES_MAX + 1).strip()
    except OSError as error:
        raise SecretError(f"the secret of the nodes in {path} cannot be read: {error.strerror}") from error
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise SecretError(
            f"the secret in {path} has {len(secret)} bytes; it must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}:"
            " openssl rand -hex 32 makes one"
        )
    return secret


def draw() -> bytes:
    """A number that is used once."""
    return secrets.token_bytes(NONCE_BYTES)


def proof(secret: bytes, role: bytes, asked: bytes, own: bytes) -> bytes:
    """What one of a role answers to the number `asked`, having drawn its `own`."""
    return hmac.digest(secret, role + asked + own, "sha256")


def is_proof(given: bytes, secret: bytes, role: bytes, asked: bytes, own: bytes) -> bool:
    """Whether that is the answer of one who knows the secret."""
    return hmac.compare_digest(given, proof(secret, role, asked, own))
