"""The cases of `evidence` about a credential: what a client sends to ask a TPM about its keys.

Leaves out: the expected values (generate.py computes them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from credential_operations import CREDENTIAL_OPERATIONS
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from vector_format import Case, compact, fixed

from blindai.wire import base64url_encode, strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPEC = "docs/spec/tee/tpm.md"


def credential_cases() -> Iterator[Case]:
    """Both kinds of endorsement key, and requests that are none."""
    modulus = b"\xc0" + fixed("ek modulus", 254) + b"\x01"  # odd, and of 2048 bits; its factors are nobody's matter
    point = ec.derive_private_key(12345, ec.SECP256R1()).public_key()
    given = {
        "ak_name": b"\x00\x0b" + fixed("ak name", 32),
        "secret": fixed("credential secret", 32),
        "random": fixed("credential random", 64),
    }
    makes: dict[str, Any] = {"topic": "evidence", "spec": _SPEC, "operation": "make_credential"}
    covers = ("tpm-activation",)
    rsa = {**given, "ek": modulus}
    ecc = {**given, "ek": point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)}
    yield Case(slug="credential-rsa", title="for an EK of RSA-2048", covers=covers, inputs=rsa, **makes)
    yield Case(slug="credential-ecc", title="for an EK on P-256", covers=covers, inputs=ecc, **makes)
    request = CREDENTIAL_OPERATIONS["make_credential"](ecc)["request"]
    members = strict_json(request, max_bytes=1024)
    reads: dict[str, Any] = {"topic": "evidence", "spec": _SPEC, "operation": "read_credential", "covers": ()}
    yield Case(slug="credential-read", title="and read by the server", inputs={"request": request}, **reads)
    reads["failure"] = "invalid_input"
    for slug, title, change in (
        ("credential-short", "a blob of 67 bytes", {"blob": base64url_encode(bytes(67))}),
        (
            "credential-seed",
            "an encrypted seed of another size",
            {"encrypted_seed": base64url_encode(bytes(100))},
        ),
        ("credential-member", "a member more", {"keyset": ""}),
        ("credential-text", "a blob that is not base64url", {"blob": "+"}),
    ):
        yield Case(slug=slug, title=title, inputs={"request": compact({**members, **change})}, **reads)
