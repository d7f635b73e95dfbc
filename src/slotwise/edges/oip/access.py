"""Who may ask for what: bearer tokens, the models that each may use, how often, and whether it may manage the server.

A file lists the tokens, by their SHA-256, so the file gives nobody a token. Without a file everybody may do everything.
A token is looked up by its digest, in time that does not depend on how much of it is right.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import msgspec

from slotwise.edges.oip.errors import WireError
from slotwise.engine.ports import Clock
from slotwise.facts.units import S

TOKEN_BYTES = 24
KNOWN_MAX = 10_000
"""Pairs of a token and a model whose right is remembered."""
KNOWN_NAME_LENGTH_MAX = 256
"""Of a model's name; the right to one with a longer name is found anew each time."""
EVERY_MODEL = "*"
_BEARER = re.compile(rb"bearer +([\x21-\x7e]+)", re.IGNORECASE)


class AccessError(ValueError):
    """A file of tokens that cannot be used; the text says where and why."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the bearer of one token may do."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    """How logs and errors speak of it."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    models: tuple[str, ...] = ("*",)
    """Names of models, with * for any letters."""
    per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Inferences a second; 0 is no bound."""
    burst: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Inferences that may come at once where `per_s` bounds them."""
    manages: bool = False
    """Whether it may load and unload models, register memory, and read metrics and status."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: tuple[Grant, ...] = ()


def read_grants(path: Path) -> tuple[Grant, ...]:
    """The tokens of a file. Raises AccessError."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except OSError as error:
        raise AccessError(f"the file of tokens {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise AccessError(f"the file of tokens {path}: {error}") from error
    for what in ("name", "sha256"):
        values = [getattr(grant, what) for grant in found.token]
        twice = next((one for one in values if values.count(one) > 1), None)
        if twice is not None:
            raise AccessError(f"the file of tokens {path}: {what} {twice} stands there twice")
    return found.token


def written(grant: Grant) -> str:
    """A grant as it stands in a file of tokens."""
    lines = [f"{name} = {msgspec.json.encode(found).decode()}" for name, found in msgspec.structs.asdict(grant).items()]
    return "\n".join(["[[token]]", *lines])


def new_token() -> tuple[str, str]:
    """A fresh token, and the digest that goes into the file."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    return token, hashlib.sha256(token.encode()).hexdigest()


class _Bearer:
    """A grant, and what is left of its rate."""

    def __init__(self, grant: Grant, now_ns: int) -> None:
        self.grant = grant
        self._left = float(grant.burst)
        self._since_ns = now_ns

    def wait_ns(self, now_ns: int) -> int:
        """0 if one more may come now, which is counted; else how long until one may."""
        per_s = self.grant.per_s
        if not per_s:
            return 0
        self._left = min(float(self.grant.burst), self._left + (now_ns - self._since_ns) * per_s / S)
        self._since_ns = now_ns
        if self._left >= 1.0:
            self._left -= 1.0
            return 0
        return max(1, int((1.0 - self._left) / per_s * S))


class Access:
    """Decides for every request whether its bearer may make it. `grants` is None where everybody may."""

    def __init__(self, grants: Sequence[Grant] | None, clock: Clock) -> None:
        self._clock = clock
        self._bearers: dict[bytes, _Bearer] = {}
        self._known: dict[tuple[str, str], bool] = {}
        self.is_open = grants is None
        if grants is not None:
            self.replace(grants)

    def replace(self, grants: Sequence[Grant]) -> None:
        """Have other grants hold from now on; what a token has used of its rate is forgotten if its grant changed."""
        now_ns, old = self._clock.now_ns(), self._bearers
        self._bearers = {}
        for grant in grants:
            digest = bytes.fromhex(grant.sha256)
            kept = old.get(digest)
            self._bearers[digest] = kept if kept is not None and kept.grant == grant else _Bearer(grant, now_ns)
        self._known.clear()
        self.is_open = False

    def check_infer(self, authorization: bytes | None, model: str) -> None:
        """Raise WireError unless the bearer may ask this model now: 401, 403 or 429."""
        if self.is_open:
            return
        bearer = self._find(authorization)
        self._check_model(bearer.grant, model)
        wait_ns = bearer.wait_ns(self._clock.now_ns())
        if wait_ns:
            raise WireError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"token {bearer.grant.name} may ask {bearer.grant.per_s:g} times a second",
                reason="rate_limited",
                retry_after_ns=wait_ns,
            )

    def check_read(self, authorization: bytes | None, model: str | None) -> None:
        """Raise WireError unless the bearer may see what the server says of itself, or of a model."""
        if not self.is_open:
            bearer = self._find(authorization)
            if model is not None:
                self._check_model(bearer.grant, model)

    def check_read_all(self, authorization: bytes | None) -> None:
        """Raise WireError unless the bearer may see what tells of every model: one who manages, or may use them all."""
        if self.is_open:
            return
        grant = self._find(authorization).grant
        if not grant.manages and EVERY_MODEL not in grant.models:
            words = f"token {grant.name} may not see every model; ask for one that it may use"
            raise WireError(HTTPStatus.FORBIDDEN, words, reason="forbidden")

    def check_manage(self, authorization: bytes | None) -> None:
        """Raise WireError unless the bearer may manage the server."""
        if self.is_open:
            return
        grant = self._find(authorization).grant
        if not grant.manages:
            raise WireError(HTTPStatus.FORBIDDEN, f"token {grant.name} may not manage this server", reason="forbidden")

    def _find(self, authorization: bytes | None) -> _Bearer:
        match = _BEARER.fullmatch((authorization or b"").strip())
        bearer = self._bearers.get(hashlib.sha256(match[1]).digest()) if match else None
        if bearer is None:
            words = "this token is not known here" if match else "a token is needed: Authorization: Bearer TOKEN"
            raise WireError(HTTPStatus.UNAUTHORIZED, words, reason="unauthorized", challenge="Bearer")
        return bearer

    def _check_model(self, grant: Grant, model: str) -> None:
        key = (grant.name, model)
        is_allowed = self._known.get(key)
        if is_allowed is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            is_allowed = any(fnmatchcase(model, pattern) for pattern in grant.models)
            if len(model) <= KNOWN_NAME_LENGTH_MAX:
                self._known[key] = is_allowed
        if not is_allowed:
            words = f"token {grant.name} may not use model {model!r}"
            raise WireError(HTTPStatus.FORBIDDEN, words, reason="forbidden")
