"""A BlindAI server on a machine of the fake AMD's, over HTTP on loopback, judged by the wall clock.

The server and its clients are the real ones; the quote device, AMD's root and AMD's services are fakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import socket
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.amd import CHIP, TCB, FakeMachine, pinned, revocation_list
from fakes.vendor_services import Reply

from blindai.attestation.tee import TEES, sev_snp
from blindai.policies import read_policy
from blindai.server.http_server import HttpServer
from blindai.server.serve import create_app
from blindai.server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from fakes.vendor_services import VendorServices

    from blindai.attestation.evidence import EvidenceItem
    from blindai.attestation.policy import Policy
    from blindai.server.app import App

DAY = timedelta(days=1)
PRODUCT = "Genoa"
_LEVELS = TCB[PRODUCT]
VCEK_PATH = (
    f"/vcek/v1/{PRODUCT}/{CHIP[PRODUCT].hex()}?blSPL={_LEVELS['bootloader']:02d}&teeSPL={_LEVELS['tee']:02d}"
    f"&snpSPL={_LEVELS['snp']:02d}&ucodeSPL={_LEVELS['microcode']:02d}"
)
CHAIN_PATH, CRL_PATH = f"/vcek/v1/{PRODUCT}/cert_chain", f"/vcek/v1/{PRODUCT}/crl"


@functools.cache
def machine(**changes: Any) -> FakeMachine:
    """A Genoa whose certificates are valid today."""
    today = datetime.now(UTC).replace(microsecond=0)
    lifetimes = dict.fromkeys(("vek", "intermediate", "root"), (today - 365 * DAY, today + 365 * DAY))
    return FakeMachine(product=PRODUCT, lifetimes=lifetimes, crl={"updates": (today - DAY, today + DAY)}, **changes)


@functools.cache
def endorsements() -> dict[str, bytes]:
    """What AMD publishes about it today; made once, as a certificate is."""
    return dict(machine().item().endorsements)


def revoking(signer: str = "") -> bytes:
    """A list of today that names the intermediate's certificate; by that signer instead of the root."""
    today = datetime.now(UTC).replace(microsecond=0)
    serial = x509.load_der_x509_certificate(endorsements()["intermediate"]).serial_number
    return revocation_list(PRODUCT, serials=(serial,), updates=(today - DAY, today + DAY), signer=signer)


@dataclass(slots=True)
class SnpDevice:
    """The quote device of that machine; what it staples by itself is what a test wants."""

    stapled: dict[str, bytes] = field(default_factory=dict)
    tee: str = sev_snp.TEE

    def attest(self, bound: bytes) -> EvidenceItem:
        item = dataclasses.replace(machine(), fields={"report_data": bound}).item()
        return dataclasses.replace(item, endorsements=tuple(self.stapled.items()))


def publish(far: VendorServices, *, crl: bytes | None = None) -> None:
    """Put the machine's documents where AMD's KDS has them."""
    named = endorsements()
    chain = b"".join(
        x509.load_der_x509_certificate(named[role]).public_bytes(Encoding.PEM) for role in ("intermediate", "root")
    )
    far.replies[VCEK_PATH] = Reply(body=named["vek"])
    far.replies[CHAIN_PATH] = Reply(body=chain)
    far.replies[CRL_PATH] = Reply(body=crl or named["crl"])


def trust_fake_amd(patch: pytest.MonkeyPatch) -> None:
    """Pin the fake root: the one thing that a client could not be told."""
    item = dataclasses.replace(machine().item(), endorsements=tuple(endorsements().items()))
    verify = functools.partial(sev_snp.verify, roots=pinned(item))
    patch.setitem(TEES, sev_snp.TEE, dataclasses.replace(TEES[sev_snp.TEE], verify=verify))


POLICY = f"""version = 1
preset = "strict"
operator.skip = "nobody admitted this test's server"
runtime.skip = "the machine is judged"
release.skip = "the machine is judged"
[tee.sev_snp]
measurement = ["{"6d" * 48}"]
host_data = ["{"00" * 32}"]
"""


def accepting(level: str = "fresh", *, text: str = POLICY) -> Policy:
    """A policy that accepts that machine's software."""
    levelled = text.replace("[tee", f'level.minimum = "{level}"\n[tee', 1)
    return read_policy(levelled, source="policy.toml", folder=Path())


@contextlib.contextmanager
def site(device: SnpDevice, directory: Path, **parts: Any) -> Iterator[tuple[str, App]]:
    """The server, in a thread with a loop of its own: its address, and its parts."""
    app = create_app(Settings(simulation=True), attester=device, directory=directory, **parts)
    listener = socket.create_server(("127.0.0.1", 0))
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        server = HttpServer(app.handle)
        async with app.running():
            await server.listen(listener)
            ready.set()
            await stop.wait()
            await server.drain(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", app
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
