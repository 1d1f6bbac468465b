"""Mixed load on one server for so many seconds, and what was left of it.

Two tenants with four models each; SDK clients sync and async through both doors, plain HTTPS and gRPC; models that come
and go; processes killed; requests abandoned; a new epoch key every 30 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soak.actors import Soak, async_sdk, canceller, chaser, killer, raw_grpc, raw_oip, sync_sdk, uploader
from soak.soak_models import soak_models
from soak.soaked_server import TENANTS, SoakedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from pathlib import Path

    from soak.soak_models import SoakModel
    from soak.tally import Tally

_WARM_UP_SHARE = 0.25
_THREADS = 16  # each sync actor has one all the time, and the default has too few for a small machine
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakResult:
    """What was counted, and the server before and after.

    Attributes:
        seconds: of load.
        tally: what became of the requests.
        warm_bytes: resident memory after the first quarter.
        end_bytes: and at the end.
        descriptors: open files before the load, and after it.
        processes_left: of models, at the end.
        files_left: of models, on disk.
        sessions_left: sealed sessions that may still be used.
        restarts: of processes, by the server's own count.
        keysets: different epoch keys that a client saw.
        complaints: lines of the server's log that should not be there.
    """

    seconds: float
    tally: Tally
    warm_bytes: int
    end_bytes: int
    descriptors: tuple[int, int]
    processes_left: int
    files_left: int
    sessions_left: int
    restarts: int
    keysets: int
    complaints: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The counts in words."""
        tally = self.tally
        answers, failures = sum(tally.right.values()), sum(tally.failures.values())
        yield f"{self.seconds:.0f} s: {answers} right answers ({tally.bit_equal} bit for bit), {len(tally.wrong)} wrong"
        yield f"{failures} errors, {len(tally.unknown)} without a cause in the table; {self.keysets} epoch keys"
        yield (
            ", ".join(f"{count} {name}" for name, count in sorted(tally.events.items())) + f", {self.restarts} restarts"
        )
        yield ", ".join(f"{name} {count}" for name, count in sorted(tally.right.items()))
        for cause, count in tally.by_cause().most_common():
            yield f"{count} × {cause}"
        yield f"memory {self.warm_bytes / _MIB:.0f} MiB after a quarter, {self.end_bytes / _MIB:.0f} MiB at the end"
        yield (
            f"left: {self.processes_left} processes, {self.files_left} model files, {self.sessions_left} sessions; "
            f"open files {self.descriptors[0]} before, {self.descriptors[1]} after"
        )

    def check(self, *, max_growth_bytes: int = 64 * _MIB, max_sessions: int = 64) -> None:
        """Raises `AssertionError` unless all is well."""
        assert not self.tally.wrong, self.tally.wrong[:20]
        assert not self.tally.unknown, self.tally.unknown[:20]
        assert not self.complaints, self.complaints[:20]
        assert self.end_bytes - self.warm_bytes < max_growth_bytes
        assert not self.processes_left
        assert not self.files_left
        assert self.sessions_left <= max_sessions
        before, after = self.descriptors
        assert after <= before + _SPARE_DESCRIPTORS
        assert all(self.tally.right[name] for name in ACTORS), "an actor had not one right answer"


_SPARE_DESCRIPTORS = 8  # gRPC opens some on first use and keeps them
ACTORS = (
    "sync sealed", "sync tls", "async sealed", "async tls", "async cached", "canceller", "HTTPS", "gRPC",
    "uploader sealed", "uploader tls", "chaser",
)  # fmt: skip


def run_soak(folder: Path, seconds: float) -> SoakResult:
    """Start a server, use and harm it, and look at it."""
    server = SoakedServer(folder)
    try:
        return asyncio.run(_soak(server, folder, seconds))
    finally:
        server.running.stop()


async def _soak(server: SoakedServer, folder: Path, seconds: float) -> SoakResult:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    models = soak_models(folder)
    files, descriptors = server.stored_files(), server.descriptors()
    await asyncio.to_thread(_install, server, models)
    soak = Soak(server=server, models=models, folder=folder, ends_s=time.monotonic() + seconds)
    watching = asyncio.create_task(_watch(server, soak, seconds))
    await asyncio.gather(*_actors(soak))
    warm_bytes, keysets = await watching
    restarts = server.metrics().get("blindai_worker_restarts_total", 0.0)
    await asyncio.to_thread(_remove_all, server)
    await asyncio.to_thread(server.wait_until_quiet)
    return SoakResult(
        seconds=seconds,
        tally=soak.tally,
        warm_bytes=warm_bytes,
        end_bytes=server.resident_bytes(),
        descriptors=(descriptors, server.descriptors()),
        processes_left=len(server.running.model_processes()),
        files_left=server.stored_files() - files,
        sessions_left=int(server.metrics()["blindai_sessions"]),
        restarts=int(restarts),
        keysets=keysets,
        complaints=tuple(line for line in server.running.log.splitlines() if "Traceback" in line or " ERROR " in line),
    )


def _actors(soak: Soak) -> Iterator[Awaitable[None]]:
    thread = asyncio.to_thread
    yield thread(sync_sdk, soak, "sync sealed", "alpha")
    yield thread(sync_sdk, soak, "sync tls", "beta", transport="tls")
    yield thread(raw_oip, soak, "HTTPS", "alpha")
    yield thread(raw_grpc, soak, "gRPC", "beta")
    yield thread(uploader, soak, "uploader sealed", "alpha")
    yield thread(uploader, soak, "uploader tls", "beta", transport="tls")
    yield async_sdk(soak, "async sealed", "beta", width=4)
    yield async_sdk(soak, "async cached", "alpha", width=4, level="cached")
    yield async_sdk(soak, "async tls", "alpha", width=4, transport="tls")
    yield canceller(soak, "canceller", "beta")
    yield chaser(soak, "chaser", "alpha")
    yield killer(soak)


def _install(server: SoakedServer, models: tuple[SoakModel, ...]) -> None:
    for tenant in TENANTS:
        with server.client(tenant) as client:
            for model in models:
                client.upload_model(model.path, progress=False)


def _remove_all(server: SoakedServer) -> None:
    for tenant in TENANTS:
        with server.client(tenant) as client:
            for name in {model.name for model in client.models()}:
                client.delete_model(name)


async def _watch(server: SoakedServer, soak: Soak, seconds: float) -> tuple[int, int]:
    """Memory after the warm-up, and how many epoch keys were published."""
    began_s, warm_bytes, published = time.monotonic(), 0, set()
    while soak.goes_on():
        with contextlib.suppress(OSError):
            published.add(await asyncio.to_thread(_published_key, server))
        if not warm_bytes and time.monotonic() - began_s > _WARM_UP_SHARE * seconds:
            warm_bytes = server.resident_bytes()
        await asyncio.sleep(1)
    assert warm_bytes, "nobody looked at the memory in time"
    return warm_bytes, len(published)


def _published_key(server: SoakedServer) -> bytes:
    with server.client("alpha", level="cached") as client:
        return client.attestation.keyset.hpke_public_key
