"""An operator's admission: the signed word that this very instance is theirs (docs/spec/sealed.md §1).

Without a pinned operator anyone may boot the same image under the same service name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from blindai.errors import WrongOperatorError
from blindai.wire import (
    base64url_encode,
    exact_bytes,
    label,
    length_prefixed,
    require_members,
    whole_number,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """An operator's signed word that this very instance is theirs."""

    public_key: bytes
    not_after: int
    signature: bytes


def admission_members(admission: Admission | None) -> dict[str, Any] | None:
    """The keyset's `operator` member."""
    if admission is None:
        return None
    return {
        "public_key": base64url_encode(admission.public_key),
        "not_after": admission.not_after,
        "signature": base64url_encode(admission.signature),
    }


def parse_admission(value: object) -> Admission | None:
    """Read the keyset's `operator` member.

    Raises:
        ValueError: neither null nor exactly an admission.
    """
    if value is None:
        return None
    members = require_members(value, frozenset({"public_key", "not_after", "signature"}))
    return Admission(
        public_key=exact_bytes(members["public_key"], 32),
        not_after=whole_number(members["not_after"]),
        signature=exact_bytes(members["signature"], 64),
    )


def _admission_message(*, service: str, instance: bytes, attestation_key_name: bytes, not_after: int) -> bytes:
    named = length_prefixed(service.encode()) + length_prefixed(instance) + length_prefixed(attestation_key_name)
    return label("admission") + named + not_after.to_bytes(8, "big")


def admit(
    key: Ed25519PrivateKey, *, service: str, instance: bytes, not_after: int, attestation_key_name: bytes = b""
) -> Admission:
    """The operator's side: sign for an instance that was just appraised."""
    message = _admission_message(
        service=service, instance=instance, attestation_key_name=attestation_key_name, not_after=not_after
    )
    return Admission(public_key=key.public_key().public_bytes_raw(), not_after=not_after, signature=key.sign(message))


def verify_admission(
    admission: Admission | None, *, service: str, instance: bytes, now: float, attestation_key_name: bytes = b""
) -> bytes:
    """The public key of the operator who admitted this instance.

    Raises:
        WrongOperatorError: nobody did, the signature is about something else, or it ended.
    """
    if admission is None:
        raise WrongOperatorError(
            "no operator has admitted this instance",
            hint="the policy pins operators: ask yours to admit the instance, or skip the check with a reason",
        )
    message = _admission_message(
        service=service,
        instance=instance,
        attestation_key_name=attestation_key_name,
        not_after=admission.not_after,
    )
    try:
        Ed25519PublicKey.from_public_bytes(admission.public_key).verify(admission.signature, message)
    except (InvalidSignature, ValueError):
        raise WrongOperatorError("the operator's admission is not about this instance") from None
    if now >= admission.not_after:
        raise WrongOperatorError("the operator's admission has ended")
    return admission.public_key
