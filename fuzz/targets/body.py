"""The body of an inference over HTTP, from bytes off the wire to tensors in shared memory, and back to an answer.

An input is a line of words, `MODEL HEAD-LENGTH ENCODING STEP`, and the body. Each body comes whole and in pieces of
STEP bytes, and both must end alike.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import cast

from fuzz.target import Fault
from fuzz.targets.specs import contracts
from slotwise.edges.oip.answers import encode_answer
from slotwise.edges.oip.body import inflater
from slotwise.edges.oip.codec import refs
from slotwise.edges.oip.datatypes import SIZES
from slotwise.edges.oip.errors import WireError
from slotwise.edges.oip.exchange import Exchange, Line, Room
from slotwise.edges.oip.limits import Limits
from slotwise.edges.oip.regions import Regions
from slotwise.edges.store.files import SharedArena
from slotwise.facts.types import ZEROS_SEGMENT, TensorRef

LIMITS = Limits(body_bytes_max=1 << 20, json_bytes_max=1 << 20, stream_bytes_min=64, collected_bytes_max=4 << 20)
ARENA_BYTES = 8 << 20
STEP_MAX = 10_000
PIECES_MAX = 500
_HEAD = "plain - - 7\n"


class Body:
    """The codec and all that it stands on."""

    def __init__(self) -> None:
        self._arena = SharedArena(ARENA_BYTES)
        self._regions = Regions(LIMITS)
        self._room = Room(LIMITS.collected_bytes_max)
        self._contracts = contracts()

    def seeds(self) -> list[bytes]:
        """Requests of every form."""
        row = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2.5, -3, 4e3]}
        floats = struct.pack("<4f", 1, 2, 3, 4)
        plain = json.dumps({"id": "a", "parameters": {"timeout": 1000, "priority": 3}, "inputs": [row]}).encode()
        nested = json.dumps({"inputs": [{**row, "data": [[1, 2, 3, 4]]}], "outputs": [{"name": "x"}]}).encode()
        binary = _head("x", "FP32", [1, 4], 16, binary_data_output=True)
        wide = _head("x", "FP32", [8, 4], 128)
        text = _head("t", "BYTES", [2], 11)
        mixed = [
            {**row, "parameters": {"binary_data_size": 16}, "data": None},
            {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["\u00e4b"]},
            {"name": "b", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}},
            {"name": "h", "datatype": "FP16", "shape": [1, 2], "parameters": {"binary_data_size": 4}},
        ]
        del mixed[0]["data"]
        mixed_head = json.dumps({"inputs": mixed, "parameters": {"binary_data_output": True}}).encode()
        region = {"shared_memory_region": "r", "shared_memory_byte_size": 16, "shared_memory_offset": 0}
        borrowed = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": region}]})
        open_ = [
            {"name": "o", "datatype": "INT64", "shape": [1, 1, 3], "data": [[[1, -2, 3]]]},
            {"name": "s", "datatype": "UINT8", "shape": [], "data": [255]},
        ]
        return [
            _HEAD.encode() + plain,
            _HEAD.encode() + nested,
            b"plain %d - 5\n" % len(binary) + binary + floats,
            b"plain %d - 64\n" % len(wide) + wide + floats * 8,
            b"plain 0 - 3\n" + floats,
            b"text 0 - 3\n" + b"hello",
            b"text %d - 3\n" % len(text) + text + b"\x02\x00\x00\x00hi\x01\x00\x00\x00!",
            b"mixed %d - 9\n" % len(mixed_head) + mixed_head + floats + b"\x00\x01" + b"abcd",
            b"plain - gzip 11\n" + zlib.compress(plain, wbits=31),
            b"plain - deflate 11\n" + zlib.compress(nested),
            b"plain - - 9\n" + borrowed.encode(),
            _HEAD.encode() + _unsent("server", [{"name": "x", "datatype": "FP32", "shape": [2, 4]}]),
            b"text - - 7\n" + _unsent("executor", [{"name": "t", "datatype": "BYTES", "shape": [3]}]),
            b"open - - 4\n" + json.dumps({"inputs": open_}).encode(),
        ]

    def run(self, data: bytes) -> None:
        """One body, whole and in pieces."""
        line, _, body = data.partition(b"\n")
        words = [*line.split(b" "), b"", b"", b"", b""]
        model = words[0].decode("latin-1")
        if model not in self._contracts:
            model = "plain"
        head_length = int(words[1]) if words[1].isdigit() and len(words[1]) < 15 else None
        step = int(words[3]) if words[3].isdigit() and len(words[3]) < 15 else len(body)
        step = max(1, min(step, STEP_MAX), -(-len(body) // PIECES_MAX))
        whole = self._outcome(model, head_length, words[2], body, len(body) or 1)
        parts = self._outcome(model, head_length, words[2], body, step)
        if whole != parts and not isinstance(whole, int) and not isinstance(parts, int):
            raise Fault(f"a body in pieces means {parts!r}, the whole {whole!r}")
        if isinstance(whole, int) != isinstance(parts, int):
            raise Fault(f"a body in pieces ends as {parts!r:.200}, the whole as {whole!r:.200}")
        if self._arena.regions:
            raise Fault(f"{self._arena.regions} regions are held after the end")

    def check(self) -> None:
        """Room that was taken for bodies has been given back."""
        self._room.take(LIMITS.collected_bytes_max, 0)
        self._room.give(LIMITS.collected_bytes_max)

    def close(self) -> None:
        """The end."""
        self.check()
        self._arena.close()

    def _outcome(self, model: str, head_length: int | None, encoding: bytes, body: bytes, step: int) -> bytes | int:
        """The answer of a model that gives back what it is sent, or the status of the error."""
        exchange = Exchange(cast(Line, None), self._arena, self._regions, LIMITS, self._room)
        exchange.contract = self._contracts[model]
        exchange.head_length = head_length
        try:
            exchange.inflater = inflater(encoding if encoding in (b"gzip", b"deflate") else b"", LIMITS.body_bytes_max)
            exchange.announce(len(body))
            for at in range(0, len(body), step):
                exchange.write(body[at : at + step])
            if exchange.error is not None:
                raise exchange.error
            return self._answer(exchange)
        except WireError as error:
            if error.status >= 500 and error.reason != "no_room":
                raise Fault(f"a request alone can bring a {error.status}: {error}") from error
            error.body()
            return int(error.status)
        finally:
            exchange.discard()

    def _answer(self, exchange: Exchange) -> bytes:
        infer = exchange.finish()
        assert exchange.region is not None, "finished"
        assert exchange.contract is not None, "set above"
        for part in infer.parts:
            if not part.is_zeros and (part.offset % 64 or part.offset + part.nbytes > max(1, infer.nbytes)):
                raise Fault(f"a part lies at {part.offset} of {infer.nbytes} bytes")
            size = SIZES.get(part.datatype)
            elements = 1
            for dimension in part.shape:
                elements *= dimension
            if size is not None and size * elements != part.nbytes:
                raise Fault(f"{part.shape} of {part.datatype} has {part.nbytes} bytes")
        outputs = refs(infer, self._arena, exchange.region)
        payload = encode_answer(
            infer.wish,
            exchange.contract,
            outputs,
            self._read,
            self._regions.write,
            None,
        )
        return payload.body

    def _read(self, ref: TensorRef) -> memoryview:
        if ref.segment == ZEROS_SEGMENT:
            return memoryview(bytes(ref.nbytes))
        return self._arena.view(ref.offset, ref.nbytes)


def _unsent(made_by: str, inputs: list[dict[str, object]]) -> bytes:
    return json.dumps({"inputs": inputs, "parameters": {"slotwise_inputs": made_by}}).encode()


def _head(name: str, datatype: str, shape: list[int], nbytes: int, **parameters: object) -> bytes:
    given = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": nbytes}}
    return json.dumps({"inputs": [given], "parameters": parameters}).encode()
