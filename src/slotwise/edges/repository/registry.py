"""The models on offer: read from a root folder, measured, announced to the engine, and kept in step with it.

One model moves at a time, because two that are measured together would spoil each other's profile. A model that
cannot be read stays in the index with the reason and disturbs no other; while a new version is being read, the
old one goes on being served, and it is taken away only when the new one is in. A pipeline is on offer while all its
models are, and is looked at again whenever one of them changes. The forms of the files are in `settings`, `pipeline`
and `pbtxt`, the folders in `layout`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from slotwise.edges.repository import copies, graph, layout, pbtxt, pipeline, settings
from slotwise.edges.repository.layout import LIMITS, Limits, ModelFile, Signature
from slotwise.edges.repository.packs import Packs
from slotwise.edges.repository.pipeline import PipelineText
from slotwise.edges.repository.profiles import Profiles
from slotwise.edges.repository.settings import Latest, Milliseconds, Priority, Rows, Settings, Versions, Weight
from slotwise.engine.ports import Inspection, Inspector, ModelError, ModelState, ModelStatus, Post
from slotwise.facts.events import ModelAdded, ModelRemoved
from slotwise.facts.profile import Profile
from slotwise.facts.types import PRIORITY_DEFAULT, ModelSpec, Variant
from slotwise.facts.value import value

NO_SETTINGS = Settings()
PACKS_FOLDER = "packs"
"""Of the cache."""
NO_VERSION = ""
"""Stands in the index for a model whose folder could not be read so far as to know its versions."""
Progress = Callable[[str, int, int], None]
"""Told a model's name, how many have been read before it, and how many there are."""


@value
class Defaults:
    """What holds for a model whose settings do not say otherwise."""

    slo_ms: Milliseconds | None = None
    """None derives it from the measured time, by the two numbers below."""
    slo_run_multiple: Weight = 10.0
    """The derived allowance, as a multiple of the time of one row."""
    slo_ms_min: Milliseconds = 25.0
    """The derived allowance is never less."""
    batch_max: Rows = 16
    priority: Priority = PRIORITY_DEFAULT
    weight: Weight = 1.0
    versions: Versions = Latest(1)


DEFAULTS = Defaults()


@value
class Wish:
    """What a model's folder asks for, read in one go."""

    folder: Path
    settings: Settings
    config: pbtxt.Config | None
    on_disk: list[int]
    picked: list[int]
    pipeline: PipelineText | None


