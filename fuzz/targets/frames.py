"""Frames of the local channel, from bytes to a request that is checked against its model. No socket."""

from __future__ import annotations

from fuzz.target import Fault
from fuzz.targets.specs import contracts
from slotwise.edges.local import frames
from slotwise.edges.oip.errors import WireError
from slotwise.edges.oip.local.forms import priority_of, stays, understood, wants_timing

TENSOR = frames.Tensor("x", "FP32", (1, 4), 0, 16)
HEAD = (
    b'{"id":"a","inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}],'
    b'"outputs":[{"name":"x"}],"parameters":{"binary_data_output":true,"timeout":1000,"priority":3}}'
)
TEXT_HEAD = b'{"inputs":[{"name":"t","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":9}}]}'
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def frame_seeds() -> list[bytes]:
    """One frame of each kind that a client says, and some that only a server does."""
    mixed = (TENSOR, frames.Tensor("t", "BYTES", (1,), 64, 5), frames.Tensor("b", "BOOL", (2,), 128, 2))
    told = (
        frames.Hello(),
        frames.Ask(1, "plain", "", (TENSOR,), ("x",), 1000, 3, has_timing=True, id="a", released=(0, 64)),
        frames.Ask(2, "mixed", "1", mixed),
        frames.Relay(3, "plain", "1", HEAD, 64, 16, 1000, "Bearer a", TRACE, "ipv4:127.0.0.1:1", (0, 64)),
        frames.Relay(4, "text", "", TEXT_HEAD, 0, 9),
        frames.Release((0, 64, 128)),
        frames.Cancel(1),
        frames.Welcome("server", 256, 65_536, 1 << 20),
        frames.Relayed(1, b"{}", 16, 64),
        frames.Refusal(1, 503, "no", "queue_full", 1.5, 100, 7),
    )
    return [frames.encode(frame) for frame in told]


class Frames:
    """What the local door does with a frame before it looks at memory."""

    def __init__(self) -> None:
        self._contracts = contracts()

    def seeds(self) -> list[bytes]:
        """One of each kind."""
        return frame_seeds()

    def run(self, data: bytes) -> None:
        """One frame, read as a server and as a client would."""
        for decode in (frames.decode_client, frames.decode_server):
            try:
                frame = decode(data)
            except frames.FrameError:
                continue
            if repr(decode(frames.encode(frame))) != repr(frame):
                raise Fault(f"{frame!r} does not come back as it was")
            if type(frame) is frames.Ask or type(frame) is frames.Relay:
                self._ask(frame)

    def check(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """The end."""

    def _ask(self, asked: frames.Asked) -> None:
        contract = self._contracts.get(asked.model, self._contracts["plain"])
        try:
            infer = understood(asked, contract)
            priority = priority_of(asked, infer)
        except WireError as error:
            if error.status >= 500:
                raise Fault(f"a frame brings a {error.status}") from error
            return
        if not 0 <= priority <= 9:
            raise Fault(f"priority {priority}")
        if type(asked) is frames.Ask and not all(part.source is not None for part in infer.parts):
            raise Fault("an input over the local channel lies nowhere")
        is_in_place = type(asked) is frames.Relay and stays(asked, infer)
        if is_in_place and any(part.offset + part.nbytes > infer.nbytes for part in infer.parts):
            raise Fault("an input that is read in place lies behind what is looked at")
        wants_timing(asked, infer)
