"""Asks whether the TPM that a server shows a certificate of holds the key that quotes (docs/spec/tee/tpm.md §5).

The client makes a credential that this TPM alone opens, for this key alone, and the server answers with what only the
secret in it can make. What is proved is about two keys, and about no keyset: it holds as long as the keys are shown.
Leaves out: the credential (attestation/tpm2/credential.py), the judgement (attestation/tpm2/vouchers.py), and the
exchange itself (client/activation_flow.py, server/activation_door.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blindai.attestation.tee.tpm import TEE
from blindai.attestation.tee.tpm import parse as parse_evidence
from blindai.attestation.tpm2.certificates import key_sha256
from blindai.attestation.tpm2.credential import (
    BLOB_BYTES,
    ENCRYPTED_SEED_BYTES,
    RANDOM_BYTES,
    SECRET_BYTES,
    Credential,
    is_activated,
    make_credential,
)
from blindai.attestation.tpm2.keys import parse_public
from blindai.attestation.tpm2.policy import TpmPolicy
from blindai.attestation.tpm2.vouchers import Activation, Vouchers, needs_activation
from blindai.attestation.x509_chain import read_certificate
from blindai.errors import RejectedEvidenceError
from blindai.wire import base64url_decode, base64url_encode, compact_json, exact_bytes, require_members, strict_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.evidence import AttestationDocument, EvidenceItem
    from blindai.attestation.policy import Policy

ACTIVATION_PATH = "/.well-known/blindai/attestation/tpm"
MAX_REQUEST_BYTES = 1024
MAX_ANSWER_BYTES = 256
ANSWER_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownKeys:
    """The two keys of a TPM that evidence shows, before anybody has judged it.

    Attributes:
        ek: the endorsement key in the certificate that is shown.
        vouchers: what else seems to vouch for the attestation key.
    """

    ek: object = field(repr=False)
    vouchers: Vouchers


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A credential for two keys, and the secret in it.

    Attributes:
        asked: what an answer proves.
        request: what the server is sent.
    """

    asked: Activation
    request: bytes = field(repr=False)
    _secret: bytes = field(repr=False)

    def outcome(self, answer: bytes) -> Activation:
        """What the server's answer proves."""
        try:
            said = parse_answer(answer)
        except ValueError as error:
            return self.refused(f"an answer that is none: {error}")
        if not is_activated(said, self._secret, self.asked.ak_name):
            return self.refused("an answer from somebody who has not opened our credential")
        return self.asked

    def refused(self, why: str) -> Activation:
        """That nothing is proved, and why."""
        return replace(self.asked, refusal=why)


def keys_to_activate(document: AttestationDocument, policy: Policy) -> ShownKeys | None:
    """The keys that a document shows, if the policy lets nobody but their TPM itself vouch for them.

    None too if it shows no EK, or cannot be read: its appraisal says so.
    """
    try:
        items = [item for item in document.evidence if item.tee == TEE]
        shown = _shown_keys(items[0]) if len(items) == 1 else None
    except RejectedEvidenceError:
        return None
    accepted = (tee for tees in policy.any_of for tee in tees if isinstance(tee, TpmPolicy))
    return shown if shown and any(needs_activation(tee, shown.vouchers) for tee in accepted) else None


def _shown_keys(item: EvidenceItem) -> ShownKeys | None:
    endorsements = dict(item.endorsements)
    if "ek_certificate" not in endorsements:
        return None
    ak = parse_public(parse_evidence(item.evidence).ak_public, tee=TEE)
    ek = read_certificate(endorsements["ek_certificate"], tee=TEE, what="ek_certificate").public_key()
    return ShownKeys(
        ek=ek,
        vouchers=Vouchers(
            ak_name=ak.name, has_vendor_chain="ak_certificate" in endorsements, ek_key_sha256=key_sha256(ek)
        ),
    )


def challenge(keys: ShownKeys, random: Callable[[int], bytes]) -> Challenge | None:
    """A credential for these keys, or None if none can be made for this kind of EK."""
    secret = random(SECRET_BYTES)
    try:
        credential = make_credential(keys.ek, keys.vouchers.ak_name, secret, random=random(RANDOM_BYTES))
    except ValueError:
        return None
    return Challenge(
        asked=Activation(ek_key_sha256=keys.vouchers.ek_key_sha256, ak_name=keys.vouchers.ak_name),
        request=encode_request(credential),
        _secret=secret,
    )


def with_activation(policy: Policy, activation: Activation) -> Policy:
    """This policy, for judging evidence after the TPM was asked."""
    return replace(
        policy,
        any_of=tuple(
            tuple(tee.with_activation(activation) if isinstance(tee, TpmPolicy) else tee for tee in tees)
            for tees in policy.any_of
        ),
    )


def encode_request(credential: Credential) -> bytes:
    """What a client posts."""
    return compact_json(
        {"blob": base64url_encode(credential.blob), "encrypted_seed": base64url_encode(credential.encrypted_seed)}
    )


def parse_request(data: bytes) -> Credential:
    """Exactly what `encode_request` makes for an EK of RSA-2048 or P-256.

    Raises:
        ValueError: anything else.
    """
    members = require_members(strict_json(data, max_bytes=MAX_REQUEST_BYTES), frozenset({"blob", "encrypted_seed"}))
    encrypted_seed = base64url_decode(members["encrypted_seed"])
    if len(encrypted_seed) not in ENCRYPTED_SEED_BYTES:
        raise ValueError(f"expected an encrypted seed of 256 or 68 bytes, found {len(encrypted_seed)}")
    return Credential(blob=exact_bytes(members["blob"], BLOB_BYTES), encrypted_seed=encrypted_seed)


def encode_answer(activation: bytes) -> bytes:
    """What the server answers."""
    return compact_json({"activation": base64url_encode(activation)})


def parse_answer(data: bytes) -> bytes:
    """The 32 bytes of an answer.

    Raises:
        ValueError: it is none.
    """
    members = require_members(strict_json(data, max_bytes=MAX_ANSWER_BYTES), frozenset({"activation"}))
    return exact_bytes(members["activation"], ANSWER_BYTES)
