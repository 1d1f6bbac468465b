"""Start and stop: from settings to listening servers, and to their end.

Draws the instance, makes the keys and the TLS certificate in memory, opens the store, and listens.
Prints `ready https://HOST:PORT` on stdout once requests are answered, then a line for each other listener; everything
else goes to stderr. On SIGTERM or SIGINT it takes no more connections, lets running requests end, and exits with 0.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import uvloop

import blindai
from blindai.attester.sealing import InsecureKeyFile
from blindai.attester.simulation import SimulationAttester, measure_software
from blindai.attester.tpm import TpmAttester
from blindai.attester.tpm2.device import open_tpm
from blindai.attester.tpm2.sealer import TpmSealer
from blindai.channel.keyring import Clock, Identity, KeyRing
from blindai.channel.keyset import INSTANCE_BYTES, Software
from blindai.channel.sessions import SessionTable
from blindai.server.access_file import read_access_file
from blindai.server.activation_door import ActivationDoor
from blindai.server.app import App
from blindai.server.attestation_door import AttestationDoor
from blindai.server.authentication import Access
from blindai.server.budget import BodyBudget
from blindai.server.dispatch import Service
from blindai.server.execution_providers import engines_of
from blindai.server.grpc_door import GrpcDoor
from blindai.server.hand_over import read_plan
from blindai.server.http_limits import HttpLimits
from blindai.server.http_server import HttpServer
from blindai.server.infer import MAX_JSON_TENSOR_BYTES
from blindai.server.kept_store import KeptStore
from blindai.server.log import LOG, configure_logging
from blindai.server.metrics import Metrics
from blindai.server.metrics_listener import METRICS_PATH, metrics_server
from blindai.server.model_store import ModelStore, StoreLimits
from blindai.server.process_guard import forbid_dumps
from blindai.server.provider_check import require_present
from blindai.server.quotas import RunSlots
from blindai.server.run_folder import run_folder
from blindai.server.runner_start import PoolOptions
from blindai.server.sandbox import require_mechanisms
from blindai.server.sealed_door import SealedDoor
from blindai.server.settings import in_effect
from blindai.server.start_table import start_table
from blindai.server.telemetry import sent_to
from blindai.server.tls_door import TlsDoor
from blindai.server.tls_identity import make_tls_identity
from blindai.server.triton_repository import StartModels, load_repository
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from blindai.attestation.tpm2.credential import Credential
    from blindai.attester import Attester
    from blindai.server.settings import Settings
    from blindai.server.stapling import Stapler
    from blindai.server.tls_identity import TlsIdentity

_METRICS_DRAIN_S = 1.0
_BOUND_BYTES = 64
_TPM_SAYS = "; the TPM says only what has booted"
_COLLECTED_AFTER = (5_000, 10, 10)  # objects more than before, then rounds, as `gc.set_threshold` takes them


# `boot` counts through sleep, and cannot be set by the host from outside the guest.
SYSTEM_CLOCK = Clock(wall=time.time, boot=functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME))


def create_app(
    settings: Settings,
    *,
    attester: Attester,
    directory: Path,
    clock: Clock = SYSTEM_CLOCK,
    tls: TlsIdentity | None = None,
    kept: KeptStore | None = None,
    activate: Callable[[Credential], bytes] | None = None,
    stapler: Stapler | None = None,
) -> App:
    """Wire the whole server: the one place where its parts meet.

    Args:
        settings: the configuration, checked.
        attester: the quote device.
        directory: for everything that the server writes.
        clock: for keys and sessions.
        tls: the key that the epoch keysets name; without one, nobody can use the pinned-TLS door.
        kept: where models outlive the server; without it they end with it.
        activate: opens a credential for the quote device's own keys; without it nobody can ask for that.
        stapler: asks vendors for what goes with the evidence; without it this server asks nobody. `serve` has none: no
            attester of this release makes evidence that a vendor publishes something about.
    """
    engines = engines_of(settings.execution_providers)
    settings, access = _open_access(settings, clock)
    store = ModelStore(directory, kept=kept, limits=_store_limits(settings), quota_of=access.quota)
    start = _start_models(settings, store)
    identity = Identity(
        service=settings.service,
        instance=os.urandom(INSTANCE_BYTES),
        runtime=settings.runtime_policy(start.digests, start.description),
        software=Software(name="blindai", version=blindai.__version__, engines=engines),
        simulated=attester.tee == "simulation",
        tls=() if tls is None else (tls.spki_sha256,),
    )
    keys = KeyRing(identity, clock=clock, random=os.urandom, epoch_s=settings.epoch_s)
    metrics = Metrics()
    service = Service(
        settings=settings,
        store=store,
        pool=_worker_pool(store, settings, directory, metrics),
        bodies=BodyBudget(max_bytes=min(settings.max_buffered_bytes, _memory_bytes() // 4)),
        access=access,
        runs=RunSlots(access.quota),
        metrics=metrics,
    )
    device = asyncio.Lock()
    app = App(
        attestation=AttestationDoor(keys=keys, attester=attester, device=device, stapler=stapler),
        activation=ActivationDoor(activate=activate, device=device),
        sealed=SealedDoor(service=service, keys=keys, sessions=SessionTable(), clock=clock, random=os.urandom),
        tls=TlsDoor(service=service, authenticate=access.authenticate),
        readiness=service.readiness,
        start=start,
    )
    _tell_gauges(app, metrics)
    return app


def _attester(settings: Settings, tpm: Callable[[bytes], bytes] | None) -> Attester:
    if settings.simulation or tpm is None:
        return SimulationAttester(random=os.urandom, measurement=measure_software())
    issuers = settings.tpm_ek_issuers
    attester = TpmAttester(tpm, ek_issuers=None if issuers is None else Path(issuers))
    attester.attest(bytes(_BOUND_BYTES))  # what hinders it is told now, and not to each client
    return attester


def _kept_store(settings: Settings, tpm: Callable[[bytes], bytes] | None) -> KeptStore | None:
    if settings.model_store is None:
        return None
    folder = Path(settings.model_store)
    if tpm is None:
        kept = KeptStore(folder, InsecureKeyFile(folder))
    else:
        sealer = TpmSealer(folder, tpm)
        plan = read_plan(sealer, settings.take_over_from, settings.hand_over_to, settings.upgrade_keys)
        kept = KeptStore(folder, sealer, handed_over=plan)
    if settings.rotate_store_key:
        kept.rotate()
    kept.hand_over()  # as it is now, for a machine that is only switched off; again at its end, as it is then
    return kept


def _start_models(settings: Settings, store: ModelStore) -> StartModels:
    if settings.model_repository is None:
        return StartModels()
    return load_repository(
        settings.model_repository,
        store,
        max_model_bytes=settings.max_model_bytes,
        max_request_bytes=settings.max_body_bytes,
    )


def _tell_gauges(app: App, metrics: Metrics) -> None:
    metrics.read_from("blindai_sessions", lambda: len(app.sealed.sessions))
    metrics.read_from("blindai_workers", lambda: len(app.sealed.service.pool.process_ids))
    metrics.read_from("blindai_queue_length", lambda: app.sealed.service.pool.waiting)
    metrics.read_from("blindai_keyset_age_seconds", app.sealed.keys.epoch_age_s)
    metrics.read_from("blindai_ready", lambda: float(app.readiness.is_ready))


def _open_access(settings: Settings, clock: Clock) -> tuple[Settings, Access]:
    """Who may come in; and the settings with the access file's hash for its path, so that evidence vouches for it."""
    if settings.access is None:
        return settings, Access(None, service=settings.service, wall=clock.wall)
    file = read_access_file(Path(settings.access))
    pinned = dataclasses.replace(settings, access=file.pin)
    return pinned, Access(file, service=settings.service, wall=clock.wall)


