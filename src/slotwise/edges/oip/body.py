"""A request's body as it comes off the wire: inflated where it is compressed, and bounded in every case. No I/O."""

from __future__ import annotations

import zlib
from http import HTTPStatus

from slotwise.edges.oip.errors import WireError, bad, too_large
from slotwise.facts.value import value

ANY_HEADER = 32 + zlib.MAX_WBITS
"""Tells zlib to take gzip and zlib framing, whichever it finds."""
_NEVER = (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
_PLAIN = (b"", b"identity")
_DEFLATED = (b"gzip", b"x-gzip", b"deflate")


@value
class Coding:
    """A way to compress answers: what is said of it, and how zlib is told."""

    header: bytes
    wbits: int


GZIP = Coding(header=b"content-encoding: gzip\r\n", wbits=16 + zlib.MAX_WBITS)
DEFLATE = Coding(header=b"content-encoding: deflate\r\n", wbits=zlib.MAX_WBITS)
_CODINGS = {b"gzip": GZIP, b"x-gzip": GZIP, b"deflate": DEFLATE}


class Inflater:
    """Inflates a body piece by piece, and never to more than a limit."""

    def __init__(self, nbytes_max: int) -> None:
        self._left = nbytes_max
        self._nbytes_max = nbytes_max
        self._zlib = zlib.decompressobj(ANY_HEADER)

    def write(self, piece: bytes) -> bytes:
        """The bytes that a piece holds. Raises WireError for what is no gzip or deflate, or too much of it."""
        try:
            # One byte more than is left: to learn of an excess without inflating all of it.
            inflated = self._zlib.decompress(piece, self._left + 1)
        except zlib.error as error:
            raise bad(f"the body is not what its Content-Encoding says: {error}") from error
        self._left -= len(inflated)
        if self._left < 0:
            raise too_large(f"the body inflates to more than {self._nbytes_max} bytes, the limit")
        if self._zlib.unused_data:
            raise bad("the body goes on after the end of its compressed data")
        return inflated

    def finish(self) -> None:
        """The body has ended. Raises WireError when its compressed data has not."""
        if not self._zlib.eof:
            raise bad("the body ends inside its compressed data")


def inflater(encoding: bytes, nbytes_max: int) -> Inflater | None:
    """What undoes a Content-Encoding, None where there is nothing to undo. Raises WireError for an unknown one."""
    encoding = encoding.strip().lower()
    if encoding in _PLAIN:
        return None
    if encoding in _DEFLATED:
        return Inflater(nbytes_max)
    raise WireError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"Content-Encoding {encoding.decode('latin-1')!r} is not known; use gzip or deflate",
    )


def coding(accepted: bytes) -> Coding | None:
    """The first coding of ours that an Accept-Encoding header asks for."""
    for offer in accepted.lower().split(b","):
        name, _, weight = offer.partition(b";")
        found = _CODINGS.get(name.strip())
        if found is not None and weight.replace(b" ", b"") not in _NEVER:
            return found
    return None


def compress(body: bytes, coding: Coding, level: int) -> bytes:
    """A body compressed for a client that asked for it."""
    return zlib.compress(body, level, wbits=coding.wbits)
