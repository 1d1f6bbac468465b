"""Start and stop the proxy: verify the server first, then listen, and forward until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from blindai.errors import InvalidInputError
from blindai.proxy.forward import Forwarder, ProxyOptions
from blindai.proxy.http_front import make_application

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.client.attestation_view import Attestation
    from blindai.proxy.grpc_front import GrpcFront

STOP_S = 10.0
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A local address; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `host:port` of this machine's loopback.

    Raises:
        InvalidInputError: no such form, or an address that other machines reach: what comes in is not protected.
    """
    host, colon, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")  # one address, so that port 0 is one port
    if not colon or not port.isdecimal() or int(port) > _MAX_PORT:
        raise InvalidInputError(f"{text!r} is not host:port", hint="for example 127.0.0.1:8000")
    if not _is_loopback(host):
        raise InvalidInputError(
            f"{host} is not a loopback address: others could read what the proxy is there to protect",
            hint="listen on 127.0.0.1 or [::1], on the machine of whoever owns the data",
        )
    return Address(host=host, port=int(port))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def run_proxy(
    options: ProxyOptions,
    *,
    http: Address,
    grpc: Address | None,
    announce: Callable[[Attestation, str, str], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        options: which server, and what is accepted as proof.
        http: where plain HTTP is offered.
        grpc: where plain gRPC is offered; None offers none.
        announce: called once requests are answered, with what was verified and both addresses.

    Raises:
        RejectedEvidenceError: the server is not what the policy accepts; nothing listened.
        ChannelError: it cannot be reached, or is another service.
        OSError: a port is taken.
    """
    forwarder = Forwarder(options)
    runner = web.AppRunner(
        make_application(forwarder, host=http.host),
        access_log=None,
        handler_cancellation=True,  # whoever leaves no longer waits for a model
        auto_decompress=False,  # the server inflates, within its bounds
        shutdown_timeout=STOP_S,
    )
    front: GrpcFront | None = None
    try:
        attestation = await forwarder.verify()
        stop = _stop_event()
        await runner.setup()
        await web.TCPSite(runner, http.host, http.port).start()
        if grpc is not None:
            from blindai.proxy.grpc_front import start_grpc  # noqa: PLC0415  # an extra: HTTP works without it

            front = await start_grpc(forwarder, str(grpc))
        announce(
            attestation,
            str(Address(host=http.host, port=runner.addresses[0][1])),
            str(Address(host=grpc.host, port=front.port)) if grpc and front else "",
        )
        await stop.wait()
    finally:
        await asyncio.gather(runner.cleanup(), *((front.stop(STOP_S),) if front else ()))
        await forwarder.close()


def _stop_event() -> asyncio.Event:
    """Set by the first signal to stop; until it exists, signals end the process, which has nothing to clean up."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: there Ctrl-C is a KeyboardInterrupt
            loop.add_signal_handler(number, stop.set)
    return stop