def _store_limits(settings: Settings) -> StoreLimits:
    return StoreLimits(
        max_models=settings.max_models, max_bytes=settings.max_store_bytes, max_uploads=settings.max_uploads
    )


def _worker_pool(store: ModelStore, settings: Settings, directory: Path, metrics: Metrics) -> WorkerPool:
    options = PoolOptions(
        run_timeout_s=settings.run_timeout_s,
        load_timeout_s=settings.load_timeout_s,
        idle_worker_s=settings.idle_worker_s,
        max_workers=settings.max_workers,
        max_request_bytes=max(settings.max_body_bytes, MAX_JSON_TENSOR_BYTES),
        max_answer_bytes=settings.max_body_bytes,
        max_worker_bytes=settings.max_worker_bytes,
        isolation=settings.isolation,
        batching=settings.batching,
        providers=settings.execution_providers,
    )
    return WorkerPool(store, options, directory=directory, metrics=metrics)


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        InvalidSettingsError: nothing could be served so, or a model's process could not be closed on this machine.
        OSError: a port is taken, or the address is not this machine's.
    """
    settings.check()
    settings = in_effect(settings, os.environ)
    if settings.isolation != "thread":
        require_mechanisms()
    require_present(settings.execution_providers)
    signal.signal(signal.SIGTERM, _unwind)  # until the loop takes it over
    configure_logging(settings.log_level, simulated=settings.simulation)
    LOG.warning("nothing hides this server's memory from whoever runs it%s", "" if settings.simulation else _TPM_SAYS)
    for line in start_table(settings):
        LOG.info("%s", line)
    forbid_dumps()
    tpm = None if settings.tpm is None else open_tpm(settings.tpm)
    attester = _attester(settings, tpm)
    tls = make_tls_identity(settings.host)
    kept = _kept_store(settings, tpm)
    with run_folder(Path(settings.data_dir or tempfile.gettempdir())) as directory:
        activate = attester.activate if isinstance(attester, TpmAttester) and attester.can_activate else None
        app = create_app(settings, attester=attester, directory=directory, tls=tls, kept=kept, activate=activate)
        calm_collector()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(app, settings, tls))


def calm_collector() -> None:
    """A request's objects end by themselves: looking for cycles among them after each 700 took a tenth of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)


