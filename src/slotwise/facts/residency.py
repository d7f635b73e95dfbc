"""What one executor holds in its memory, and since which load.

The rules stand here once because three parts keep the same books: the executor (truth), the controller
(its mirror) and the simulated fleet. Pure state: no clock and no weights.
"""

from __future__ import annotations


class OutOfMemory(Exception):
    """The budget has too few free pages; nothing was changed."""


class Residency:
    """Books of one executor's memory, counted in pages of `page_bytes`."""

    def __init__(self, memory_bytes: int, page_bytes: int = 1) -> None:
        self.page_bytes = page_bytes
        self.pages_total = memory_bytes // page_bytes
        self.pages_free = self.pages_total
        self._pages: dict[str, int] = {}
        self._load_ids: dict[str, int] = {}
        self._ready: set[str] = set()
        """Of those here; the others are on their way."""

    def pages_needed(self, memory_bytes: int) -> int:
        """Whole pages that hold so many bytes."""
        return -(-memory_bytes // self.page_bytes)

    def can_load(self, memory_bytes: int) -> bool:
        """Whether a model of that size fits beside what is here."""
        return self.pages_needed(memory_bytes) <= self.pages_free

    def begin_load(self, model: str, memory_bytes: int, load_id: int) -> None:
        """Reserve the pages. Raises OutOfMemory when short; the model must not be here already."""
        assert model not in self._pages, f"{model} is already here"
        pages = self.pages_needed(memory_bytes)
        if pages > self.pages_free:
            raise OutOfMemory(
                f"{model} needs {pages} pages of {self.page_bytes} bytes;"
                f" {self.pages_free} of {self.pages_total} are free"
            )
        self.pages_free -= pages
        self._pages[model] = pages
        self._load_ids[model] = load_id

    def end_load(self, model: str, load_id: int) -> bool:
        """Mark ready; False if that load was undone in the meantime."""
        if self._load_ids.get(model) != load_id:
            return False
        self._ready.add(model)
        return True

    def unload(self, model: str, load_id: int) -> bool:
        """Give the pages back; False if that load is not here any more."""
        if self._load_ids.get(model) != load_id:
            return False
        self.pages_free += self._pages.pop(model)
        del self._load_ids[model]
        self._ready.discard(model)
        return True

    def is_ready(self, model: str) -> bool:
        """Whether batches of the model can run."""
        return model in self._ready

    def is_here(self, model: str) -> bool:
        """Whether the model is ready or on its way."""
        return model in self._load_ids

    def load_id(self, model: str) -> int | None:
        """Which load made the model resident: the version that a running batch compares at its end."""
        return self._load_ids.get(model)

    def models(self) -> tuple[str, ...]:
        """All models here, in order of loading."""
        return tuple(self._load_ids)

    def check(self) -> None:
        """Assert that the books balance."""
        assert self.pages_free == self.pages_total - sum(self._pages.values()), "pages leaked"
        assert self.pages_free >= 0, "more pages handed out than there are"
        assert self._pages.keys() == self._load_ids.keys() >= self._ready
