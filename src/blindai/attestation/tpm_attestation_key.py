"""What a key must be to attest for its TPM, and where it stands there (TPM 2.0 Library, Parts 1 and 2, revision 1.59).

Leaves out: the key's form (tpm_keys.py), and who certifies it (tpm_certificates.py).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge
from blindai.attestation.tpm_quote import judge_digests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.evidence import Finding
    from blindai.attestation.tpm_keys import TpmPublic, TpmSignature
    from blindai.attestation.tpm_quote import Quote

# Part 2, 8.3: a key that signs nothing from outside the TPM that looks like a quote, and that never leaves the TPM.
REQUIRED_ATTRIBUTES = frozenset({"fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"})
FORBIDDEN_ATTRIBUTES = frozenset({"decrypt"})
# Part 2, table 28, TPM_RH: a primary key's qualified name is a digest over its hierarchy's handle and its name.
HIERARCHIES = {0x40000001: "owner", 0x40000007: "null", 0x4000000B: "endorsement", 0x4000000C: "platform"}


def judge_attestation_key(ak: TpmPublic, quote: Quote, signature: TpmSignature, *, tee: str) -> Iterator[Finding]:
    """Whether this key can only have signed what its TPM made; all of it is a matter of authenticity.

    The codes are `<tee>.digest_algorithm`, `<tee>.ak_attributes`, `<tee>.ak_scheme` and `<tee>.qualified_signer`.
    """
    yield judge_digests((ak.name_digest,), tee=tee)
    missing = sorted(REQUIRED_ATTRIBUTES - ak.attributes)
    extra = sorted(ak.attributes & FORBIDDEN_ATTRIBUTES) + ["a symmetric algorithm"] * ak.has_symmetric
    yield judge(
        holds=not missing and not extra,
        code=f"{tee}.ak_attributes",
        expected=f"{', '.join(sorted(REQUIRED_ATTRIBUTES))} and neither decrypt nor a symmetric algorithm",
        found=", ".join(f"no {name}" for name in missing) + ", ".join(extra) or "exactly that",
        why="Any other key would sign a quote that somebody made up, or could be used outside its TPM.",
    )
    yield judge(
        holds=ak.scheme == signature.scheme,
        code=f"{tee}.ak_scheme",
        expected=ak.scheme.text if ak.scheme else "a key with a scheme of its own",
        found=signature.scheme.text,
        why="A restricted key signs by its one scheme; another one was not the TPM's.",
    )
    yield judge(
        holds=quote.qualified_signer[:2] == ak.name[:2] and len(quote.qualified_signer) == len(ak.name),
        code=f"{tee}.qualified_signer",
        expected=f"a qualified name of {len(ak.name)} bytes by the AK's own digest",
        found=quote.qualified_signer.hex(),
        why="The quote names its signer, and a TPM names a key by that key's digest.",
    )


def hierarchy_of(ak: TpmPublic, quote: Quote) -> str:
    """The hierarchy in which the signer is a primary key, by its qualified name (Part 1, 26.6).

    A key below another key is `unknown`, since that one's name is not shown.
    """
    for handle, name in HIERARCHIES.items():
        digest = hashlib.new(ak.name_digest, handle.to_bytes(4, "big") + ak.name).digest()
        if quote.qualified_signer == ak.name[:2] + digest:
            return name
    return "unknown"