def _unwind(_number: int, _frame: FrameType | None) -> NoReturn:
    """Leave as asked, and through every `with`: the signal's own way would leave the server's folder behind."""
    raise SystemExit(0)


def _grpc_door(app: App, settings: Settings, tls: TlsIdentity) -> GrpcDoor | None:
    """Closed where only sealed messages may come in."""
    if settings.require_sealed:
        return None
    service = app.sealed.service
    return GrpcDoor(
        service=service,
        tls=tls,
        authenticate=lambda authorization: service.access.authenticate(authorization, ""),
        is_ready=lambda: app.readiness.is_ready,
    )


async def _serve(app: App, settings: Settings, tls: TlsIdentity) -> None:
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    limits = HttpLimits(max_connections=settings.max_connections, idle_timeout_s=settings.idle_timeout_s)
    doors = HttpServer(app.handle, limits)
    _tell_traffic(doors, app.sealed.service.metrics)
    side = metrics_server(app.sealed.service.metrics, app.readiness)
    listener, side_listener = (
        _listen(settings.host, settings.port),
        _listen(settings.host, settings.metrics_listen_port),
    )
    grpc_door = _grpc_door(app, settings, tls)
    async with app.running(), sent_to(settings.telemetry_endpoint, app.sealed.service.metrics, settings.service):
        await side.listen(side_listener)  # first: whoever asks is told that models are loading
        await _prepare(app, asked_to_stop)
        if not asked_to_stop.is_set():
            await doors.listen(listener, tls.context())
            grpc_address = await grpc_door.start() if grpc_door else None
            _announce("ready", f"https://{_shown(listener)}")
            _announce("metrics", f"http://{_shown(side_listener)}{METRICS_PATH}")
            if grpc_address:
                _announce("grpc", grpc_address)
            await asked_to_stop.wait()
            app.readiness.is_draining = True
            stopping = grpc_door.stop(settings.drain_timeout_s) if grpc_door else asyncio.sleep(0)
            await asyncio.gather(doors.drain(settings.drain_timeout_s), stopping)
    await side.drain(_METRICS_DRAIN_S)


async def _prepare(app: App, asked_to_stop: asyncio.Event) -> None:
    """Load the models of the repository, unless the server is to end before it has begun."""
    loading, stopping = asyncio.create_task(app.prepare()), asyncio.create_task(asked_to_stop.wait())
    await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if asked_to_stop.is_set():
        loading.cancel()
        await asyncio.wait((loading,))
    else:
        await loading


def _tell_traffic(server: HttpServer, metrics: Metrics) -> None:
    metrics.read_from("blindai_connections", lambda: len(server.connections))
    metrics.read_from("blindai_received_bytes", lambda: server.received_bytes)
    metrics.read_from("blindai_sent_bytes", lambda: server.sent_bytes)


def _announce(word: str, address: str) -> None:
    """On stdout, so that scripts need not poll."""
    sys.stdout.write(f"{word} {address}\n")
    sys.stdout.flush()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
