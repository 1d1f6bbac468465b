"""Start and stop: from settings to a listening server.

Draws the instance, makes the keys and the TLS certificate in memory, opens the store, and runs uvicorn.
Prints `ready https://HOST:PORT` on stdout once requests are answered; everything else goes to stderr.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import blindai
from blindai.attester.simulation import SimulationAttester, measure_software
from blindai.channel.keyring import Clock, Identity, KeyRing
from blindai.channel.keyset import INSTANCE_BYTES, Software
from blindai.channel.sessions import SessionTable
from blindai.server.app import App
from blindai.server.attestation_door import AttestationDoor
from blindai.server.budget import BodyBudget
from blindai.server.dispatch import Service
from blindai.server.http_protocol import HttpLimits, bounded_protocol
from blindai.server.infer import ENGINE
from blindai.server.log import LOG, configure_logging
from blindai.server.model_store import ModelStore, StoreLimits
from blindai.server.process_guard import forbid_dumps
from blindai.server.run_folder import run_folder
from blindai.server.sealed_door import SealedDoor
from blindai.server.tls_identity import make_tls_identity
from blindai.server.triton_repository import StartModels, load_repository
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from types import FrameType

    from blindai.attester import Attester
    from blindai.server.settings import Settings
    from blindai.server.tls_identity import TlsIdentity

KEEP_ALIVE_S = 75
GRACEFUL_S = 10


def _boot_s() -> float:
    """Counts through sleep, and cannot be set by the host from outside the guest."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


SYSTEM_CLOCK = Clock(wall=time.time, boot=_boot_s)


def create_app(settings: Settings, *, attester: Attester, directory: Path, clock: Clock = SYSTEM_CLOCK) -> App:
    """Wire the whole server: the one place where its parts meet."""
    store = ModelStore(directory, key=secrets.token_bytes(32), limits=_store_limits(settings))
    start = _start_models(settings, store)
    engine, _, version = ENGINE.partition(" ")
    identity = Identity(
        service=settings.service,
        instance=os.urandom(INSTANCE_BYTES),
        runtime=settings.runtime_policy(start.digests, start.description),
        software=Software(name="blindai", version=blindai.__version__, engines=((engine, version),)),
        simulated=attester.tee == "simulation",
    )
    keys = KeyRing(identity, clock=clock, random=os.urandom, epoch_s=settings.epoch_s)
    service = Service(
        settings=settings,
        store=store,
        pool=_worker_pool(store, settings, directory),
        bodies=BodyBudget(max_bytes=min(settings.max_buffered_bytes, _memory_bytes() // 4)),
    )
    return App(
        attestation=AttestationDoor(keys=keys, attester=attester),
        sealed=SealedDoor(service=service, keys=keys, sessions=SessionTable(), clock=clock, random=os.urandom),
        start=start,
    )


def _start_models(settings: Settings, store: ModelStore) -> StartModels:
    if settings.model_repository is None:
        return StartModels()
    return load_repository(
        settings.model_repository,
        store,
        max_model_bytes=settings.max_model_bytes,
        max_request_bytes=settings.max_body_bytes,
    )


def _store_limits(settings: Settings) -> StoreLimits:
    return StoreLimits(
        max_models=settings.max_models, max_bytes=settings.max_store_bytes, max_uploads=settings.max_uploads
    )


def _worker_pool(store: ModelStore, settings: Settings, directory: Path) -> WorkerPool:
    return WorkerPool(
        store,
        run_timeout_s=settings.run_timeout_s,
        max_answer_bytes=settings.max_body_bytes,
        directory=directory,
    )


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    settings.check()
    signal.signal(signal.SIGTERM, _unwind)  # uvicorn raises it again once it has stopped
    configure_logging(settings.log_level, simulated=settings.simulation)
    LOG.warning("no hardware protects this server; anybody who runs it can read everything")
    forbid_dumps()
    attester = SimulationAttester(random=os.urandom, measurement=measure_software())
    with run_folder(Path(settings.data_dir or tempfile.gettempdir())) as directory:
        app = create_app(settings, attester=attester, directory=directory)
        listener = _listen(settings)
        config = _http_config(app, settings, make_tls_identity(settings.host))
        _AnnouncingServer(config, f"https://{_shown(listener)}", app).run(sockets=[listener])


def _unwind(_number: int, _frame: FrameType | None) -> NoReturn:
    """Leave as asked, and through every `with`: the signal's own way would leave the server's folder behind."""
    raise SystemExit(0)


def _http_config(app: App, settings: Settings, tls: TlsIdentity) -> uvicorn.Config:
    limits = HttpLimits(max_connections=settings.max_connections, idle_timeout_s=settings.idle_timeout_s)
    return uvicorn.Config(
        app,
        http=bounded_protocol(limits),
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections + 1,  # uvicorn refuses what reaches it
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
        ssl_context_factory=lambda _config, _default: tls.context(),
    )


class _AnnouncingServer(uvicorn.Server):
    """Says on stdout when requests are answered, so that scripts need not poll."""

    def __init__(self, config: uvicorn.Config, url: str, app: App) -> None:
        super().__init__(config)
        self._url = url
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.prepare()
        await super().startup(sockets)
        sys.stdout.write(f"ready {self._url}\n")
        sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cut idle connections: a client that only keeps one open would never answer the end of its TLS."""
        for connection in list(self.server_state.connections):
            idle = isinstance(connection, HttpToolsProtocol) and (
                connection.cycle is None or connection.cycle.response_complete
            )
            if idle:
                connection.transport.abort()
        await super().shutdown(sockets)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=2048)


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
