"""An attacker who can make evidence: in simulation anybody can, so what refuses them is all that evidence must say.

Leaves out: what a real TEE's signature alone would refuse.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fakes.network import Answered, Sent

from blindai.attestation.binding import BatchTree, Mode, report_data
from blindai.attestation.evidence import AttestationDocument, BatchProof, encode_document
from blindai.attester.simulation import SimulationAttester
from blindai.channel.keyring import HeldKey, Identity, KeyRing
from blindai.channel.keyset import Keyset, Software, keyset_id
from blindai.client.attest_flow import ATTESTATION_PATH
from blindai.server.settings import Settings
from blindai.wire import base64url_decode, strict_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.world import Time, Victim, World

    from blindai.attestation.evidence import EvidenceItem
    from blindai.channel.attested import AttestedKeyset

INSTANCE = bytes(range(32))


@dataclass(slots=True)
class Forger:
    """Keys and an attester in the attacker's hands."""

    time: Time
    attester: SimulationAttester = field(default_factory=lambda: SimulationAttester(os.urandom, bytes(32)))

    def held(self, challenge: bytes | None, **identity: Any) -> HeldKey:
        """Keys for that challenge; None makes epoch keys."""
        members: dict[str, Any] = {
            "service": "blindai-srv",
            "instance": INSTANCE,
            "runtime": Settings(simulation=True).runtime_policy(),
            "software": Software(name="blindai", version="1", engines=()),
            "simulated": True,
        }
        ring = KeyRing(Identity(**{**members, **identity}), clock=self.time.server(), random=os.urandom)
        return ring.epoch() if challenge is None else ring.fresh(challenge)

    def keyset(self, nonce: bytes, **changes: Any) -> Keyset:
        """A fresh keyset made for that nonce, with changes."""
        return dataclasses.replace(self.held(BatchTree([nonce]).root).keyset, **changes)

    def quote(self, encoded: bytes, *, challenge: bytes) -> tuple[EvidenceItem, ...]:
        """Evidence about any keyset and any challenge."""
        mode = Mode.FRESH if challenge else Mode.CACHED
        return (self.attester.attest(report_data(mode=mode, keyset_id=keyset_id(encoded), challenge=challenge)),)

    def document(self, keyset: Keyset, *, quoted: bytes | None = None) -> AttestationDocument:
        """A fresh document for a nonce that was quoted alone; `quoted` replaces the challenge in the evidence."""
        encoded = keyset.encode()
        return AttestationDocument(
            keyset=encoded,
            mode=Mode.FRESH,
            evidence=self.quote(encoded, challenge=keyset.challenge if quoted is None else quoted),
            batch=alone(),
        )


def alone() -> BatchProof:
    """The path of a nonce that was quoted alone."""
    return BatchProof(index=0, count=1, path=())


def root_of(nonce: bytes) -> bytes:
    return BatchTree([nonce]).root


def nonce_of(sent: Sent) -> bytes:
    """The nonce of an attestation request; empty if it asks for a cached document."""
    return base64url_decode(strict_json(sent.body, max_bytes=1024)["nonce"]) if sent.body else b""


def impostor(world: World, forge: Callable[[bytes], AttestationDocument], **settings: Any) -> Victim:
    """A client whose attestation requests the attacker answers."""

    def answer(sent: Sent) -> Sent | Answered:
        if sent.path != ATTESTATION_PATH:
            return sent
        return Answered(status=200, body=encode_document(forge(nonce_of(sent))))

    return world.victim(world.network(on_request=answer), **settings)


def attested_document(world: World, *, mode: Mode = Mode.FRESH) -> AttestedKeyset:
    """What the honest server answered to some other client."""
    return world.victim(mode=mode).attest()
