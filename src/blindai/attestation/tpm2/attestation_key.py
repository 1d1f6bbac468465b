"""What a key must be to attest for its TPM, and where it stands there (TPM 2.0 Library, Parts 1 and 2, revision 1.59).

Leaves out: the key's form (tpm2/keys.py), and who certifies it (tpm2/certificates.py).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge
from blindai.attestation.tpm2.quote import judge_digests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.evidence import Finding
    from blindai.attestation.tpm2.keys import TpmPublic, TpmSignature
    from blindai.attestation.tpm2.quote import Quote

# Part 2, TPMA_OBJECT: a key that never leaves its TPM, and signs nothing from outside that looks like a quote.
REQUIRED_ATTRIBUTES = frozenset({"fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"})
# Part 2, TPM_RH: what a primary key is derived from.
ENDORSEMENT = bytes.fromhex("4000000b")
HIERARCHIES = {
    bytes.fromhex("40000001"): "owner",
    bytes.fromhex("40000007"): "null",
    ENDORSEMENT: "endorsement",
    bytes.fromhex("4000000c"): "platform",
}
_NAME_BYTES = (34, 50, 66)  # u16 and a digest


def judge_attestation_key(
    ak: TpmPublic, parent: bytes, quote: Quote, signature: TpmSignature, *, tee: str
) -> Iterator[Finding]:
    """Whether this key can only have signed what its TPM made; all of it is a matter of authenticity.

    The codes are `<tee>.digest_algorithm`, `<tee>.ak_attributes`, `<tee>.ak_scheme` and `<tee>.qualified_signer`.
    """
    yield judge_digests((ak.name_digest,), tee=tee)
    wrong = [f"no {name}" for name in sorted(REQUIRED_ATTRIBUTES - ak.attributes)]
    wrong += [*["decrypt"] * ("decrypt" in ak.attributes), *["a symmetric algorithm"] * ak.has_symmetric]
    yield judge(
        holds=not wrong,
        code=f"{tee}.ak_attributes",
        expected=f"{', '.join(sorted(REQUIRED_ATTRIBUTES))} and neither decrypt nor a symmetric algorithm",
        found=", ".join(wrong) or "exactly that",
        why="Any other key would sign a quote that somebody made up, or could be used outside its TPM.",
    )
    yield judge(
        holds=ak.scheme == signature.scheme,
        code=f"{tee}.ak_scheme",
        expected=ak.scheme.text if ak.scheme else "a key with a scheme of its own",
        found=signature.scheme.text,
        why="A restricted key signs by its one scheme; another one was not the TPM's.",
    )
    expected = qualified_name(ak, parent)
    yield judge(
        holds=bool(expected) and quote.qualified_signer == expected,
        code=f"{tee}.qualified_signer",
        expected=expected.hex() or "a hierarchy's handle or a key's qualified name as the AK's parent",
        found=quote.qualified_signer.hex(),
        why="The quote names its signer by a digest over the public area, so its attributes are the TPM's own words.",
    )


def qualified_name(ak: TpmPublic, parent: bytes) -> bytes:
    """Part 1, "Qualified Names": `nameAlg ‖ digest(parent ‖ name)`; nothing for a parent that is none."""
    if parent not in HIERARCHIES and len(parent) not in _NAME_BYTES:
        return b""
    return ak.name[:2] + hashlib.new(ak.name_digest, parent + ak.name).digest()
