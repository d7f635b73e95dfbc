"""In which ways two answers to the same request differ, each with its name. Pure.

A refusal's words are each server's own, so of a refusal only its status and that it is told in words count.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from conformance.exchange import Answer, Case
from conformance.explanations import explained

STATUS, TYPE, CODING, ALLOW, BODY, BINARY, ERROR = (
    "status",
    "content type",
    "content encoding",
    "Allow",
    "body",
    "binary",
    "error in words",
)
MEANT = {"Content-Type": TYPE, "Content-Encoding": CODING, "Allow": ALLOW}


class Row(msgspec.Struct, frozen=True):
    """A request and both answers, raw."""

    protocol: str
    section: str
    name: str
    request: str
    ours: Answer
    triton: Answer
    differs: Sequence[str]
    why: dict[str, str]

    def faults(self) -> list[str]:
        """Differences without an explanation, and explanations without a difference."""
        found = [
            f"{self.name}: the {what} differs and nothing explains it"
            for what in self.differs
            if not self.why.get(what)
        ]
        return found + [
            f"{self.name}: the {what} does not differ any more" for what in self.why if what not in self.differs
        ]


def row_of(protocol: str, section: str, case: Case, ours: Answer, triton: Answer) -> Row:
    """A request and what came of it."""
    differs = differences(ours, triton, case.hidden)
    why = explained(protocol, case.name, {what: (what, ours, triton) for what in differs})
    return Row(protocol, section, case.name, case.described(), ours, triton, differs, why)


def differences(ours: Answer, triton: Answer, hidden: Sequence[str] = ()) -> list[str]:
    """The names of what differs."""
    found = [STATUS] if ours.status != triton.status else []
    found += [name for header, name in MEANT.items() if ours.headers.get(header) != triton.headers.get(header)]
    if ours.is_done() and triton.is_done():
        if _calm(ours.body, hidden) != _calm(triton.body, hidden):
            found.append(BODY)
        if ours.binary != triton.binary:
            found.append(BINARY)
    elif not ours.is_done() and not triton.is_done() and _is_told(ours.body) != _is_told(triton.body):
        found.append(ERROR)
    return found


def _is_told(body: object) -> bool:
    """Whether a refusal says why, as the protocol has it."""
    text = body.get("error") if isinstance(body, dict) else body
    return isinstance(text, str) and bool(text)


def _calm(body: object, hidden: Sequence[str]) -> object:
    """Without what differs by nature, and lists of named things in the order of their names."""
    if isinstance(body, dict):
        return {key: _calm(told, hidden) for key, told in body.items() if key not in hidden}
    if isinstance(body, list):
        return sorted((_calm(one, hidden) for one in body), key=_name_of)
    return body


def _name_of(one: object) -> str:
    return str(one.get("name", "")) if isinstance(one, dict) else ""
