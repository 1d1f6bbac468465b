"""What NVIDIA's leaf certificate says of the chip, and only it; which keys sign; how serial numbers are written."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fakes import nvidia
from fakes.nvidia import NOW, Shown

from blindai.attestation.evidence import Finding, Outcome
from blindai.attestation.nvidia.device import judge_device, serial_of
from blindai.attestation.nvidia.report import parse


def refusal_of(shown: Shown) -> Finding:
    """The first finding that fails; nothing after it counts."""
    root = nvidia.pinned(nvidia.root("Device root"))
    findings = judge_device(parse(shown.report), shown.chain, root, NOW.timestamp())
    return next(one for one in findings if one.outcome is Outcome.FAILED)


@pytest.mark.parametrize(("chip", "found"), [("LS_10", "LS10"), ("XX100", "XX100")])
def test_the_leaf_alone_says_which_chip_it_is(chip: str, found: str) -> None:
    leaf = nvidia.certify(
        f"{chip} A01 GSP FMC LF",
        by="GH100 A01 GSP BROM",
        is_ca=False,
        extensions=[(nvidia.fwid_extension(), False)],
        subject_key=nvidia.key("GH100 A01 GSP FMC LF").public_key(),
    )
    finding = refusal_of(Shown(chain=nvidia.with_leaf(leaf)))
    assert (finding.code, finding.found) == ("nvidia_gpu.chip", found)
    assert finding.expected == "a certificate of a GPU (GH, GB), as the report is"


def test_a_switchs_report_needs_a_switchs_certificate() -> None:
    finding = refusal_of(Shown(report=nvidia.hgx()[-1].report))
    assert (finding.code, finding.found) == ("nvidia_gpu.chip", "GH100")
    assert finding.expected == "a certificate of an NVSwitch (LS), as the report is"


def test_a_good_signature_on_another_curve_does_not_count() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    unsigned = nvidia.unsigned_report()
    numbers = decode_dss_signature(key.sign(unsigned, ec.ECDSA(hashes.SHA384())))
    report = unsigned + b"".join(number.to_bytes(48, "big") for number in numbers)
    chain = nvidia.with_leaf(nvidia.leaf_certificate(public_key=key.public_key()))
    assert refusal_of(Shown(report=report, chain=chain)).code == "nvidia_gpu.signature"


@pytest.mark.parametrize(
    ("serial", "size", "written"),
    [(0x80, 1, "80"), (0x100, 1, "0100"), (0x80, 3, "000080"), (0x41431D480FE5E87274, 9, "41431d480fe5e87274")],
)
def test_a_serial_number_has_at_least_so_many_bytes(serial: int, size: int, written: str) -> None:
    certificate = nvidia.certify("a device", by="a device", serial=serial)
    assert serial_of(certificate, size) == bytes.fromhex(written)
