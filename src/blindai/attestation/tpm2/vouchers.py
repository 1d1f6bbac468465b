"""Who vouches for an attestation key (AK): a vendor's certificate, an activation, or the policy that names it.

docs/spec/tee/tpm.md §5. An activation is what the verifier itself has just proved: the TPM of this endorsement key (EK)
holds this AK. It is worth what the EK's certificate is, so the policy says in whose roots that may end.
Leaves out: the exchange that proves it (channel/activation.py), and whether the chains hold (tpm2/certificates.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.expectations import one_of
from blindai.attestation.policy_file import Skip
from blindai.attestation.x509_chain import ROOT_WHY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.evidence import Finding
    from blindai.attestation.tpm2.policy import TpmPolicy

_TEE = "tpm"

# What certifies an attestation key: the values of `ak_certified`.
VENDOR_CERTIFICATE, ACTIVATION, AK_NAME = WAYS = ("vendor_certificate", "activation", "ak_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """What came of the verifier's own credential challenge.

    Attributes:
        ek_key_sha256: of the SubjectPublicKeyInfo of the EK for which the credential was made.
        ak_name: the TPM name for which it was made.
        refusal: why it proved nothing; empty if the TPM of this EK was found to hold the AK of this name.
    """

    ek_key_sha256: bytes
    ak_name: bytes
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouchers:
    """Who vouches for an attestation key, as the evidence shows it.

    Attributes:
        ak_name: the key's TPM name.
        has_vendor_chain: whether a chain of its own leads from it to a pinned root.
        ek_key_sha256: of the endorsement key whose chain is shown beside it, or empty.
        ek_root: the pinned name of the root of that chain, or empty.
        ek_root_sha256: the root's fingerprint, or empty.
    """

    ak_name: bytes
    has_vendor_chain: bool
    ek_key_sha256: bytes = b""
    ek_root: str = ""
    ek_root_sha256: bytes = b""


def needs_activation(policy: TpmPolicy, vouchers: Vouchers) -> bool:
    """Whether the policy takes an activation, and nothing else that it takes vouches for the key."""
    accepted = policy.ak_certified
    if isinstance(accepted, Skip) or ACTIVATION not in accepted:
        return False
    return not any(way in accepted for way in _ways(policy, vouchers) if way != ACTIVATION)


def judge_vouchers(policy: TpmPolicy, vouchers: Vouchers) -> Iterator[Finding]:
    """Whose the EK is, what our challenge showed, and whether somebody whom the policy accepts vouches for the AK."""
    if vouchers.ek_key_sha256:
        yield _judge_ek_root(policy, vouchers)
    if needs_activation(policy, vouchers):
        yield _judge_activation(policy, vouchers)
    yield _judge_certified(policy, vouchers)


def _ways(policy: TpmPolicy, vouchers: Vouchers) -> Iterator[str]:
    if vouchers.has_vendor_chain:
        yield VENDOR_CERTIFICATE
    if _is_activated(policy, vouchers):
        yield ACTIVATION
    if not isinstance(policy.ak_names, Skip) and vouchers.ak_name in policy.ak_names:
        yield AK_NAME


def _is_activated(policy: TpmPolicy, vouchers: Vouchers) -> bool:
    proven = Activation(ek_key_sha256=vouchers.ek_key_sha256, ak_name=vouchers.ak_name)
    return _is_ek_root_named(policy, vouchers) and proven in policy.activations


def _is_ek_root_named(policy: TpmPolicy, vouchers: Vouchers) -> bool:
    """A root that nobody named certifies nothing; `skip` names none."""
    named = () if isinstance(policy.ek_roots, Skip) else policy.ek_roots
    return bool(vouchers.ek_root) or vouchers.ek_root_sha256 in named


def _judge_ek_root(policy: TpmPolicy, vouchers: Vouchers) -> Finding:
    code, found = f"{_TEE}.ek_chain_root", vouchers.ek_root or vouchers.ek_root_sha256.hex()
    if isinstance(policy.ek_roots, Skip):
        return leave_out(code=code, reason=policy.ek_roots.reason, found=found, why=ROOT_WHY)
    return judge(
        holds=_is_ek_root_named(policy, vouchers),
        code=code,
        expected=" or ".join(("a pinned root", *(root.hex() for root in policy.ek_roots))),
        found=found,
        why=ROOT_WHY,
        hint="find out whose root this is; name it in `ek_roots` only if its owner answers for your machine's TPM",
    )


def _judge_activation(policy: TpmPolicy, vouchers: Vouchers) -> Finding:
    holds = _is_activated(policy, vouchers)
    return judge(
        holds=holds,
        code=f"{_TEE}.activation",
        expected="a TPM that proved to us that it holds both this EK and this AK",
        found="that proof" if holds else _what_is_missing(policy, vouchers),
        why="An EK's certificate says that a TPM is real, and nothing about the key that quotes.",
        hint=""
        if holds
        else "where the TPM cannot be asked, as about a proof that was published, name the AK in `ak_names`",
    )


def _what_is_missing(policy: TpmPolicy, vouchers: Vouchers) -> str:
    if not vouchers.ek_key_sha256:
        return "no certificate of an EK"
    if not _is_ek_root_named(policy, vouchers):
        return "an EK whose root the policy does not name"
    asked = (vouchers.ek_key_sha256, vouchers.ak_name)
    refusals = (one.refusal for one in policy.activations if (one.ek_key_sha256, one.ak_name) == asked)
    return next(refusals, "nobody who asked the TPM")


def _judge_certified(policy: TpmPolicy, vouchers: Vouchers) -> Finding:
    ways = tuple(_ways(policy, vouchers))
    code, why = f"{_TEE}.ak_certified", "Anybody can make a key that looks like a TPM's; somebody must vouch for it."
    found = ", ".join(ways) or "nobody"
    if isinstance(policy.ak_certified, Skip):
        return leave_out(code=code, reason=policy.ak_certified.reason, found=found, why=why)
    return judge(
        holds=any(way in policy.ak_certified for way in ways),
        code=code,
        expected=one_of(policy.ak_certified) if policy.ak_certified else "a way that the policy names",
        found=found,
        why=why,
        hint="let the server staple its AK's certificate, or name the AK in `ak_names` once you made sure of it",
    )
