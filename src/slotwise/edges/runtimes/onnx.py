"""ONNX models through ONNX Runtime, on the CPU.

One session per model and executor, threads that do not spin (they collapse under contention) and no
arena per session beyond what the runtime needs. The hot call goes to the session's inner object, which
saves about 1 us of argument checks a run; where a version of the runtime lacks it, the public call serves.

Telemetry, which official builds send to their maker by default, is off: a server of ours tells nobody
what it serves, and the thread that sends would hold locks across the zygote's forks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
import onnxruntime

from slotwise.edges.runtimes import Description, RunError, Stopped
from slotwise.edges.runtimes.tensors import Array
from slotwise.engine.ports import ModelError
from slotwise.facts.types import TensorSpec

PACKED_FILE = "model.packed.onnx"
_PACKED_WEIGHTS = "weights.bin"
WAYS = 2
"""With the weights in the order that kernels read them too, or in the model's own order alone."""
_PACKED_BYTES_MIN = 16_384
"""Tensors smaller than that stay in the model's file, where each process has its own: each mapped one is a mapping."""
_LOG_ERRORS_OF_THE_PROCESS_ONLY = 4

_MODEL_OF_ONE_NODE = (
    b'\x08\x08:2\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x00Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""y = Relu(x) of one FP32 number, as the onnx package serialises it (format 8, operators 13)."""

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


def warm_up() -> None:
    """Run a model of one node: what is forked after this loads its first model in 3 ms, not 8, and shares 8 MB more."""
    _make_session(_MODEL_OF_ONE_NODE, 1).run(["y"], {"x": np.zeros(1, np.float32)})


def load(path: str, threads: int) -> OnnxModel:
    """Make a session on so many threads. Raises ModelError with the runtime's text."""
    try:
        session = _make_session(path, threads)
    except Exception as error:  # the runtime's errors have no base of their own
        raise ModelError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path!r}: {error}") from error
    try:
        return OnnxModel(path, session)
    except UnicodeDecodeError as error:
        raise ModelError(f"{path!r} has names that are no UTF-8: {error}") from error


def pack(path: str, file: str, way: int) -> None:
    """Optimise for this processor, and write the weights beside.

    A session on such a file maps the weights, so that processes share them and loads are short. Raises ModelError.
    """
    options = _options(1)
    options.optimized_model_filepath = file
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _PACKED_WEIGHTS)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_PACKED_BYTES_MIN)
    )
    if way == 0:
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no base of their own
        raise ModelError(f"ONNX Runtime {onnxruntime.__version__} cannot pack {path!r}: {error}") from error


class OnnxModel:
    """A session, and the options of its present run, whose flag ends it."""

    def __init__(self, path: str, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._description = Description(
            inputs=tuple(_spec(path, tensor) for tensor in session.get_inputs()),
            outputs=tuple(_spec(path, tensor) for tensor in session.get_outputs()),
        )
        inner = getattr(session, "_sess", None)
        self._run = getattr(inner, "run", None) or session.run
        self._options = onnxruntime.RunOptions()

    def describe(self) -> Description:
        """What the file declares; what varies is -1."""
        return self._description

    def run(
        self, feeds: Mapping[str, Array], rows: int, names: Sequence[str], into: Mapping[str, Array]
    ) -> list[Array]:
        """Run once. Outputs given in `into` are written by the runtime straight into those arrays."""
        options = self._options
        try:
            if into:
                return self._run_bound(feeds, names, into)
            outputs: list[Array] = self._run(names, feeds, options)
            return outputs
        except Exception as error:  # the runtime's errors have no base of their own
            if options.terminate:
                raise Stopped from error
            raise RunError(str(error)) from error

    def arm(self) -> None:
        """Fresh options when the present ones have been used to stop."""
        if self._options.terminate:
            self._options = onnxruntime.RunOptions()

    def stop(self) -> None:
        """The runtime looks at the flag between nodes: this takes one node's time."""
        self._options.terminate = True

    def _run_bound(self, feeds: Mapping[str, Array], names: Sequence[str], into: Mapping[str, Array]) -> list[Array]:
        binding = self._session.io_binding()
        for name, array in feeds.items():
            if array.dtype == np.object_:
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
            else:
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name in names:
            bound = into.get(name)
            if bound is None:
                binding.bind_output(name, "cpu")
            else:
                binding.bind_output(name, "cpu", 0, bound.dtype, bound.shape, bound.ctypes.data)
        self._session.run_with_iobinding(binding, self._options)
        values = binding.get_outputs()
        return [into[name] if name in into else value.numpy() for name, value in zip(names, values, strict=True)]


def _make_session(model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    options = _options(threads)
    if isinstance(model, str) and model.endswith(PACKED_FILE):  # optimised when it was packed
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_OF_THE_PROCESS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _spec(path: str, tensor: onnxruntime.NodeArg) -> TensorSpec:
    datatype = _DATATYPES.get(tensor.type)
    if datatype is None:
        raise ModelError(f"{path!r}: {tensor.name!r} is a {tensor.type}, which the protocol has no datatype for")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    return TensorSpec(name=tensor.name, datatype=datatype, shape=shape)
