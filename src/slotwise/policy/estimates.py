"""How long things will take: the profile, corrected by what each executor has shown.

One window of recent runs is kept per (executor, model, batch size), as Clockwork does (section 5.3), and the
estimate is a quantile of it. Before a size has been seen, the ratio that this executor showed for the
model's other sizes, or for any model, scales the profile: so a slice that is twice as slow is known to
be after one batch. A run of samples on one side of the estimate means that the world has changed, and
the older ones are forgotten. Nothing here reads a clock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import TypeVar

from slotwise.facts.types import ModelSpec
from slotwise.facts.units import MS
from slotwise.facts.value import value

K = TypeVar("K")

ERRORS_KEPT = 50
ERROR_QUANTILE = 0.9
MARGIN_SHARE_MAX = 0.5
"""A margin is at most this share of a typical run."""
LEARNING = 0.1
"""What the newest run counts in ratios and typical times."""
WAYS_KEPT = 20
PATIENCE_MAX = 256
"""Refusals on the strength of estimates alone, per one that counts as a doubt, where doubts have proved wrong often."""
RATIO_STEP_MAX = 1.5
"""How far one run may seem to be from a ratio: outliers are many."""
RATIO_FIRST_MAX = 4.0
"""How far the first run may set a ratio off: a slice may well be a few times slower, but hardly a hundred times."""
DOUBT = 0.02
"""What one refusal by the runs of other models alone takes off the ratio that spoke against it."""
TELLING_NS = 1 * MS
"""A run shorter than this says less of other models the shorter it is: what disturbs it does not shrink with it."""


@value
class EstimateSettings:
    """`window` samples, of which the `quantile` (0 to 1, interpolated) is the estimate.

    `drift_run` samples in a row that miss the estimate to the same side by more than `drift_ratio` reset
    the window to those samples; 0 turns that off. `is_pooled` keeps one window for all executors together, and
    without `is_scaled` a size that has not been seen is taken to be as profiled, as Clockwork does both.
    A window starts with `priors` samples of what was expected before, so that no single run decides.
    """

    window: int = 10
    priors: int = 2
    quantile: float = 0.5
    drift_run: int = 4
    drift_ratio: float = 0.25
    is_pooled: bool = False
    is_scaled: bool = True


class Samples:
    """The most recent samples of one quantity, in order of size as well, so that a quantile is a look-up."""

    __slots__ = ("_ascending", "_recent", "_size_max")

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._recent: deque[float] = deque()
        self._ascending: list[float] = []

    def __len__(self) -> int:
        return len(self._recent)

    def add(self, sample: float) -> None:
        """Take a sample in, and the oldest out if there are too many."""
        self._recent.append(sample)
        insort(self._ascending, sample)
        if len(self._recent) > self._size_max:
            self.forget_oldest()

    def forget_oldest(self) -> None:
        """Take the oldest sample out."""
        del self._ascending[bisect_left(self._ascending, self._recent.popleft())]

    def quantile(self, share: float) -> float:
        """The value at `share` (0 to 1) of the samples in order of size, linear between neighbours."""
        ascending = self._ascending
        position = share * (len(ascending) - 1)
        low = int(position)
        if low + 1 >= len(ascending):
            return ascending[-1]
        return ascending[low] + (ascending[low + 1] - ascending[low]) * (position - low)


class Window:
    """Recent samples of one quantity, and the quantile of them that is the estimate."""

    __slots__ = ("_doubts", "_misses", "_patience", "_samples", "_settings", "drifts", "estimate_ns")

    def __init__(self, settings: EstimateSettings) -> None:
        self._settings = settings
        self._samples = Samples(settings.window)
        self.estimate_ns = 0.0
        self._misses = 0
        self.drifts = 0
        self._doubts, self._patience = 0, 1

    def doubt(self, expected: float) -> None:
        """Take in what was expected before, though it was not seen; more seldom the more often that proved wrong."""
        self._doubts += 1
        if self._doubts % self._patience == 0:
            self.add(expected)

    def settle_doubts(self, sample: float, expected: float) -> None:
        """A run shows whether it was right to doubt: it was if the run took about what was expected before."""
        if self._doubts:
            is_wrong = sample > expected * (1 + self._settings.drift_ratio)
            self._doubts, self._patience = 0, min(PATIENCE_MAX, 2 * self._patience) if is_wrong else 1

    def add(self, sample: float) -> None:
        """Take a sample in and estimate anew."""
        if len(self._samples):
            self._note_miss(sample)
        self._samples.add(sample)
        self.estimate_ns = self._samples.quantile(self._settings.quantile)

    def _note_miss(self, sample: float) -> None:
        settings = self._settings
        side = (sample > self.estimate_ns * (1 + settings.drift_ratio)) - (
            sample < self.estimate_ns * (1 - settings.drift_ratio)
        )
        self._misses = side if self._misses * side <= 0 else self._misses + side
        if settings.drift_run and abs(self._misses) >= settings.drift_run:
            while len(self._samples) >= settings.drift_run:
                self._samples.forget_oldest()
            self._misses = 0
            self.drifts += 1


class Estimates:
    """Learned latencies of every executor."""

    def __init__(self, settings: EstimateSettings) -> None:
        self._settings = settings
        self._is_pooled = settings.is_pooled
        self._by_size: dict[tuple[str, str, int], Window] = {}
        self._ratios: dict[tuple[str, str], float] = {}
        self._loads: dict[str, Window] = {}
        self._errors: dict[str, Samples] = {}
        self._margins_ns: dict[str, int] = {}
        self._typical_ns: dict[str, float] = {}
        self._far_ns: dict[str, int] = {}
        self._ways: dict[tuple[str, str], Samples] = {}

    def run_ns(self, executor: str, spec: ModelSpec, rows: int, work: float = 1.0) -> int:
        """Expected time of a batch of `rows`, each `work` times as dear as the profile's."""
        if self._is_pooled:
            executor = ""
        window = self._by_size.get((executor, spec.id, rows))
        if window is not None:
            return int(window.estimate_ns * work)
        if not self._settings.is_scaled:
            return int(spec.profile.expected_ns(rows) * work)
        ratio = self._ratios.get((executor, spec.id)) or self._ratios.get((executor, ""))
        profiled_ns = spec.profile.expected_ns(rows) * work
        return int(profiled_ns * ratio) if ratio is not None else int(profiled_ns)

    def load_ns(self, spec: ModelSpec) -> int:
        """Expected time of a load, on any executor."""
        window = self._loads.get(spec.id)
        return int(window.estimate_ns) if window is not None else spec.profile.load_ns

    def margin_ns(self, executor: str) -> int:
        """How late batches are back beyond what was predicted when they were sent: a high quantile, within bounds.

        It is never negative, and never more than a share of what runs take there: on a machine that stalls now and
        then, no margin makes every promise safe, and one that tries refuses everything.
        """
        return self._margins_ns.get(executor, 0)

    def far_ns(self, executor: str) -> int:
        """What the way there and back takes at least; 0 for an executor on this machine, whose way is no matter."""
        return self._far_ns.get(executor, 0)

    def way_ns(self, executor: str, model: str) -> int:
        """How much later than it runs a batch of the model is back from another machine, tensors and all."""
        far_ns = self._far_ns.get(executor)
        if not far_ns:
            return 0
        ways = self._ways.get((executor, model))
        return far_ns if ways is None else max(far_ns, int(ways.quantile(ERROR_QUANTILE)))

    def note_far(self, executor: str, way_ns: int) -> None:
        """An executor on another machine has come up."""
        self._far_ns[executor] = way_ns

    def note_way(self, executor: str, model: str, way_ns: int) -> None:
        """Learn from a batch that found an executor on another machine idle, or could not have reached it in time."""
        ways = self._ways.get((executor, model))
        if ways is None:
            ways = self._ways[executor, model] = Samples(WAYS_KEPT)
        ways.add(way_ns)

    def doubt(self, executor: str, spec: ModelSpec, rows: int) -> None:
        """An idle executor was passed over on the strength of estimates: trust them less, since none will be tested.

        What was expected before counts as one more sample, so after a few refusals the executor is tried again.
        """
        if self._is_pooled:
            executor = ""
        window = self._by_size.get((executor, spec.id, rows))
        if window is not None:
            window.doubt(spec.profile.expected_ns(rows))
        elif (executor, spec.id) not in self._ratios:  # all that speaks against it are runs of other models
            ratio = self._ratios.get((executor, ""), 1.0)
            self._ratios[executor, ""] = ratio + min(0.0, 1.0 - ratio) * DOUBT
        if executor in self._errors:
            self.note_error(executor, 0)
        if (executor, spec.id) in self._ways:
            self.note_way(executor, spec.id, 0)

    def drifts(self) -> int:
        """How often a window was reset because the world had changed."""
        return sum(window.drifts for window in self._by_size.values())

    def note_run(self, executor: str, spec: ModelSpec, rows: int, work: float, took_ns: int) -> None:
        """Learn from a batch that ran to its end."""
        if self._is_pooled:
            executor = ""
        key = (executor, spec.id, rows)
        window = self._by_size.get(key)
        if window is None:
            prior_ns = self.run_ns(executor, spec, rows)
            window = self._by_size[key] = Window(self._settings)
            for _ in range(self._settings.priors):
                window.add(prior_ns)
        window.settle_doubts(took_ns / work, spec.profile.expected_ns(rows))
        window.add(took_ns / work)
        self._typical_ns[executor] = self._typical_ns.get(executor, took_ns) * (1 - LEARNING) + took_ns * LEARNING
        expected_ns = spec.profile.expected_ns(rows) * work
        ratio = took_ns / expected_ns
        self._note_ratio((executor, spec.id), ratio, 1.0)
        self._note_ratio((executor, ""), ratio, min(1.0, expected_ns / TELLING_NS))

    def note_error(self, executor: str, late_ns: int) -> None:
        """Learn how far a batch's end was from its prediction; positive is late."""
        errors = self._errors.get(executor)
        if errors is None:
            errors = self._errors[executor] = Samples(ERRORS_KEPT)
        errors.add(late_ns)
        limit_ns = self._typical_ns.get(executor, 0.0) * MARGIN_SHARE_MAX
        self._margins_ns[executor] = int(min(max(0.0, errors.quantile(ERROR_QUANTILE)), limit_ns))

    def note_load(self, spec: ModelSpec, took_ns: int) -> None:
        """Learn from a load."""
        self._window(self._loads, spec.id).add(took_ns)

    def forget_executor(self, executor: str) -> None:
        """An executor is lost. Its successor runs on the same slice: run times stay, prediction errors do not."""
        self._far_ns.pop(executor, None)
        self._errors.pop(executor, None)
        self._margins_ns.pop(executor, None)

    def forget_model(self, model: str) -> None:
        """Drop what was learned of a model that is gone or replaced."""
        self._loads.pop(model, None)
        for sized in [key for key in self._by_size if key[1] == model]:
            del self._by_size[sized]
        for pair in [key for key in self._ratios if key[1] == model]:
            del self._ratios[pair]
        for way in [key for key in self._ways if key[1] == model]:
            del self._ways[way]

    def _note_ratio(self, key: tuple[str, str], ratio: float, weight: float) -> None:
        known = self._ratios.get(key)
        if known is None:
            known, step_max, learning = 1.0, RATIO_FIRST_MAX, weight
        else:
            step_max, learning = RATIO_STEP_MAX, LEARNING * weight
        counted = min(max(ratio, known / step_max), known * step_max)
        self._ratios[key] = known + (counted - known) * learning

    def _window(self, windows: dict[K, Window], key: K) -> Window:
        window = windows.get(key)
        if window is None:
            window = windows[key] = Window(self._settings)
        return window
