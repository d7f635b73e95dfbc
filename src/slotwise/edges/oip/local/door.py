"""The door for clients on the same machine: the Open Inference Protocol's requests over the local channel.

What is right and what is wrong about a request is decided by the same code as over HTTP; only its way differs. Inputs
lie in memory that the client has brought, and executors read them there; outputs are copied once, to memory that the
server lends to that client alone; the socket carries frames that say where (`edges/local`). Inputs whose bytes have to
be checked (BYTES and BOOL) are copied first, for their owner could change them between the check and the run.

A client is who the kernel says it is, and what it may do is what its user may do, so no token is asked for. All that is
not inference stays with HTTP, where the rights for it are checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus

from slotwise.edges.local import frames
from slotwise.edges.local.limits import LocalLimits
from slotwise.edges.local.link import Link, Peer
from slotwise.edges.local.listener import Listener
from slotwise.edges.oip.answers import error_of, timing_parameters
from slotwise.edges.oip.codec import (
    Bounds,
    Contract,
    Head,
    Infer,
    Input,
    InputParameters,
    Output,
    Parameters,
    borrow,
    refs,
    understand,
)
from slotwise.edges.oip.datatypes import NEEDS_CHECK
from slotwise.edges.oip.errors import WireError, bad
from slotwise.edges.oip.local.guest import Guest, LentMemory, Question
from slotwise.edges.oip.management import spec_of
from slotwise.engine.ports import Arena, Clock, Memories, Models, Outputs, Post, Refusal, Refused
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived, Cancelled
from slotwise.facts.types import FOREVER_NS, PRIORITY_LOWEST, Outcome, Reason, Request, TensorRef, Timing
from slotwise.facts.value import value

CONTRACTS_MAX = 4096
"""Names of models whose contract is remembered."""
Lend = Callable[[int], LentMemory]


@value
class LocalStatistics:
    """What the door itself sees: replies by status, and how much is under way."""

    replies: Mapping[int, int]
    requests_in_flight: int
    clients: tuple[Peer, ...]


class LocalDoor:
    """Serves clients on the same machine; an `engine.ports.Front`."""

    def __init__(
        self,
        *,
        models: Models,
        arena: Arena,
        outputs: Outputs,
        memories: Memories,
        lend: Lend,
        post: Post,
        clock: Clock,
        limits: LocalLimits,
        bounds: Bounds,
        request_ids: Iterator[int],
        refused: Refused,
        server: str,
        late_answers: bool = False,
    ) -> None:
        """`request_ids` is shared among all doors of an engine; `late_answers` delivers late ones as answers."""
        self.limits = limits
        self.lend = lend
        self.share = memories.share
        self.unshare = memories.unshare
        self.server = server
        self.replies: Counter[int] = Counter()
        self._models = models
        self._arena = arena
        self._outputs = outputs
        self._post = post
        self._clock = clock
        self._bounds = bounds
        self._ids = request_ids
        self._refused = refused
        self._late_answers = late_answers
        self._uids = frozenset(limits.uids or (os.getuid(), 0))
        self._contracts: dict[tuple[str, str], Contract] = {}
        self._waiting: dict[int, Question] = {}
        self._guests: set[Guest] = set()
        self._is_draining = False
        self._drained = asyncio.Event()
        self._listener: Listener | None = None

    def start(self, path: str) -> None:
        """Listen at a path. Raises ListenError."""
        self._listener = Listener(path, self._accept)
        self._listener.start()

    async def stop(self, patience_s: float) -> None:
        """Refuse new requests at once, wait for those under way, then close. Those that outlast it are told so."""
        self._is_draining = True
        if self._listener is not None:
            self._listener.close()
        if self._waiting:
            with contextlib.suppress(TimeoutError):  # what it means is told to each client below
                await asyncio.wait_for(self._drained.wait(), patience_s)
        for question in list(self._waiting.values()):
            error = self._no_room("the server is shutting down and did not wait for the answer", Reason.SHUTTING_DOWN)
            question.guest.refuse(question.ask.serial, error)
        for guest in list(self._guests):
            guest.link.close()

    def statistics(self) -> LocalStatistics:
        """A snapshot."""
        return LocalStatistics(
            replies={int(status): count for status, count in self.replies.items()},
            requests_in_flight=len(self._waiting),
            clients=tuple(guest.link.peer for guest in tuple(self._guests)),
        )

    # The clients' side

    def submit(self, guest: Guest, ask: frames.Ask) -> None:
        """Take a request to the engine. Raises WireError."""
        if self._is_draining:
            raise self._no_room("the server is shutting down", Reason.SHUTTING_DOWN)
        if len(guest.serials) >= self.limits.requests_max:
            raise self._no_room(f"{len(guest.serials)} requests of this client are under way, the limit")
        contract = self._contract(ask.model, ask.version)
        infer = understand(head_of(ask), 0, contract)
        stays = not any(part.datatype in NEEDS_CHECK for part in infer.parts)
        region = None if stays else self._take_in(guest, infer)
        inputs = refs(infer, self._arena, region) if region is not None else _refs_in_place(infer, guest)
        now_ns = self._clock.now_ns()
        spec = contract.spec
        request = Request(
            id=next(self._ids),
            model=spec.id,
            arrival_ns=now_ns,
            deadline_ns=min(now_ns + (infer.timeout_ns or spec.slo_ns), FOREVER_NS),
            rows=infer.rows,
            priority=infer.priority or spec.priority,
            form=infer.form,
            inputs=inputs,
            regions=() if region is None else (region,),
            outputs=infer.names,
        )
        question = Question(guest, ask, contract, infer, region)
        question.request = request
        self._waiting[request.id] = question
        guest.serials[ask.serial] = request.id
        self._post(Arrived(request=request))

    def cancel(self, guest: Guest, serial: int) -> None:
        """The answer is not wanted any more; one that has been sent already has crossed this."""
        request_id = guest.serials.get(serial)
        if request_id is not None:
            self._post(Cancelled(request_id=request_id))

    def forget(self, guest: Guest) -> None:
        """The client has gone away. Its requests are cancelled; what they hold is held until the engine agrees."""
        self._guests.discard(guest)
        for request_id in guest.serials.values():
            self._post(Cancelled(request_id=request_id))

    def turned_away(self, guest: Guest, target: str, error: WireError) -> None:
        """The client is told an error that the engine has not made."""
        who, reason = guest.link.peer, error.reason or Reason.NONE.value
        peer = f"pid {who.pid} uid {who.uid}"
        self._refused(
            Refusal(
                door="local", status=int(error.status), reason=reason, message=error.message, peer=peer, target=target
            )
        )

    def _accept(self, connection: socket.socket) -> None:
        link = Link(connection, self.limits)
        guest = Guest(self, link)
        self._guests.add(guest)
        link.start(guest)
        if link.peer.uid not in self._uids:
            words = f"user {link.peer.uid} may not use this socket; the server's `local.uids` say who may"
            guest.turn_away(WireError(HTTPStatus.FORBIDDEN, words, reason="forbidden"))
        elif len(self._guests) > self.limits.connections_max:
            guest.turn_away(self._no_room("too many connections"))

    def _take_in(self, guest: Guest, infer: Infer) -> int:
        """Copy a request's inputs into the arena. Raises WireError, and then nothing is held."""
        region = self._arena.allocate(infer.nbytes or 1)
        if region is None:
            words = f"no room in shared memory for {infer.nbytes} bytes of tensors"
            raise WireError(
                HTTPStatus.SERVICE_UNAVAILABLE, words, reason="no_room", retry_after_ns=self.limits.retry_after_ns
            )
        try:
            borrow(infer, self._arena.view(region, infer.nbytes or 1), guest.read)
        except WireError:
            self._arena.release(region)
            raise
        return region

    def _contract(self, name: str, version: str) -> Contract:
        status = self._models.find(name, version)
        contract = self._contracts.get((name, version))
        if status is not None and contract is not None and contract.spec is status.spec:
            return contract
        contract = Contract(spec_of(status, name, version, self.limits.retry_after_ns), self._bounds)
        if len(self._contracts) >= CONTRACTS_MAX:
            self._contracts.clear()
        self._contracts[name, version] = contract
        return contract

    def _no_room(self, words: str, reason: Reason = Reason.QUEUE_FULL) -> WireError:
        status, retry_after_ns = HTTPStatus.SERVICE_UNAVAILABLE, self.limits.retry_after_ns
        return WireError(status, words, reason=reason.value, retry_after_ns=retry_after_ns)

    # The engine's side

    def reply(self, reply: Reply) -> None:
        """Answer one request; nothing when it came through another door, or its client has gone away."""
        question = self._waiting.pop(reply.request_id, None)
        if question is None:
            return
        guest = question.guest
        del guest.serials[question.ask.serial]
        if guest.link.is_open:
            try:
                self._answer(question, reply)
            except WireError as error:
                guest.refuse(question.ask.serial, error)
        if question.region is not None:
            self._arena.release(question.region)  # after the answer: an output may lie in the request's own region
        if self._is_draining and not self._waiting:
            self._drained.set()

    def _answer(self, question: Question, reply: Reply) -> None:
        outcome, has_timing = reply.outcome, question.ask.has_timing
        is_late = outcome is Outcome.LATE and self._late_answers
        if outcome is not Outcome.IN_TIME and not is_late:
            raise error_of(reply, question.request, self._clock.now_ns(), self.limits.retry_after_ns)
        timing = None
        if is_late or has_timing:
            timing = _spent(outcome, reply.timing, reply.request_id) if has_timing else frames.Spent(outcome.value)
        question.guest.answer(question, reply, self._outputs, timing)