class Registry:
    """Implements `engine.ports.Models` over a folder of models."""

    def __init__(
        self,
        *,
        root: Path,
        inspector: Inspector,
        post: Post,
        cache: Path,
        defaults: Defaults = DEFAULTS,
        limits: Limits = LIMITS,
        progress: Progress | None = None,
    ) -> None:
        self._root = root.absolute()  # executors may stand in another folder
        self._inspector = inspector
        self._post = post
        self._profiles = Profiles(cache, entries_max=limits.profiles_max)
        self._packs = Packs(cache / PACKS_FOLDER, bytes_max=limits.packs_bytes_max)
        self._defaults = defaults
        self._limits = limits
        self._progress = progress
        self._rows: dict[str, dict[str, ModelStatus]] = {}
        self._newest: dict[str, ModelStatus] = {}
        self._specs: dict[str, ModelSpec] = {}
        self._pipelines: dict[str, list[Wish]] = {}
        """What each pipeline's folder asks for, and behind it what is on offer, where that is another."""
        self._counted: set[str] = set()
        self._signatures: dict[str, Signature] = {}
        self._unsettled: dict[str, Signature] = {}
        self._files = copies.Files()
        self._lock = asyncio.Lock()
        self.specs: Mapping[str, ModelSpec] = MappingProxyType(self._specs)
        """Every model on offer, by id; always up to date."""

    async def open(self) -> None:
        """Read all there is. Raises ModelError only when the root itself cannot be read."""
        names = await asyncio.to_thread(copies.names, self._root, self._limits)
        for done, name in enumerate(names):
            if self._progress is not None:
                self._progress(name, done, len(names))
            with contextlib.suppress(ModelError):  # it stands in the index, with its reason
                await self.load(name)
        if self._progress is not None:
            self._progress("", len(names), len(names))

    def find(self, name: str, version: str = "") -> ModelStatus | None:
        """A version of a model; without one, the newest that is ready, or failing that the newest known."""
        if not version:
            return self._newest.get(name)
        return self._rows.get(name, {}).get(version)

    def index(self) -> list[ModelStatus]:
        """Every version known, by name and version."""
        return [row for name in sorted(self._rows) for row in self._ordered(name)]

    async def load(self, name: str) -> None:
        """Read a model (anew) and put it on offer; only what has changed is announced.

        Raises ModelError with the reason of each version that was refused; what was on offer before stays.
        """
        async with self._lock:
            wish = await self._read(name)
            self._counted.add(name)
            self._rows.get(name, {}).pop(NO_VERSION, None)
            if wish.pipeline is not None:
                self._pipelines[name] = [wish, *self._pipelines.get(name, [])[-1:]]
                refusals = [reason] if (reason := self._try_pipeline(name)) else []
            else:
                self._pipelines.pop(name, None)
                refusals = [reason for version in wish.picked if (reason := await self._try(name, version, wish))]
            if not refusals:
                self._leave_out(name, wish)
            self._follow(name)
            if refusals:
                raise ModelError("; ".join(refusals))

    async def unload(self, name: str) -> None:
        """Take all versions of a model off offer. It stays in the index, to be loaded again."""
        async with self._lock:
            if name not in self._rows:
                raise ModelError(f"there is no model {name!r}")
            self._pipelines.pop(name, None)
            for row in self._ordered(name):
                self._withdraw(name, row.version, "unloaded")
            self._follow(name)

    async def watch(self, interval_s: float) -> None:
        """Poll for changes until cancelled. While the root cannot be read, what was read before stays on offer."""
        while True:
            with contextlib.suppress(ModelError):  # of the root: it may come back
                await self.poll()
            await asyncio.sleep(interval_s)

    async def poll(self) -> None:
        """Load what has changed and take away what is gone.

        A change counts when two polls in a row have seen the same files, so that one still being copied is
        left alone.
        """
        now = await asyncio.to_thread(self._look)
        for name in sorted(self._rows.keys() - now.keys()):
            async with self._lock:
                self._forget(name)
        for name, signature in now.items():
            if signature == self._signatures.get(name):
                continue
            if self._unsettled.get(name) == signature:
                with contextlib.suppress(ModelError):  # it stands in the index, with its reason
                    await self.load(name)
                self._signatures[name] = signature
        self._unsettled = now

    # Reading. These run under the lock; those that touch the disk do so in a thread.

    async def _read(self, name: str) -> Wish:
        try:
            return await asyncio.to_thread(self._read_folder, name)
        except (ModelError, OSError) as error:
            reason = self._told(error)
            with contextlib.suppress(ModelError):  # the root is gone too, which is no word on this model
                if name in await asyncio.to_thread(copies.names, self._root, self._limits):
                    self._refuse(name, NO_VERSION, reason)
            raise ModelError(reason) from error

    def _read_folder(self, name: str) -> Wish:
        folder = layout.folder(self._root, copies.folder_of(self._root, name, self._limits), self._limits)
        if name not in self._counted and len(self._counted) >= self._limits.models_max:
            raise ModelError(f"{name!r} is one model too many; the limit is {self._limits.models_max}")
        self._signatures[name] = layout.signature(folder)
        own = layout.optional_file(folder / settings.SETTINGS_FILE, self._root, self._limits)
        other = layout.optional_file(folder / pbtxt.CONFIG_FILE, self._root, self._limits)
        config = None if other is None else pbtxt.read(other, folder.name)
        wished = NO_SETTINGS if own is None else settings.read(own)
        if config is not None:
            wished = wished.over(config.settings)
        on_disk = layout.versions(folder, self._limits)
        steps = self._read_pipeline(folder, config, on_disk)
        if steps is not None:
            wished, on_disk = wished.over(steps.settings()), on_disk or [1]
        picked = wished.pick(on_disk, self._defaults.versions)[-1 if steps is not None else 0 :]
        if not picked:
            raise ModelError(f"{folder} has no version to offer; put the model into {folder}/1/{layout.MODEL_FILES[0]}")
        return Wish(folder=folder, settings=wished, config=config, on_disk=on_disk, picked=picked, pipeline=steps)

    def _read_pipeline(self, folder: Path, config: pbtxt.Config | None, on_disk: list[int]) -> PipelineText | None:
        path = layout.optional_file(folder / pipeline.PIPELINE_FILE, self._root, self._limits)
        steps = None if path is None else pipeline.read(path)
        if config is not None and config.pipeline is not None:
            if path is not None:
                raise ModelError(f"{folder} has steps in both {path.name} and {pbtxt.CONFIG_FILE}; keep one of them")
            steps = config.pipeline
        for version in on_disk if steps is not None else ():
            if any((folder / str(version) / name).is_file() for name in layout.MODEL_FILES):
                raise ModelError(f"{folder} is a pipeline and has a model in {version} as well; keep one of them")
        return steps

    async def _try(self, name: str, version: int, wish: Wish) -> str:
        """Put one version on offer; the reason when that cannot be done, else nothing."""
        if self.find(name, str(version)) is None:
            self._set(ModelStatus(name=name, version=str(version), state=ModelState.LOADING))
        try:
            find = self._files.find if wish.settings.copies else layout.model_file
            file = await asyncio.to_thread(find, wish.folder / str(version), self._root, self._limits)
            inspection, pack = await self._inspect(file, wish.settings)
            self._check(wish, inspection)
        except (ModelError, OSError) as error:
            reason = f"{name}/{version}: {self._told(error)}"
            self._refuse(name, str(version), reason)
            return reason
        self._offer(self._spec(name, version, file, pack, inspection, wish.settings))
        return ""

    def _try_pipeline(self, name: str) -> str:
        """Put a pipeline on offer, as its folder asks or else as it was; the reason when the first cannot be done."""
        reason = ""
        for wish in self._pipelines[name]:
            try:
                spec = self._pipeline_spec(name, wish)
            except ModelError as error:
                reason = reason or f"{name}: {self._told(error)}"
                continue
            self._pipelines[name] = [self._pipelines[name][0], wish] if reason else [wish]
            self._offer(spec)
            if reason:
                self._refuse(name, spec.version, reason)
            return reason
        self._pipelines[name] = self._pipelines[name][:1]
        self._withdraw(name, str(self._pipelines[name][0].picked[-1]), reason)
        return reason

    def _follow(self, member: str) -> None:
        """A model has changed: look again at the pipelines that it is part of."""
        for name, wishes in list(self._pipelines.items()):
            if any(step.model == member for wish in wishes if wish.pipeline for step in wish.pipeline.steps):
                was_ready = self._newest[name].spec is not None
                self._try_pipeline(name)
                if was_ready != (self._newest[name].spec is not None):
                    self._follow(name)  # no pipeline has it as a step, but one may say so

    def _pipeline_spec(self, name: str, wish: Wish) -> ModelSpec:
        assert wish.pipeline is not None, "asked of pipelines only"
        whole = graph.assemble(wish.pipeline, self.find, self._limits.steps_max)
        if wish.config is not None:
            difference = pbtxt.contradiction(wish.config, whole.inputs, whole.outputs)
            if difference:
                raise ModelError(f"{wish.folder / pbtxt.CONFIG_FILE} contradicts the steps: {difference}")
        wished, defaults, version = wish.settings, self._defaults, str(wish.picked[-1])
        return ModelSpec(
            id=f"{name}/{version}",
            name=name,
            version=version,
            profile=whole.profile,
            slo_ns=self._slo_ns(wished, whole.profile),
            batch_max=min(whole.batch_max, wished.batch_max or whole.batch_max),
            priority=defaults.priority if wished.priority is None else wished.priority,
            weight=defaults.weight if wished.weight is None else wished.weight,
            digest=whole.digest,
            batchable=whole.batchable,
            inputs=whole.inputs,
            outputs=whole.outputs,
            steps=whole.steps,
        )

    async def _inspect(self, file: ModelFile, wished: Settings) -> tuple[Inspection, Path | None]:
        """What the model is and costs, and where it lies packed, if it could be."""
        batch_max = self._defaults.batch_max if wished.batch_max is None else wished.batch_max
        key = self._profiles.key(file.fingerprint, batch_max, wished.examples)
        found = await asyncio.to_thread(self._profiles.get, key)
        if found is None:
            return await self._measure(file, batch_max, wished.examples, key)
        if not found.pack:
            return found, None
        pack = await asyncio.to_thread(self._packs.find, self._packs.key(file.fingerprint))
        if pack is None:
            return await self._measure(file, batch_max, wished.examples, key)
        return found, pack / found.pack

    async def _measure(
        self, file: ModelFile, batch_max: int, shapes: Mapping[str, tuple[int, ...]], key: str
    ) -> tuple[Inspection, Path | None]:
        draft = await asyncio.to_thread(self._packs.draft)
        try:
            found = await self._inspector.inspect(
                str(file.path), batch_max, shapes, "" if draft is None else str(draft)
            )
            pack = None
            if found.pack and draft is not None:
                pack = await asyncio.to_thread(self._packs.publish, draft, self._packs.key(file.fingerprint))
            await asyncio.to_thread(self._profiles.put, key, found)
        finally:
            if draft is not None:
                await asyncio.to_thread(self._packs.discard, draft)
        return found, pack and pack / found.pack

    def _check(self, wish: Wish, inspection: Inspection) -> None:
        where = wish.folder / settings.SETTINGS_FILE
        if wish.config is not None:
            difference = pbtxt.contradiction(wish.config, inspection.inputs, inspection.outputs)
            if difference:
                raise ModelError(f"{wish.folder / pbtxt.CONFIG_FILE} contradicts the model: {difference}")
        if wish.settings.batchable and any(
            tensor.shape[:1] != (-1,) for tensor in (*inspection.inputs, *inspection.outputs)
        ):
            raise ModelError(f"{where}: `batchable` needs a first dimension that is open in every input and output")
        for name in wish.settings.examples.keys() - {tensor.name for tensor in inspection.inputs}:
            raise ModelError(f"{where}: `examples` names {name!r}, which is no input")

    def _spec(
        self, name: str, version: int, file: ModelFile, pack: Path | None, inspection: Inspection, wished: Settings
    ) -> ModelSpec:
        defaults = self._defaults
        batch_max = defaults.batch_max if wished.batch_max is None else wished.batch_max
        batchable = inspection.batchable if wished.batchable is None else wished.batchable
        return ModelSpec(
            id=f"{name}/{version}",
            name=name,
            version=str(version),
            profile=inspection.profile,
            slo_ns=self._slo_ns(wished, inspection.profile),
            batch_max=batch_max if batchable else 1,
            priority=defaults.priority if wished.priority is None else wished.priority,
            weight=defaults.weight if wished.weight is None else wished.weight,
            path=str(file.path),
            pack="" if pack is None else str(pack),
            digest=file.digest,
            batchable=batchable,
            inputs=inspection.inputs,
            outputs=inspection.outputs,
            accuracy=wished.accuracy,
            variants=tuple(
                Variant(accuracy=variant.accuracy, model=variant.model or "", file=variant.file or "")
                for variant in wished.variants
            ),
        )

    def _slo_ns(self, wished: Settings, profile: Profile) -> int:
        slo_ms = self._defaults.slo_ms if wished.slo_ms is None else wished.slo_ms
        if slo_ms is None:
            run_ms = profile.expected_ns(1) / 1e6
            slo_ms = max(self._defaults.slo_ms_min, run_ms * self._defaults.slo_run_multiple)
        return round(slo_ms * 1e6)

    def _look(self) -> dict[str, Signature]:
        """The signature of every model on disk. One that vanishes while looked at is there no more."""
        found: dict[str, Signature] = {}
        for name, folder in copies.names(self._root, self._limits).items():
            try:
                found[name] = layout.signature(self._root / folder)
            except FileNotFoundError:
                continue
            except OSError:
                found[name] = ()  # to be told why by whoever reads it
        return found

    def _told(self, error: ModelError | OSError) -> str:
        """An error for everyone who may ask, who need not know where on this machine the repository lies."""
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename} cannot be read: {error.strerror}"
        return text.replace(f"{self._root}/", "").replace(f"{self._root}", "the repository")

    # The index. A row, the newest of its name, the specs and the engine change together, here only.

    def _offer(self, spec: ModelSpec) -> None:
        known = self._specs.get(spec.id)
        if known is not None and bool(known.steps) != bool(spec.steps):
            self._post(ModelRemoved(model=spec.id))  # a model that becomes a pipeline, or the other way round
        self._specs[spec.id] = spec
        self._set(ModelStatus(name=spec.name, version=spec.version, state=ModelState.READY, spec=spec))
        if known != spec:
            self._post(ModelAdded(spec=spec))

    def _refuse(self, name: str, version: str, reason: str) -> None:
        """Note why; a version on offer stays there, for it was read before and its file may come back."""
        rows = self._rows.get(name, {})
        for row in [rows[version]] if version in rows else list(rows.values()):
            if row.spec is not None:
                reason_kept = f"what was read before stays on offer: {reason}"
                self._set(
                    ModelStatus(name=name, version=row.version, state=row.state, reason=reason_kept, spec=row.spec)
                )
            else:
                self._set(ModelStatus(name=name, version=row.version, state=ModelState.UNAVAILABLE, reason=reason))
        if not rows:
            self._set(ModelStatus(name=name, version=version, state=ModelState.UNAVAILABLE, reason=reason))

    def _leave_out(self, name: str, wish: Wish) -> None:
        """Withdraw what the settings do not pick, and drop what is not on disk."""
        on_disk, picked = {str(version) for version in wish.on_disk}, {str(version) for version in wish.picked}
        for version in (row.version for row in self._ordered(name) if row.version not in picked):
            self._withdraw(name, version, "not among the versions that the settings pick")
            if version not in on_disk:
                del self._rows[name][version]
        for version in sorted(on_disk - picked - self._rows[name].keys()):
            self._withdraw(name, version, "not among the versions that the settings pick")

    def _withdraw(self, name: str, version: str, reason: str) -> None:
        self._set(ModelStatus(name=name, version=version, state=ModelState.UNAVAILABLE, reason=reason))
        spec = self._specs.pop(f"{name}/{version}", None)
        if spec is not None:
            self._post(ModelRemoved(model=spec.id))

    def _forget(self, name: str) -> None:
        self._pipelines.pop(name, None)
        for row in self._ordered(name):
            self._withdraw(name, row.version, "its folder is gone")
        del self._rows[name], self._newest[name]
        self._counted.discard(name)
        self._signatures.pop(name, None)
        self._follow(name)

    def _set(self, row: ModelStatus) -> None:
        self._rows.setdefault(row.name, {})[row.version] = row
        self._newest[row.name] = max(
            self._rows[row.name].values(), key=lambda other: (other.spec is not None, _number(other))
        )

    def _ordered(self, name: str) -> list[ModelStatus]:
        return sorted(self._rows[name].values(), key=_number)


def _number(row: ModelStatus) -> int:
    return int(row.version) if row.version else 0
