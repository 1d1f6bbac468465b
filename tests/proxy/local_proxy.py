"""A proxy on loopback for tests: inside the test's own loop, or as the process that a user starts.

Leaves out: the server behind it (e2e/running_server.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.policy import insecure_simulation_policy
from blindai.proxy.forward import ProxyOptions
from blindai.proxy.run import Address, run_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from blindai.client.attestation_view import Attestation

ANY_PORT = Address(host="127.0.0.1", port=0)
STOP_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalProxy:
    """Where it listens: `http` a URL, `grpc` host and port."""

    http: str
    grpc: str


@contextlib.asynccontextmanager
async def local_proxy(url: str, **options: Any) -> AsyncIterator[LocalProxy]:
    """A proxy in this loop, which accepts simulation; options are those of `ProxyOptions`."""
    started: asyncio.Future[LocalProxy] = asyncio.get_running_loop().create_future()

    def announce(_: Attestation, http: str, grpc: str) -> None:
        started.set_result(LocalProxy(http=f"http://{http}", grpc=grpc))

    chosen = {"policy": insecure_simulation_policy(), "service": "blindai-srv", "level": "fresh", **options}
    task = asyncio.create_task(
        run_proxy(ProxyOptions(url=url, **chosen), http=ANY_PORT, grpc=ANY_PORT, announce=announce)
    )
    either: tuple[asyncio.Future[Any], ...] = (task, started)
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield started.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyProcess:
    """A running `blindai proxy`."""

    at: LocalProxy
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def proxy_process(
    url: str, log: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[ProxyProcess]:
    """`blindai proxy` on free ports, which accepts simulation; it ends with the block."""
    command = [sys.executable, "-m", "blindai.cli.main", "proxy", url, "--insecure-simulation"]
    command += ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *options]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, **(environment or {})}
        ) as process,
    ):
        try:
            assert process.stdout is not None
            told = [process.stdout.readline().decode().split() for _ in range(2)]
            assert [line[:1] for line in told] == [["ready"], ["grpc"]], log.read_text()
            yield ProxyProcess(at=LocalProxy(http=told[0][1], grpc=told[1][1]), process=process)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
