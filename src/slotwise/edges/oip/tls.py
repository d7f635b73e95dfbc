"""The door's certificate: where it lies, and whether it can be used. Encryption itself is the HTTP server's."""

from __future__ import annotations

import ssl
from pathlib import Path

from slotwise.facts.value import value


class TlsError(ValueError):
    """A certificate or key that cannot be used; the text says which and what to do."""


@value
class Tls:
    """Where the certificate and its key lie, as PEM files; empty means plain HTTP."""

    certificate: str = ""
    """With those that it was signed by after it in the same file."""
    key: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError when one is there without the other."""
        if bool(self.certificate) != bool(self.key):
            named, missing = ("certificate", "key") if self.certificate else ("key", "certificate")
            raise ValueError(f"`{named}` needs a `{missing}`; name both, or neither for plain HTTP")


def check_tls(tls: Tls) -> None:
    """Read both files as the server will, so that a bad one is told before anything is started. Raises TlsError."""
    for path in (tls.certificate, tls.key):
        _check_readable(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except ssl.SSLError as error:
        raise TlsError(
            f"the certificate {tls.certificate} and the key {tls.key} cannot be used together ({_reason(error)});"
            " both must be PEM files, and the key that of the certificate"
        ) from error


def _no_password() -> str:
    """Asked for by an encrypted key, which the server would stop to ask the terminal about."""
    raise TlsError("the key of the certificate is encrypted; decrypt it: openssl pkey -in KEY -out PLAIN_KEY")


def _check_readable(path: str) -> None:
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise TlsError(f"the file for TLS {path} cannot be read: {error.strerror}") from error


def _reason(error: ssl.SSLError) -> str:
    return error.reason.lower().replace("_", " ") if error.reason else "one is no PEM file"
