"""Fuzz targets of every TEE's evidence: as anybody can change it, and as a vendor's key would sign anything.

Each TEE's own target takes evidence and endorsements through parse, verify and check, and refuses nearly everything at
a signature. Behind that stand the `*_signed` targets: the fake vendor signs whatever was drawn. Single formats, which
are parsed before or after a signature, have targets of their own.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fakes import amd, aws, intel, intel_pki, nvidia
from fakes.machines import appraised, machines, strict_policy_of
from fakes.tpm_boot import firmware, grub, stub
from fakes.tpm_vendor import FakeTpm, FakeVendor, rsa_key, tpm_signature
from fuzz.target import Target, join_parts, split_parts

from blindai.attestation.aws.cose_sign1 import parse_sign1
from blindai.attestation.binding import Mode
from blindai.attestation.evidence import AttestationDocument, EvidenceItem, encode_document, parse_document
from blindai.attestation.intel.collateral import parse_qe_identity, parse_tcb_info
from blindai.attestation.intel.pck import read_pck
from blindai.attestation.nvidia.rim import load_xml_tools, read_content, read_rim, signed_content
from blindai.attestation.policy import strict_policy
from blindai.attestation.tee import TEES
from blindai.attestation.tpm2.boot_events import read_boot
from blindai.attestation.tpm2.credential import Credential
from blindai.attestation.tpm2.event_log import parse_event_log, replay
from blindai.attestation.tpm2.keys import parse_public, parse_signature
from blindai.attestation.tpm2.policy import TpmPolicy
from blindai.attestation.tpm2.quote import parse_quote, split_pcrs
from blindai.channel.activation import (
    challenge,
    encode_answer,
    encode_request,
    keys_to_activate,
    parse_answer,
    parse_request,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from blindai.attestation.policy import Policy


# --- one item, whole: evidence and named endorsements


def encode_item(item: EvidenceItem) -> bytes:
    """The evidence, then each endorsement as `name:bytes`."""
    return join_parts(item.evidence, *(name.encode() + b":" + data for name, data in item.endorsements))


def decode_item(data: bytes, tee: str) -> EvidenceItem:
    """The inverse, of any bytes."""
    evidence, *rest = split_parts(data, 40)
    named = (part.partition(b":") for part in rest if part)
    endorsements = tuple((name.decode("latin-1"), value) for name, _, value in named)
    return EvidenceItem(tee=tee, evidence=evidence, endorsements=endorsements)


def _item_target(name: str) -> Target:
    tee = next(tee for tee in (name, name.rpartition("_")[0]) if tee in TEES)

    def run(data: bytes) -> None:
        claims, _ = appraised(machines()[name], decode_item(data, tee))
        claims.facts()

    return Target(name=name, run=run, seeds=lambda: (encode_item(machines()[name].item),))


# --- what a vendor's key signed


def _signed_target(
    machine: str, kind: str, change: Callable[[bytes], EvidenceItem], seed: Callable[[], bytes]
) -> Target:
    """`change` puts any bytes in place of one signed part, and signs them."""
    return Target(
        name=f"{machine}_signed_{kind}",
        run=lambda data: appraised(machines()[machine], change(data)),
        seeds=lambda: (seed(),),
    )


def _with(machine: str, **endorsements: bytes) -> EvidenceItem:
    item = machines()[machine].item
    return dataclasses.replace(item, endorsements=tuple({**dict(item.endorsements), **endorsements}.items()))


_SNP_SIGNED = 0x2A0


def _snp_report(data: bytes) -> EvidenceItem:
    item = machines()["sev_snp"].item
    body = data[:_SNP_SIGNED].ljust(_SNP_SIGNED, b"\0")
    r, s = decode_dss_signature(amd.ec_key("vek", ec.SECP384R1).sign(body, ec.ECDSA(hashes.SHA384())))
    report = body + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)
    return dataclasses.replace(item, evidence=report)


@functools.cache
def _pck_certificate() -> x509.Certificate:
    return intel_pki.pck_certificate()


def _td_report(data: bytes) -> EvidenceItem:
    quote = intel.FakeEvidence(version=4, pck=_pck_certificate(), raw_body=data[:584].ljust(584, b"\0")).quote()
    return dataclasses.replace(machines()["tdx_v4"].item, evidence=quote)


def _enclave_report(data: bytes) -> EvidenceItem:
    body = data[:384].ljust(384, b"\0")
    quote = intel.FakeEvidence(tee="sgx", version=3, pck=_pck_certificate(), raw_body=body).quote()
    return dataclasses.replace(machines()["sgx"].item, evidence=quote)


def _signed_collateral(name: str) -> Callable[[bytes], EvidenceItem]:
    def change(data: bytes) -> EvidenceItem:
        return _with("tdx", **{name: data, f"{name}_signature": intel_pki.sign(intel_pki.SIGNER, data)})

    return change


def _nitro_document(data: bytes) -> EvidenceItem:
    return EvidenceItem(tee="nitro", evidence=aws.Enclave().sign(data), endorsements=())


@functools.cache
def _tpm() -> FakeTpm:
    return FakeTpm()


def _tpm_credential(data: bytes) -> None:
    credential = parse_request(data)
    assert parse_request(encode_request(credential)) == credential


@functools.cache
def _activating() -> Policy:
    strict = strict_policy_of("tpm")
    assert isinstance(strict, TpmPolicy)
    tee = dataclasses.replace(strict, ak_certified=("activation",))
    return dataclasses.replace(strict_policy(), any_of=((tee,),))


def _tpm_keys(data: bytes) -> None:
    """Whatever a server shows, no credential is made for it or exactly one: its appraisal comes later."""
    keys = keys_to_activate(parse_document(data), _activating())
    if keys is not None and (asked := challenge(keys, bytes)) is not None:
        parse_request(asked.request)


def _tpm_document() -> bytes:
    vendor = FakeVendor()
    leaf = vendor.certify(rsa_key(1), signs=False)
    item = dataclasses.replace(_tpm(), endorsements=vendor.chain(leaf, "ek")).item()
    return encode_document(AttestationDocument(keyset=b"{}", mode=Mode.CACHED, evidence=(item,)))


def _tpm_quote(data: bytes) -> EvidenceItem:
    signature = tpm_signature(_tpm().key, "rsassa", "sha256", data)
    endorsements = machines()["tpm"].item.endorsements
    return dataclasses.replace(_tpm().item(quote=data, signature=signature), endorsements=endorsements)


def _gpu_report(data: bytes) -> EvidenceItem:
    signature = nvidia.raw_signature(nvidia.key("GH100 A01 GSP FMC LF"), data)
    return dataclasses.replace(machines()["nvidia_gpu"].item, evidence=data + signature)


# --- single formats


def _event_log(data: bytes) -> None:
    log = parse_event_log(data, tee="tpm")
    for bank in log.banks:
        replay(log, bank)
        read_boot(log, bank=bank, quoted=range(24))


def _pcrs(data: bytes) -> None:
    quote, values = split_parts(data, 2)
    split_pcrs(parse_quote(quote, tee="tpm"), values)


def _rim(data: bytes) -> None:
    """A RIM before its signature is believed, and as if it were."""
    tools = load_xml_tools()
    if tools is not None:
        sealed = read_rim(data, tools)
        signed_content(sealed, tools)
        read_content(sealed.root)


def _pck(data: bytes) -> None:
    read_pck(intel_pki.pck_certificate(data), tee="tdx")


TARGETS = (
    *map(
        _item_target,
        ("simulation", "sev_snp", "sev_snp_vlek", "tdx", "tdx_v4", "sgx", "nitro", "tpm", "azure_vtpm", "nvidia_gpu"),
    ),
    _signed_target("sev_snp", "report", _snp_report, lambda: machines()["sev_snp"].item.evidence[:_SNP_SIGNED]),
    _signed_target("tdx_v4", "report", _td_report, lambda: machines()["tdx_v4"].item.evidence[48:632]),
    _signed_target("sgx", "report", _enclave_report, lambda: machines()["sgx"].item.evidence[48:432]),
    _signed_target(
        "tdx", "tcb_info", _signed_collateral("tcb_info"), lambda: dict(machines()["tdx"].item.endorsements)["tcb_info"]
    ),
    _signed_target(
        "tdx",
        "qe_identity",
        _signed_collateral("qe_identity"),
        lambda: dict(machines()["tdx"].item.endorsements)["qe_identity"],
    ),
    _signed_target("nitro", "document", _nitro_document, lambda: cbor2.dumps(aws.Enclave().payload())),
    _signed_target("tpm", "quote", _tpm_quote, lambda: _tpm().quote()),
    _signed_target("nvidia_gpu", "report", _gpu_report, nvidia.unsigned_report),
    Target(
        name="cose_sign1",
        run=parse_sign1,
        seeds=lambda: (aws.Enclave().document(), aws.Enclave().document(tagged=True)),
        refuses=(ValueError,),
    ),
    Target(name="event_log", run=_event_log, seeds=lambda: (grub(firmware()).log(), stub(firmware()).log())),
    Target(name="tpm_public", run=lambda data: parse_public(data, tee="tpm"), seeds=lambda: (_tpm().ak_public,)),
    Target(
        name="tpm_signature",
        run=lambda data: parse_signature(data, tee="tpm"),
        seeds=lambda: (_tpm().evidence().signature,),
    ),
    Target(name="tpm_pcrs", run=_pcrs, seeds=lambda: (join_parts(_tpm().quote(), _tpm().pcr_values),)),
    Target(
        name="tpm_credential",
        run=_tpm_credential,
        seeds=lambda: (encode_request(Credential(blob=bytes(68), encrypted_seed=bytes(size))) for size in (68, 256)),
        refuses=(ValueError,),
    ),
    Target(name="tpm_activation", run=parse_answer, seeds=lambda: (encode_answer(bytes(32)),), refuses=(ValueError,)),
    Target(name="tpm_keys", run=_tpm_keys, seeds=lambda: (_tpm_document(),)),
    Target(name="nvidia_rim", run=_rim, seeds=lambda: (nvidia.driver_rim(),)),
    Target(name="pck_extension", run=_pck, seeds=lambda: (intel_pki.sgx_extension(intel_pki.sgx_members()),)),
    Target(
        name="tcb_info",
        run=lambda data: parse_tcb_info(data, tee="tdx"),
        seeds=lambda: (dict(machines()["tdx"].item.endorsements)["tcb_info"],),
    ),
    Target(
        name="qe_identity",
        run=lambda data: parse_qe_identity(data, tee="tdx"),
        seeds=lambda: (dict(machines()["tdx"].item.endorsements)["qe_identity"],),
    ),
)
