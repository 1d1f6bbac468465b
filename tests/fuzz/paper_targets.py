"""Fuzz targets of what vendors and people write: policies, manifests, certificates, revocation, endorsements."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from fakes import amd, intel_pki, nvidia
from fakes.machines import machines
from fuzz.target import REFUSALS, Target, join_parts, split_parts

from blindai.attestation.amd.certificates import read_crl
from blindai.attestation.manifest import parse_manifest, parse_signatures, sign_manifest
from blindai.attestation.ocsp import read_answer
from blindai.attestation.policy import parse_policy
from blindai.attestation.policy_file import open_policy
from blindai.attestation.policy_lines import line_of
from blindai.attestation.policy_tees import fields_of
from blindai.attestation.policy_view import rules
from blindai.attestation.roots import PinnedRoot
from blindai.attestation.tee import TEES
from blindai.attestation.tpm2.revocation import read_crl as read_tpm_crl
from blindai.attestation.x509_chain import judge_chain, read_certificate, read_pem_chain
from blindai.endorsements.bundle import encode_bundle, parse_bundle
from blindai.endorsements.documents import Kind, Resource, Service, read_document
from blindai.evidence_files.intel_collateral_file import read_collateral
from blindai.policies import preset_table
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography import x509

_SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
_GENERAL = """
version = 1
insecure_simulation = false
[level]
minimum = "fresh"
[release]
skip = "r"
[operator]
skip = "r"
[runtime.require]
telemetry = false
limits.max_models = [16, 32]
"""
_NAMED = f"""
[manifest]
file = "m.toml"
public_keys = ["{base64url_encode(_SIGNER.public_key().public_bytes_raw())}"]
"""
_MANIFEST = f"""version = 1
name = "blindai"
release = "1.2.0"
[tee.sev_snp]
measurement = ["{"ab" * 48}"]
[tee.tpm.pcrs]
"4" = ["{"ef" * 32}"]
[models]
risk = "sha256:{"cd" * 32}"
""".encode()
_LEGACY = f"""mr_enclave = "{"ab" * 32}"
allow_debug = false
attributes_flags_hex = "0x0"
attributes_mask_flags_hex = "0xfffffffffffffffb"
attributes_xfrm_hex = "0x3"
attributes_mask_xfrm_hex = "0xfffffffffffffffb"
misc_select_hex = "0x0"
misc_mask_hex = "0xffffffff"
""".encode()


# --- policies and manifests


def _policy(data: bytes) -> None:
    """A policy, and as a second part the manifest that it may name, signed by the key that it may pin."""
    text, manifest = split_parts(data, 2)
    files = {"m.toml": manifest, "m.toml.sig": sign_manifest(manifest, _SIGNER).line().encode() + b"\n"}
    policy = parse_policy(
        text.decode("utf-8", "replace"),
        source="policy.toml",
        preset_table=preset_table,
        read_file=lambda name: files.get(name, b""),
    )
    list(rules(policy))


def _policies() -> Iterator[bytes]:
    for tee in TEES:
        table = f"[tee.{tee}]\n{_reference_values(tee)}"
        preset = 'preset = "strict"' if preset_table("strict", tee) else ""
        text = (preset + _GENERAL + table).encode()
        yield text if tee != "simulation" else text.replace(b"simulation = false", b"simulation = true")
    nitro = f"[any_of.tee.nitro]\n{_reference_values('nitro')}"
    snp = f"[any_of.tee.sev_snp]\n{_reference_values('sev_snp')}"
    both = f"[[any_of]]\n{nitro}[[any_of]]\n{snp}"
    yield join_parts(('preset = "strict"' + _GENERAL + both).encode())
    named = f'[tee.sev_snp]\nreference_values = "manifest"\n{_reference_values("sev_snp", "measurement")}'
    yield join_parts(('preset = "strict"' + _GENERAL + _NAMED + named).encode(), _MANIFEST)
    yield _LEGACY


def _reference_values(tee: str, *known: str) -> str:
    fields = [field for field in fields_of(tee) if field not in {*known, *(preset_table("strict", tee) or {})}]
    return "".join(f'{field} = {{ skip = "r" }}\n' for field in fields)


def _lines(data: bytes) -> None:
    """Where a key stands in a file that TOML's own parser accepts."""
    text = data.decode("utf-8", "replace")
    root = open_policy(text, source="p")
    for name, value in root.members.items():
        line_of(text, (name, *(value if isinstance(value, dict) else ())))


