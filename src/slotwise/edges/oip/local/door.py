"""The door for clients on the same machine: the Open Inference Protocol's requests over the local channel.

What is right and what is wrong about a request is decided by the same code as over HTTP; only its way differs. Inputs
lie in memory that the client has brought, and executors read them there; outputs are copied once, to memory that the
server lends to that client alone; the socket carries frames that say where (`edges/local`). Inputs whose bytes have to
be checked (BYTES and BOOL) are copied first, for their owner could change them between the check and the run.

A client is who the kernel says it is, and what it may do is what its user may do, so no token is asked for. The gRPC
door is another matter: it asks for others, so it has a door of this kind to itself, which takes relayed requests and
no others, and judges each by the token that came with it. The door that clients know takes none: a relayed request
may name regions of shared memory and a trace, for which nobody here has shown a right. All that is not inference
stays with HTTP, where the rights for it are checked.
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
from slotwise.edges.oip.access import Access
from slotwise.edges.oip.answers import error_of, lay_answer, timing_parameters
from slotwise.edges.oip.codec import Bounds, Contract, Infer, refs
from slotwise.edges.oip.errors import WireError
from slotwise.edges.oip.exchange import JoinTrace
from slotwise.edges.oip.local.forms import (
    priority_of,
    refs_in_place,
    spent,
    stays,
    take_in,
    understood,
    wants_timing,
)
from slotwise.edges.oip.local.guest import Guest, LentMemory, Question
from slotwise.edges.oip.management import spec_of
from slotwise.edges.oip.regions import Regions
from slotwise.engine.ports import Arena, Clock, Memories, Models, Outputs, Post, Refusal, Refused
from slotwise.facts.actions import Reply
from slotwise.facts.events import Arrived, Cancelled
from slotwise.facts.types import FOREVER_NS, Outcome, Reason, Request
from slotwise.facts.units import US
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


@value
class Relays:
    """What a door needs for requests that its client relays for others; it takes no others then."""

    access: Access
    """Judges what each of them shows."""
    regions: Regions
    """Where their tensors may lie beside the frame's own memory."""
    join_trace: JoinTrace | None = None
    """Told of a request that is a part of a trace, before it arrives."""
    door: str = "grpc"
    """Whose refusals they are, when they are counted and logged."""


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
        relays: Relays | None = None,
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
        self._relays = relays
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
            question.guest.refuse(question.asked, error)
        for guest in list(self._guests):
            guest.link.close()

    def hurry(self) -> None:
        """Let `stop` wait no longer."""
        self._drained.set()

    def statistics(self) -> LocalStatistics:
        """A snapshot."""
        return LocalStatistics(
            replies={int(status): count for status, count in self.replies.items()},
            requests_in_flight=len(self._waiting),
            clients=tuple(guest.link.peer for guest in tuple(self._guests)),
        )

    # The clients' side

    def submit(self, guest: Guest, asked: frames.Asked) -> None:
        """Take a request to the engine. Raises WireError."""
        if self._is_draining:
            raise self._no_room("the server is shutting down", Reason.SHUTTING_DOWN)
        if len(guest.serials) >= self.limits.requests_max:
            raise self._no_room(f"{len(guest.serials)} requests of this client are under way, the limit")
        self._check_may_ask(asked)
        contract = self._contract(asked.model, asked.version)
        infer = understood(asked, contract)
        priority = priority_of(asked, infer)
        region = None if stays(asked, infer) else self._take_in(guest, asked, infer)
        inputs = refs(infer, self._arena, region) if region is not None else refs_in_place(asked, infer, guest)
        now_ns = self._clock.now_ns()
        spec = contract.spec
        request = Request(
            id=next(self._ids),
            model=spec.id,
            arrival_ns=now_ns,
            deadline_ns=min(now_ns + (infer.timeout_ns or asked.timeout_us * US or spec.slo_ns), FOREVER_NS),
            rows=infer.rows,
            priority=priority or spec.priority,
            form=infer.form,
            inputs=inputs,
            regions=() if region is None else (region,),
            outputs=infer.names,
        )
        question = Question(guest, asked, contract, infer, region)
        question.request = request
        self._waiting[request.id] = question
        guest.serials[asked.serial] = request.id
        if type(asked) is frames.Relay:
            self._join(request, asked)
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

    def turned_away(self, guest: Guest, asked: frames.Asked | None, error: WireError) -> None:
        """The client is told an error that the engine has not made."""
        who, peer, relays = guest.link.peer, "", self._relays
        if relays is not None and type(asked) is frames.Relay:
            peer = asked.peer
        self._refused(
            Refusal(
                door="local" if relays is None else relays.door,
                status=int(error.status),
                reason=error.reason or Reason.NONE.value,
                message=error.message,
                peer=peer or f"pid {who.pid} uid {who.uid}",
                target="" if asked is None else asked.model,
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

    def _check_may_ask(self, asked: frames.Asked) -> None:
        """Raise WireError for a question that is not for this door, or whose asker has no right to it."""
        relays = self._relays
        if type(asked) is not frames.Relay:
            if relays is not None:
                raise WireError(HTTPStatus.FORBIDDEN, "only relayed requests are taken here", reason="forbidden")
        elif relays is None:
            words = "no relayed requests are taken here; ask for yourself, or over HTTP or gRPC"
            raise WireError(HTTPStatus.FORBIDDEN, words, reason="forbidden")
        else:
            relays.access.check_infer(asked.authorization.encode() or None, asked.model)

    def _join(self, request: Request, relay: frames.Relay) -> None:
        assert self._relays is not None, "no Relay has come so far elsewhere"
        if relay.traceparent and self._relays.join_trace is not None:
            self._relays.join_trace(request.id, relay.traceparent)

    def _take_in(self, guest: Guest, asked: frames.Asked, infer: Infer) -> int:
        """Copy a request's inputs into the arena. Raises WireError, and then nothing is held."""
        region = self._arena.allocate(infer.nbytes or 1)
        if region is None:
            words = f"no room in shared memory for {infer.nbytes} bytes of tensors"
            raise WireError(
                HTTPStatus.SERVICE_UNAVAILABLE, words, reason="no_room", retry_after_ns=self.limits.retry_after_ns
            )
        try:
            read = guest.read if self._relays is None else self._relays.regions.read
            take_in(asked, infer, guest, self._arena.view(region, infer.nbytes or 1), read)
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
        del guest.serials[question.asked.serial]
        if guest.link.is_open:
            try:
                self._answer(question, reply)
            except WireError as error:
                guest.refuse(question.asked, error)
        if question.region is not None:
            self._arena.release(question.region)  # after the answer: an output may lie in the request's own region
        if self._is_draining and not self._waiting:
            self._drained.set()

    def _answer(self, question: Question, reply: Reply) -> None:
        outcome, has_timing = reply.outcome, wants_timing(question.asked, question.infer)
        is_late = outcome is Outcome.LATE and self._late_answers
        if outcome is not Outcome.IN_TIME and not is_late:
            raise error_of(reply, question.request, self._clock.now_ns(), self.limits.retry_after_ns)
        if type(question.asked) is frames.Relay:
            self._answer_relay(question, reply)
            return
        timing = None
        if is_late or has_timing:
            timing = spent(outcome, reply.timing, reply.request_id) if has_timing else frames.Spent(outcome.value)
        question.guest.answer(question, reply, self._outputs, timing)

    def _answer_relay(self, question: Question, reply: Reply) -> None:
        assert self._relays is not None, "no Relay has come so far elsewhere"
        wish, parameters = question.infer.wish, None
        if wish.has_timing:
            parameters = timing_parameters(reply.outcome, reply.timing, reply.request_id)
        elif reply.outcome is Outcome.LATE:
            parameters = timing_parameters(reply.outcome, None)
        read, write = self._outputs.read, self._relays.regions.write
        laid = lay_answer(wish, question.contract, reply.outputs, read, write, parameters)
        question.guest.answer_relay(question, laid)
