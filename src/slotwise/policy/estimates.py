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

from slotwise.facts.types import ModelSpec
from slotwise.facts.units import MS
from slotwise.facts.value import value

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


class Profiles:
    """The profiles of models, each size looked up once."""

    __slots__ = ("_specs", "_times_ns")

    def __init__(self) -> None:
        self._specs: dict[str, ModelSpec] = {}
        self._times_ns: dict[str, dict[int, int]] = {}

    def expected_ns(self, model: str, spec: ModelSpec, rows: int) -> int:
        """As the profile says; `model` is the spec's id."""
        if self._specs.get(model) is not spec:
            self._specs[model], self._times_ns[model] = spec, {}
        times_ns = self._times_ns[model]
        time_ns = times_ns.get(rows)
        if time_ns is None:
            time_ns = times_ns[rows] = spec.profile.expected_ns(rows)
        return time_ns

    def forget(self, model: str) -> None:
        """The model is gone or replaced."""
        self._specs.pop(model, None)
        self._times_ns.pop(model, None)


class Sizes:
    """The runs of one model: a window for each batch size seen, and the ratio to its profile if any was."""

    __slots__ = ("ratio", "windows")

    def __init__(self) -> None:
        self.windows: dict[int, Window] = {}
        self.ratio: float | None = None


class Runs:
    """The runs of one executor, or of all together where they are pooled; `ratio` is that of all models."""

    __slots__ = ("_is_scaled", "_profiles", "models", "ratio", "typical_ns")

    def __init__(self, profiles: Profiles, is_scaled: bool) -> None:
        self._profiles = profiles
        self._is_scaled = is_scaled
        self.models: dict[str, Sizes] = {}
        self.ratio: float | None = None
        self.typical_ns: float | None = None

    def expected_ns(self, model: str, spec: ModelSpec, rows: int, work: float) -> int:
        """Expected time of a batch; `model` is the spec's id."""
        sizes = self.models.get(model)
        if sizes is not None:
            window = sizes.windows.get(rows)
            if window is not None:
                return int(window.estimate_ns * work)
        profiled_ns = self._profiles.expected_ns(model, spec, rows) * work
        if not self._is_scaled:
            return int(profiled_ns)
        ratio = self.ratio if sizes is None or sizes.ratio is None else sizes.ratio
        return int(profiled_ns) if ratio is None else int(profiled_ns * ratio)


class Learned:
    """What one executor has shown: its runs, how late it is, and how far away."""

    __slots__ = ("errors", "far_ns", "margin_ns", "runs", "ways")

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.margin_ns = 0
        """As `Estimates.margin_ns`."""
        self.far_ns = 0
        """As `Estimates.far_ns`."""
        self.errors: Samples | None = None
        self.ways: dict[str, Samples] = {}

    def way_ns(self, model: str) -> int:
        """As `Estimates.way_ns`."""
        if not self.far_ns:
            return 0
        ways = self.ways.get(model)
        return self.far_ns if ways is None else max(self.far_ns, int(ways.quantile(ERROR_QUANTILE)))