def _refs_in_place(infer: Infer, guest: Guest) -> tuple[TensorRef, ...]:
    """A request's inputs in the client's own memory. Raises WireError for those that do not lie there."""
    found = []
    for part in infer.parts:
        assert part.source is not None, "all inputs of this door lie somewhere"
        guest.check(part.source)
        found.append(
            TensorRef(
                name=part.name,
                datatype=part.datatype,
                shape=part.shape,
                segment=guest.segment,
                offset=part.source.offset,
                nbytes=part.nbytes,
            )
        )
    return tuple(found)


def _spent(outcome: Outcome, timing: Timing | None, request_id: int) -> frames.Spent:
    told = timing_parameters(outcome, timing, request_id)
    return frames.Spent(
        outcome=told.slotwise_outcome,
        queue_us=told.slotwise_queue_us,
        wait_us=told.slotwise_wait_us,
        execution_us=told.slotwise_execution_us,
        executor=told.slotwise_executor,
        batch_rows=told.slotwise_batch_rows,
        attempts=told.slotwise_attempts,
        prediction_error_us=told.slotwise_prediction_error_us,
        request=told.slotwise_request,
    )


def head_of(ask: frames.Ask) -> Head:
    """The request in the protocol's own form, so that one piece of code checks it. Raises WireError."""
    if ask.priority > PRIORITY_LOWEST:
        raise bad(f"the priority is {ask.priority}; it is 1 (highest) to {PRIORITY_LOWEST}, or 0 for the model's own")
    inputs = [
        Input(
            tensor.name,
            tensor.datatype,
            list(tensor.shape),
            InputParameters("", tensor.offset, tensor.nbytes),
        )
        for tensor in ask.inputs
    ]
    parameters = Parameters(ask.timeout_us, ask.priority, binary_data_output=True)
    return Head(inputs, parameters=parameters, outputs=[Output(name) for name in ask.outputs])
