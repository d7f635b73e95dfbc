"""How long things will take: the profile, corrected by what each executor has shown.

One window of recent runs is kept per (executor, model, batch size), as Clockwork does (section 5.3), and the
estimate is a quantile of it. Before a size has been seen, the ratio that this executor showed for the
model's other sizes, or for any model, scales the profile: so a slice that is twice as slow is known to
be after one batch. A run of samples on one side of the estimate means that the world has changed, and
the older ones are forgotten. Nothing here reads a clock.
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from slotwise.facts.types import ModelSpec
from slotwise.facts.value import value

K = TypeVar("K")

ERRORS_KEPT = 50
ERROR_QUANTILE = 0.9


@value
class EstimateSettings:
    """`window` samples, of which the `quantile` (0 to 1, interpolated) is the estimate.

    `drift_run` samples in a row that miss the estimate to the same side by more than `drift_ratio` reset
    the window to those samples; 0 turns that off. `is_pooled` keeps one window for all executors together, and
    without `is_scaled` a size that has not been seen is taken to be as profiled, as Clockwork does both.
    """

    window: int = 10
    quantile: float = 0.5
    drift_run: int = 4
    drift_ratio: float = 0.25
    is_pooled: bool = False
    is_scaled: bool = True


class Window:
    """Recent samples of one quantity, and their quantile."""

    __slots__ = ("_misses", "_settings", "drifts", "estimate_ns", "samples")

    def __init__(self, settings: EstimateSettings) -> None:
        self._settings = settings
        self.samples: deque[float] = deque(maxlen=settings.window)
        self.estimate_ns = 0.0
        self._misses = 0
        self.drifts = 0

    def add(self, sample: float) -> None:
        """Take a sample in and estimate anew."""
        if self.samples:
            self._note_miss(sample)
        self.samples.append(sample)
        self.estimate_ns = quantile(sorted(self.samples), self._settings.quantile)

    def _note_miss(self, sample: float) -> None:
        settings = self._settings
        side = (sample > self.estimate_ns * (1 + settings.drift_ratio)) - (
            sample < self.estimate_ns * (1 - settings.drift_ratio)
        )
        self._misses = side if self._misses * side <= 0 else self._misses + side
        if settings.drift_run and abs(self._misses) >= settings.drift_run:
            for _ in range(len(self.samples) - settings.drift_run + 1):
                self.samples.popleft()
            self._misses = 0
            self.drifts += 1


def quantile(ascending: list[float], share: float) -> float:
    """The value at `share` of a sorted list, linear between neighbours."""
    position = share * (len(ascending) - 1)
    low = int(position)
    if low + 1 >= len(ascending):
        return ascending[-1]
    return ascending[low] + (ascending[low + 1] - ascending[low]) * (position - low)


class Estimates:
    """Learned latencies of every executor."""

    def __init__(self, settings: EstimateSettings) -> None:
        self._settings = settings
        self._by_size: dict[tuple[str, str, int], Window] = {}
        self._ratios: dict[tuple[str, str], Window] = {}
        self._loads: dict[str, Window] = {}
        self._errors: dict[str, deque[int]] = {}
        self._margins_ns: dict[str, int] = {}

    def run_ns(self, executor: str, spec: ModelSpec, rows: int, work: float = 1.0) -> int:
        """Expected time of a batch of `rows`, each `work` times as dear as the profile's."""
        if self._settings.is_pooled:
            executor = ""
        window = self._by_size.get((executor, spec.id, rows))
        if window is not None:
            return int(window.estimate_ns * work)
        if not self._settings.is_scaled:
            return int(spec.profile.expected_ns(rows) * work)
        ratio = self._ratios.get((executor, spec.id)) or self._ratios.get((executor, ""))
        profiled_ns = spec.profile.expected_ns(rows) * work
        return int(profiled_ns * ratio.estimate_ns) if ratio is not None else int(profiled_ns)

    def load_ns(self, spec: ModelSpec) -> int:
        """Expected time of a load, on any executor."""
        window = self._loads.get(spec.id)
        return int(window.estimate_ns) if window is not None else spec.profile.load_ns

    def margin_ns(self, executor: str) -> int:
        """How late batches are back beyond what was predicted when they were sent: a high quantile, never negative."""
        return self._margins_ns.get(executor, 0)

    def drifts(self) -> int:
        """How often a window was reset because the world had changed."""
        return sum(window.drifts for window in self._by_size.values())

    def note_run(self, executor: str, spec: ModelSpec, rows: int, work: float, took_ns: int) -> None:
        """Learn from a batch that ran to its end."""
        if self._settings.is_pooled:
            executor = ""
        self._window(self._by_size, (executor, spec.id, rows)).add(took_ns / work)
        ratio = took_ns / (spec.profile.expected_ns(rows) * work)
        self._window(self._ratios, (executor, spec.id)).add(ratio)
        self._window(self._ratios, (executor, "")).add(ratio)

    def note_error(self, executor: str, late_ns: int) -> None:
        """Learn how far a batch's end was from its prediction; positive is late."""
        errors = self._errors.setdefault(executor, deque(maxlen=ERRORS_KEPT))
        errors.append(late_ns)
        self._margins_ns[executor] = max(0, int(quantile([float(e) for e in sorted(errors)], ERROR_QUANTILE)))

    def note_load(self, spec: ModelSpec, took_ns: int) -> None:
        """Learn from a load."""
        self._window(self._loads, spec.id).add(took_ns)

    def forget_executor(self, executor: str) -> None:
        """An executor is lost. Its successor runs on the same slice: run times stay, prediction errors do not."""
        self._errors.pop(executor, None)
        self._margins_ns.pop(executor, None)

    def forget_model(self, model: str) -> None:
        """Drop what was learned of a model that is gone or replaced."""
        self._loads.pop(model, None)
        for sized in [key for key in self._by_size if key[1] == model]:
            del self._by_size[sized]
        for pair in [key for key in self._ratios if key[1] == model]:
            del self._ratios[pair]

    def _window(self, windows: dict[K, Window], key: K) -> Window:
        window = windows.get(key)
        if window is None:
            window = windows[key] = Window(self._settings)
        return window
