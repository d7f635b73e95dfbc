"""The zoo's pipeline: a line of text as a picture of bytes is made ready once, then read and looked at for its angle.

Here live its files and whether they are complete; the model that makes ready is drawn up in `prepare`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np

LINE, PREPARE, READ, ANGLE = "ocr-line", "ocr-prepare", "ocr-read", "ocr-angle"
PICTURE, CHARACTERS, ANGLES = "picture", "characters", "angles"
MEMBERS = (READ, ANGLE)
"""Models of the catalogue that it needs."""
ABOUT = {
    LINE: "A pipeline: the characters of a line of text, and whether it stands on its head, from a picture of bytes",
    PREPARE: "A picture of bytes, 48 x 320 x 3, as the models of lines take it, in two widths",
}
STEPS = f"""# {ABOUT[LINE]}
inputs: [{PICTURE}]
outputs: [{CHARACTERS}, {ANGLES}]
steps:
  - model: {PREPARE}
    inputs: {{{PICTURE}: {PICTURE}}}
    outputs: {{line: line, narrow: narrow}}
  - model: {READ}
    inputs: {{x: line}}
    outputs: {{fetch_name_0: {CHARACTERS}}}
  - model: {ANGLE}
    inputs: {{x: narrow}}
    outputs: {{save_infer_model/scale_0.tmp_1: {ANGLES}}}
"""
SETTINGS = {
    LINE: f"# {ABOUT[LINE]}\nslo_ms = 250\n",
    PREPARE: f"# {ABOUT[PREPARE]}\nslo_ms = 25\nbatch_max = 8\nbatchable = true  # rows are independent\n",
}
MODEL_FILE, STEPS_FILE, SETTINGS_FILE = "1/model.onnx", "pipeline.yaml", "slotwise.toml"
EXAMPLE_FILE, EXPECTED_FILE, ORIGIN_FILE = "example.npz", "expected.npz", "provenance.json"
FILES = {LINE: (STEPS_FILE, EXAMPLE_FILE, EXPECTED_FILE), PREPARE: (MODEL_FILE, EXAMPLE_FILE, EXPECTED_FILE)}
"""What makes each incomplete when it differs; settings may be changed by hand."""


class Origin(msgspec.Struct, frozen=True):
    """Where the two come from, written beside each: from here, and from the models of these digests."""

    made_by: str
    of: dict[str, str]
    digests: dict[str, str]


def put(target: Path, models: Mapping[str, bytes], maker: Callable[[], ModuleType]) -> bool:
    """Have the pipeline and its first model lie in the folder; False where they were there and complete.

    `maker` loads the module `prepare`.
    """
    of = {name: _digest(content) for name, content in models.items()} | {"steps": _digest(STEPS.encode())}
    if all(_is_complete(target / name, name, of) for name in FILES):
        return False
    module = maker()
    prepared = module.prepare()
    whole = module.expected(prepared, models)
    for name, content, answers in ((PREPARE, prepared.model, prepared.expected), (LINE, STEPS.encode(), whole)):
        draft = target / f".{name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        path = draft / FILES[name][0]
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        np.savez(draft / EXAMPLE_FILE, **prepared.example)
        np.savez(draft / EXPECTED_FILE, **answers)
        (draft / SETTINGS_FILE).write_text(SETTINGS[name], encoding="utf-8")
        origin = Origin(made_by="slotwise", of=of, digests={file: _digest_of(draft / file) for file in FILES[name]})
        (draft / ORIGIN_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(origin), indent=2))
        shutil.rmtree(target / name, ignore_errors=True)
        draft.rename(target / name)
    return True


def _is_complete(folder: Path, name: str, of: Mapping[str, str]) -> bool:
    try:
        origin = msgspec.json.decode((folder / ORIGIN_FILE).read_bytes(), type=Origin)
        digests = {file: _digest_of(folder / file) for file in FILES[name]}
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return origin.of == of and origin.digests == digests and (folder / SETTINGS_FILE).is_file()


def _digest_of(path: Path) -> str:
    return _digest(path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
