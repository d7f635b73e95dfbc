"""From a journal's file to explanations: which requests are meant, and what became of them."""

from __future__ import annotations

from pathlib import Path

from slotwise.engine.journal import JournalError
from slotwise.explain.story import read_stories, read_worst
from slotwise.explain.words import Explanation, explanation


def explanations(journal: Path, *, request: int | None = None, worst: int = 0) -> list[Explanation]:
    """That of one request by its number, or of the `worst` that missed by most, the worst first.

    A server that still writes its journal may be read: what it has not written out yet is missing. Raises
    JournalError for a request that the journal does not know, and for a journal that cannot be read; OSError.
    """
    if request is None:
        with journal.open("rb") as lines:
            numbers = read_worst(lines, worst)
    else:
        numbers = [request]
    with journal.open("rb") as lines:
        stories = read_stories(lines, numbers)
    if request is not None and not stories:
        raise JournalError(f"{journal} has no request {request}; --worst 10 lists some that it has")
    return [explanation(story) for story in stories]