class Estimates:
    """Learned latencies of every executor."""

    def __init__(self, settings: EstimateSettings) -> None:
        self._settings = settings
        self._is_pooled = settings.is_pooled
        self._profiles = Profiles()
        self._runs: dict[str, Runs] = {}
        self._learned: dict[str, Learned] = {}
        self._loads: dict[str, Window] = {}

    def of(self, executor: str) -> Learned:
        """What is known of one executor, for those who ask often; the same object as long as there are estimates."""
        learned = self._learned.get(executor)
        if learned is None:
            shared = "" if self._is_pooled else executor
            runs = self._runs.get(shared)
            if runs is None:
                runs = self._runs[shared] = Runs(self._profiles, self._settings.is_scaled)
            learned = self._learned[executor] = Learned(runs)
        return learned

    def run_ns(self, executor: str, spec: ModelSpec, rows: int, work: float = 1.0) -> int:
        """Expected time of a batch of `rows`, each `work` times as dear as the profile's."""
        return self.of(executor).runs.expected_ns(spec.id, spec, rows, work)

    def load_ns(self, spec: ModelSpec) -> int:
        """Expected time of a load, on any executor."""
        window = self._loads.get(spec.id)
        return int(window.estimate_ns) if window is not None else spec.profile.load_ns

    def margin_ns(self, executor: str) -> int:
        """How late batches are back beyond what was predicted when they were sent: a high quantile, within bounds.

        It is never negative, and never more than a share of what runs take there: on a machine that stalls now and
        then, no margin makes every promise safe, and one that tries refuses everything.
        """
        return self.of(executor).margin_ns

    def far_ns(self, executor: str) -> int:
        """What the way there and back takes at least; 0 for an executor on this machine, whose way is no matter."""
        return self.of(executor).far_ns

    def way_ns(self, executor: str, model: str) -> int:
        """How much later than it runs a batch of the model is back from another machine, tensors and all."""
        return self.of(executor).way_ns(model)

    def note_far(self, executor: str, way_ns: int) -> None:
        """An executor on another machine has come up."""
        self.of(executor).far_ns = way_ns

    def note_way(self, executor: str, model: str, way_ns: int) -> None:
        """Learn from a batch that found an executor on another machine idle, or could not have reached it in time."""
        learned = self.of(executor)
        ways = learned.ways.get(model)
        if ways is None:
            ways = learned.ways[model] = Samples(WAYS_KEPT)
        ways.add(way_ns)

    def doubt(self, executor: str, spec: ModelSpec, rows: int) -> None:
        """An idle executor was passed over on the strength of estimates: trust them less, since none will be tested.

        What was expected before counts as one more sample, so after a few refusals the executor is tried again.
        """
        learned, model = self.of(executor), spec.id
        runs = learned.runs
        sizes = runs.models.get(model)
        window = sizes.windows.get(rows) if sizes is not None else None
        if window is not None:
            window.doubt(spec.profile.expected_ns(rows))
        elif sizes is None or sizes.ratio is None:  # all that speaks against it are runs of other models
            ratio = 1.0 if runs.ratio is None else runs.ratio
            runs.ratio = ratio + min(0.0, 1.0 - ratio) * DOUBT
        if self._is_pooled:
            return
        if learned.errors is not None:
            self.note_error(executor, 0)
        if model in learned.ways:
            self.note_way(executor, model, 0)

    def drifts(self) -> int:
        """How often a window was reset because the world had changed."""
        kept = [sizes for runs in self._runs.values() for sizes in runs.models.values()]
        return sum(window.drifts for sizes in kept for window in sizes.windows.values())

    def note_run(self, executor: str, spec: ModelSpec, rows: int, work: float, took_ns: int) -> None:
        """Learn from a batch that ran to its end."""
        runs, model = self.of(executor).runs, spec.id
        profiled_ns = self._profiles.expected_ns(model, spec, rows)
        sizes = runs.models.get(model)
        window = sizes.windows.get(rows) if sizes is not None else None
        if window is None:
            prior_ns = runs.expected_ns(model, spec, rows, 1.0)
            if sizes is None:
                sizes = runs.models[model] = Sizes()
            window = sizes.windows[rows] = Window(self._settings)
            for _ in range(self._settings.priors):
                window.add(prior_ns)
        assert sizes is not None
        window.settle_doubts(took_ns / work, profiled_ns)
        window.add(took_ns / work)
        typical_ns = float(took_ns) if runs.typical_ns is None else runs.typical_ns
        runs.typical_ns = typical_ns * (1 - LEARNING) + took_ns * LEARNING
        expected_ns = profiled_ns * work
        ratio = took_ns / expected_ns
        sizes.ratio = _learned_ratio(sizes.ratio, ratio, 1.0)
        runs.ratio = _learned_ratio(runs.ratio, ratio, min(1.0, expected_ns / TELLING_NS))

    def note_error(self, executor: str, late_ns: int) -> None:
        """Learn how far a batch's end was from its prediction; positive is late."""
        learned = self.of(executor)
        if learned.errors is None:
            learned.errors = Samples(ERRORS_KEPT)
        learned.errors.add(late_ns)
        # Of runs that are pooled nobody knows which are this executor's, so there is no margin then.
        typical_ns = learned.runs.typical_ns if not self._is_pooled else None
        limit_ns = (typical_ns or 0.0) * MARGIN_SHARE_MAX
        learned.margin_ns = int(min(max(0.0, learned.errors.quantile(ERROR_QUANTILE)), limit_ns))

    def note_load(self, spec: ModelSpec, took_ns: int) -> None:
        """Learn from a load."""
        window = self._loads.get(spec.id)
        if window is None:
            window = self._loads[spec.id] = Window(self._settings)
        window.add(took_ns)

    def forget_executor(self, executor: str) -> None:
        """An executor is lost. Its successor runs on the same slice: run times stay, prediction errors do not."""
        learned = self.of(executor)
        learned.far_ns = learned.margin_ns = 0
        learned.errors = None

    def forget_model(self, model: str) -> None:
        """Drop what was learned of a model that is gone or replaced."""
        self._profiles.forget(model)
        self._loads.pop(model, None)
        for runs in self._runs.values():
            runs.models.pop(model, None)
        for learned in self._learned.values():
            learned.ways.pop(model, None)


def _learned_ratio(known: float | None, ratio: float, weight: float) -> float:
    """What a ratio comes to be by one more run."""
    if known is None:
        known, step_max, learning = 1.0, RATIO_FIRST_MAX, weight
    else:
        step_max, learning = RATIO_STEP_MAX, LEARNING * weight
    counted = min(max(ratio, known / step_max), known * step_max)
    return known + (counted - known) * learning
