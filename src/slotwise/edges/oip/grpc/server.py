"""The gRPC door's own process: gRPC's server with inference, health and reflection, from start to drained.

It says on standard output in one line of JSON that it listens, or why it cannot, then what it turns away, and ends
when it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from slotwise.edges.oip.grpc import inference_pb2
from slotwise.edges.oip.grpc.channel import Channel
from slotwise.edges.oip.grpc.errors import CallError
from slotwise.edges.oip.grpc.limits import DoorSettings, Ready
from slotwise.edges.oip.grpc.refusals import Gathering
from slotwise.edges.oip.grpc.service import NAME, Service
from slotwise.edges.oip.grpc.upstream import Upstream
from slotwise.engine.ports import Refusal

SERVICES = ("", NAME)
"""What the health service knows: the server as a whole, and the inference service."""


async def serve(
    settings: DoorSettings,
    stopped: asyncio.Event,
    tell: Callable[[Ready], None],
    tell_refused: Callable[[Sequence[Refusal]], None],
) -> None:
    """Serve until `stopped`; then answer what is under way. `tell` is called once, at the start."""
    limits = settings.limits
    upstream = Upstream(
        settings.upstream,
        connections_max=limits.requests_max,
        idle_s=settings.upstream_idle_s,
        retry_after_ns=limits.retry_after_ns,
    )
    channel = Channel(
        settings.channel,
        memory_bytes=limits.memory_bytes,
        requests_max=limits.requests_max,
        retry_after_ns=limits.retry_after_ns,
    )
    refusals = Gathering(tell_refused)
    service, healthy = Service(upstream, channel, limits, refusals.note), health.aio.HealthServicer()
    options = [("grpc.max_receive_message_length", limits.message_bytes_max), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=limits.calls_max)
    server.add_generic_rpc_handlers((service.handler(),))
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    told = (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(told, server, pool=_descriptors())
    server.add_generic_rpc_handlers((service.unknown(),))
    try:
        await channel.open()
        port = _bind(server, settings)
    except (OSError, RuntimeError, CallError) as error:
        tell(Ready(error=str(error)))
        return
    await server.start()
    await _set_health(healthy, health_pb2.HealthCheckResponse.SERVING)
    tell(Ready(port=port))
    await stopped.wait()
    await _set_health(healthy, health_pb2.HealthCheckResponse.NOT_SERVING)
    await service.drain(settings.patience_s)
    await server.stop(limits.linger_s)
    channel.close()
    upstream.close()
    refusals.flush()


def _bind(server: grpc.aio.Server, settings: DoorSettings) -> int:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.port}"
    if settings.tls is None:
        return server.add_insecure_port(address)
    pair = (Path(settings.tls.key).read_bytes(), Path(settings.tls.certificate).read_bytes())
    return server.add_secure_port(address, grpc.ssl_server_credentials([pair]))


async def _set_health(healthy: health.aio.HealthServicer, status: int) -> None:
    for name in SERVICES:
        await healthy.set(name, status)


def _descriptors() -> DescriptorPool:
    """All that is served, in one pool: the protocol's messages have theirs, the other two are in the process's."""
    pool = DescriptorPool()
    for module in (inference_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