# --- certificates, and whether they are revoked


def _chain(data: bytes) -> None:
    pem = read_pem_chain(data, tee="t", what="a chain")
    root = PinnedRoot(name="r", sha256=bytes(32), source="s")
    for chain in (pem, pem[:1]):
        list(judge_chain(chain, [root], tee="t", now=0.0))


def _certificate(data: bytes) -> None:
    certificate = read_certificate(data, tee="t", what="a certificate")
    root = PinnedRoot(name="r", sha256=bytes(32), source="s")
    list(judge_chain((certificate, certificate), [root], tee="t", now=1.7e9))


def _certificates() -> Iterator[x509.Certificate]:
    yield from (intel_pki.ROOT_MADE, intel_pki.CA_MADE, intel_pki.pck_certificate())
    yield from nvidia.device_chain()


def _revocation_lists() -> Iterator[bytes]:
    yield intel_pki.crl(intel_pki.ROOT_NAME, intel_pki.ROOT)
    yield amd.revocation_list("Genoa")


def _revocation_list(data: bytes) -> None:
    try:
        read_crl(data)
    finally:
        read_tpm_crl(data, tee="tpm")


def _document(data: bytes) -> None:
    """What a vendor's service, or whoever stands in for it, answers."""
    kind, body, issuers = split_parts(data, 3)
    kinds = list(Kind)
    resource = Resource(
        service=Service.INTEL_PCS, path="/", kind=kinds[kind[0] % len(kinds) if kind else 0], issuer_header="x"
    )
    read_document(resource, body, issuers=issuers, now=1.7e9)


def _documents() -> Iterator[bytes]:
    tdx = dict(machines()["tdx"].item.endorsements)
    gpu = dict(machines()["nvidia_gpu"].item.endorsements)
    chain = tdx["tcb_info_issuer_chain"]
    bodies = {
        Kind.CERTIFICATE: intel_pki.ROOT_MADE.public_bytes(Encoding.DER),
        Kind.CHAIN: chain,
        Kind.CRL: tdx["pck_crl"].hex().encode(),
        Kind.COLLATERAL: b'{"tcbInfo":' + tdx["tcb_info"] + b',"signature":"00"}',
        Kind.OCSP: gpu["ocsp_0"],
        Kind.RIM: gpu["driver_rim"],
    }
    for number, kind in enumerate(Kind):
        yield join_parts(bytes([number]), bodies[kind], chain if kind is Kind.COLLATERAL else b"")


def _collateral(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        read_collateral(Path(file.name), tee="tdx")


def _collateral_files() -> Iterator[bytes]:
    members = dict(machines()["tdx"].item.endorsements)
    is_hex = ("_signature", "_crl")
    yield json.dumps(
        {name: data.hex() if name.endswith(is_hex) else data.decode() for name, data in members.items()}
    ).encode()


TARGETS = (
    Target(name="policy", run=_policy, seeds=_policies),
    Target(name="policy_lines", run=_lines, seeds=lambda: ((_GENERAL + _NAMED).encode(),)),
    Target(name="manifest", run=lambda data: parse_manifest(data, source="m"), seeds=lambda: (_MANIFEST,)),
    Target(
        name="manifest_signatures",
        run=lambda data: parse_signatures(data, source="m.sig"),
        seeds=lambda: (sign_manifest(_MANIFEST, _SIGNER).line().encode() + b"\n",),
    ),
    Target(
        name="x509_certificate",
        run=_certificate,
        seeds=lambda: (one.public_bytes(Encoding.DER) for one in _certificates()),
    ),
    Target(name="x509_pem_chain", run=_chain, seeds=lambda: (intel_pki.pem(*_certificates()),)),
    Target(name="revocation_list", run=_revocation_list, seeds=_revocation_lists),
    Target(
        name="ocsp_answer",
        run=lambda data: read_answer(data, tee="nvidia_gpu"),
        seeds=lambda: nvidia.good_answers()[:2],
    ),
    Target(name="endorsement_document", run=_document, seeds=_documents, refuses=(*REFUSALS, ValueError)),
    Target(
        name="endorsement_bundle",
        run=lambda data: parse_bundle(data, name="b"),
        seeds=lambda: (encode_bundle({("amd_kds", "/vcek/v1/x", b""): (b"x", b"y")}),),
    ),
    Target(name="intel_collateral_file", run=_collateral, seeds=_collateral_files),
)
