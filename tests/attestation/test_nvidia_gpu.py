"""NVIDIA devices of a vendor of our own: every finding of `verify`, and nothing but our errors for any bytes."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from fakes import nvidia
from fakes.nvidia import HOPPER, NOW, Shown, opaque_data
from hypothesis import given, settings
from hypothesis import strategies as st

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Finding, Outcome
from blindai.attestation.nvidia.report import parse
from blindai.attestation.nvidia.rim import load_xml_tools
from blindai.attestation.tee import nvidia_gpu
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, UnauthenticEvidenceError
from blindai.evidence_files.nvidia_gpu import read_folder

if TYPE_CHECKING:
    from pathlib import Path

    from blindai.attestation.tee.nvidia_gpu import NvidiaGpuClaims

verify = functools.partial(
    nvidia_gpu.verify,
    device_root=nvidia.pinned(nvidia.root("Device root")),
    rim_root=nvidia.pinned(nvidia.root("RIM root")),
)


def with_leaf(chip: str = "GH100", **changes: Any) -> tuple[x509.Certificate, ...]:
    return nvidia.with_leaf(nvidia.leaf_certificate(chip, **changes), chip)


def claims_of(shown: Shown, **more: Any) -> NvidiaGpuClaims:
    return verify(shown.item(), NOW.timestamp(), Checks(), **more)


def refusal_of(item: EvidenceItem, kind: type[RejectedEvidenceError], now: float = NOW.timestamp()) -> Finding:
    """The finding that refused it, which is the last one and bears the error's code."""
    with pytest.raises(RejectedEvidenceError) as refusal:
        verify(item, now, Checks())
    assert type(refusal.value) is kind
    assert refusal.value.tee == "nvidia_gpu"
    last: Finding = refusal.value.findings[-1]
    assert (last.code, last.outcome) == (refusal.value.finding_code, Outcome.FAILED)
    assert all(finding.outcome is Outcome.PASSED for finding in refusal.value.findings[:-1])
    return last


def malformed(item: EvidenceItem) -> str:
    return refusal_of(item, MalformedEvidenceError).code


def unauthentic(item: EvidenceItem) -> str:
    return refusal_of(item, UnauthenticEvidenceError).code


def test_a_good_hopper_is_read_whole() -> None:
    claims = claims_of(nvidia.hopper())
    assert claims.bound == nvidia.NONCE
    assert (claims.chip, claims.architecture, claims.device.mode) == ("GH100", "hopper", "spt")
    assert (claims.device.driver_version, claims.device.vbios_version) == ("580.178.04", "96.00.9F.00.01")
    assert claims.rim_names == "NV_GPU_DRIVER_GH100_580.178.04, NV_GPU_VBIOS_1010_0200_882_96009F0001"
    assert claims.device_serial == bytes.fromhex("41431d480fe5e87274")
    assert claims.leaf_serial == bytes.fromhex("53c22ba15e5d68088282da074ed9fb37aa585771")
    assert claims.device_identity() == b"GH100" + claims.device_serial
    assert claims.measurements == nvidia.MEASUREMENTS
    assert len(claims.answers) == 6
    assert claims.unanswered == ()
    facts = dict(claims.facts())
    assert facts["device"] == "GH100 (hopper)"
    assert facts["FWID"] == nvidia.FWID.hex()


def test_a_good_blackwell_has_its_own_chip_and_identifier() -> None:
    claims = claims_of(nvidia.blackwell())
    assert (claims.chip, claims.architecture, claims.device.mode) == ("GB100", "blackwell", "mpt")
    assert claims.rim_names.startswith("NV_GPU_CC_DRIVER_GB100_580.178.04, ")


def test_a_switch_is_read_as_one() -> None:
    claims = [claims_of(shown) for shown in nvidia.hgx()]
    gpus, switches = claims[:2], claims[2:]
    assert {claim.architecture for claim in switches} == {"ls10"}
    assert all(claim.device.is_switch and claim.device.driver_version is None for claim in switches)
    assert switches[0].rim_names == "NV_SWITCH_BIOS_5612_0002_890_9610550001"
    assert switches[0].device.neighbours == {claim.device_serial[-8:] for claim in gpus}
    assert gpus[0].device.neighbours == {claim.device_serial[-8:] for claim in switches}
    assert dict(switches[0].facts())["driver version"] == "none"
    assert dict(switches[0].facts())["FWID"] == "not reported"
    assert dict(switches[0].facts())["OCSP"] == "no answer"


def test_every_check_of_good_evidence_is_named() -> None:
    checks = Checks()
    verify(nvidia.hopper().item(), NOW.timestamp(), checks)
    rim = [
        f"rim_{name}" for name in ("format", "chain_root", "chain", "chain_validity", "signer", "signature", "format")
    ]
    assert [finding.code.removeprefix("nvidia_gpu.") for finding in checks.findings] == [
        *("format", "endorsements", "certificate_format", "chain_length", "chain_root", "chain", "chain_validity"),
        *("chip", "signature", "fwid", *rim, *rim, "ocsp_format", "ocsp_responder", "ocsp_signature", "revoked"),
    ]
    assert {finding.outcome for finding in checks.findings} == {Outcome.PASSED}


def with_opaque(**changes: Any) -> bytes:
    """A signed report with changed opaque fields (`_3=b"…"`), or without them (`_3=None`)."""
    fields = {**HOPPER, **{int(kind[1:]): value for kind, value in changes.items()}}
    return nvidia.report(opaque=opaque_data({kind: value for kind, value in fields.items() if value is not None}))


GOOD = nvidia.report()
BLOCK = nvidia.block(1, bytes(48))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        GOOD[:36],
        GOOD[:-1],
        GOOD + b"\0",
        bytes(0x2001),
        nvidia.report(request=b"\x12\xe0\1\xff"),
        nvidia.report(request=b"\x11\xe0\0\xff"),
        nvidia.report(request=b"\x11\xe0\1\1"),
        nvidia.report(slot=1),
        nvidia.report(slot=8, response=b"\x11\x60\0\x08"),
        nvidia.report(response=b"\x11\x7f\0\0"),
        nvidia.report(response=b"\x11\x60\1\0"),
        nvidia.report(count=63),
        nvidia.report(count=65),
        nvidia.report(record=BLOCK + b"\0", count=1),
        nvidia.report(record=BLOCK + BLOCK, count=2),
        nvidia.report(record=nvidia.block(1, bytes(48), specification=2), count=1),
        nvidia.report(record=nvidia.block(1, bytes(48), value_type=5), count=1),
        nvidia.report(record=b"\1\1\2\0\1\0", count=1),
        nvidia.report(record=b"\1\1\4\0\1\0\0\0", count=1),
        nvidia.report(opaque=opaque_data(HOPPER)[:-1]),
        nvidia.report(opaque=opaque_data(HOPPER) + opaque_data({3: b"1.0"})),
        nvidia.report(opaque=b""),
        with_opaque(_34=b"\2\0"),
        with_opaque(_36=b"\3\0"),
        with_opaque(_3=b"latest\0"),
        with_opaque(_3=b"550"),
        with_opaque(_3=b"580.178.04\0\0"),
        with_opaque(_6=None),
        with_opaque(_6=bytes(7)),
        with_opaque(_6=bytes.fromhex("009f009601000001")),
        with_opaque(_11=None),
        with_opaque(_11=b"\0"),
        with_opaque(_15=None),
        with_opaque(_17=b"10_0\0"),
        with_opaque(_18=b"0\0000"),
        with_opaque(_21=b"\1"),
        with_opaque(_22=bytes(7)),
        with_opaque(_35=b"../../\0"),
        nvidia.report(opaque=opaque_data({6: b"96.10.55.00", 26: bytes(64)})),
        nvidia.report(opaque=opaque_data({6: b"96.10.55.00.01"})),
    ],
)
def test_reports_of_another_form_are_malformed(raw: bytes) -> None:
    assert malformed(Shown(report=raw).item()) == "nvidia_gpu.format"


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({"_36": b"\0\0", "_21": b"\x55"}, "spt"),
        ({"_36": b"\1\0", "_21": None}, "mpt"),
        ({"_36": b"\2\0", "_21": b"\xaa"}, "ppcie"),
        ({"_36": None, "_21": b"\xaa"}, "ppcie"),
        ({"_36": None, "_21": b"\x55"}, "unstated"),
        ({"_36": None, "_21": None}, "unstated"),
        ({"_36": b"\0\0", "_21": b"\xaa"}, "contradictory"),
        ({"_36": b"\2\0", "_21": b"\x55"}, "contradictory"),
    ],
)
def test_the_mode_is_what_flag_and_status_agree_on(changes: dict[str, bytes | None], mode: str) -> None:
    assert parse(with_opaque(**changes)).device.mode == mode


@pytest.mark.parametrize(
    "item",
    [
        EvidenceItem(tee="nvidia_gpu", evidence=GOOD, endorsements=()),
        Shown().item(extra=b""),
        Shown().item(ocsp_100=b""),
        Shown().item(ocsp_01=b""),
        EvidenceItem(tee="nvidia_gpu", evidence=GOOD, endorsements=(("device_chain", b""), ("device_chain", b""))),
        nvidia.hgx()[-1].item(driver_rim=b""),
    ],
)
def test_missing_and_surplus_endorsements_are_malformed(item: EvidenceItem) -> None:
    assert malformed(item) == "nvidia_gpu.endorsements"


PEM = dict(Shown().item().endorsements)["device_chain"]


def with_pem(pem: bytes) -> EvidenceItem:
    return EvidenceItem(tee="nvidia_gpu", evidence=GOOD, endorsements=(("device_chain", pem),))


@pytest.mark.parametrize(
    "pem", [b"", b"no", b" " + PEM, PEM + b"\n", PEM.replace(b"\n", b"\r\n"), PEM.replace(b"\n-----END", b"-----END")]
)
def test_a_chain_in_no_pem_or_another_is_malformed(pem: bytes) -> None:
    assert malformed(with_pem(pem)) == "nvidia_gpu.certificate_format"


def test_the_last_line_of_a_chain_may_end_or_not() -> None:
    assert verify(with_pem(PEM[:-1]), NOW.timestamp(), Checks()).chip == "GH100"


def test_a_certificate_of_an_unknown_version_is_malformed() -> None:
    leaf = nvidia.device_chain()[0].public_bytes(Encoding.DER)
    other = leaf.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x6a", 1)
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(other) + b"-----END CERTIFICATE-----\n"
    item = EvidenceItem(tee="nvidia_gpu", evidence=GOOD, endorsements=(("device_chain", pem),))
    assert malformed(item) == "nvidia_gpu.certificate_format"


def test_a_chain_of_another_length_is_refused() -> None:
    chain = nvidia.device_chain()
    assert unauthentic(Shown(chain=chain[:-1]).item()) == "nvidia_gpu.chain_length"
    assert unauthentic(Shown(chain=(*chain, chain[-1])).item()) == "nvidia_gpu.chain_length"


def test_another_root_is_refused() -> None:
    own = nvidia.certify("Device root", by="Device root")
    assert unauthentic(Shown(chain=(*nvidia.device_chain()[:-1], own)).item()) == "nvidia_gpu.chain_root"
    rim_root = nvidia.root("RIM root")
    assert unauthentic(Shown(chain=(*nvidia.device_chain()[:-1], rim_root)).item()) == "nvidia_gpu.chain_root"


def test_a_broken_chain_is_refused() -> None:
    leaf, _, *rest = nvidia.device_chain()
    other = nvidia.certify("GH100 A01 GSP BROM", by="GH100 Identity")
    assert unauthentic(Shown(chain=(leaf, other, *rest)).item()) == "nvidia_gpu.chain"


def test_an_outdated_chain_is_refused() -> None:
    finding = refusal_of(Shown().item(), UnauthenticEvidenceError, now=nvidia.END.timestamp() + 1)
    assert finding.code == "nvidia_gpu.chain_validity"
    assert "clock" in finding.hint


@pytest.mark.parametrize(
    "shown",
    [
        Shown(chain=nvidia.device_chain("XX100")),
        Shown(chain=nvidia.device_chain("LS_10")),
        Shown(report=nvidia.hgx()[-1].report),
    ],
)
def test_a_report_is_of_the_kind_that_the_certificate_says(shown: Shown) -> None:
    assert unauthentic(shown.item()) == "nvidia_gpu.chip"


@pytest.mark.parametrize(
    "shown",
    [
        Shown(report=nvidia.report(signer=nvidia.key("another"))),
        Shown(report=GOOD[:-96] + bytes(96)),
        Shown(chain=with_leaf(public_key=ec.generate_private_key(ec.SECP256R1()).public_key())),
        Shown(chain=with_leaf(public_key=rsa.generate_private_key(65537, 2048).public_key())),
    ],
)
def test_another_signature_is_refused(shown: Shown) -> None:
    assert unauthentic(shown.item()) == "nvidia_gpu.signature"


@pytest.mark.parametrize(
    "shown",
    [
        Shown(report=with_opaque(_20=bytes(48))),
        Shown(chain=with_leaf(fwid=nvidia.fwid_extension(oid=nvidia.BLACKWELL_FWID))),
        Shown(chain=with_leaf(fwid=nvidia.fwid_extension(b"short"))),
        nvidia.blackwell().replace(
            chain=with_leaf("GB100", fwid=nvidia.fwid_extension(bytes(48), oid=nvidia.BLACKWELL_FWID))
        ),
    ],
)
def test_firmware_that_is_not_the_certified_one_is_refused(shown: Shown) -> None:
    assert unauthentic(shown.item()) == "nvidia_gpu.fwid"


def test_an_extension_without_an_identifier_certifies_none() -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(nvidia.HOPPER_FWID), b"\x30\0")
    assert unauthentic(Shown(chain=with_leaf(fwid=extension)).item()) == "nvidia_gpu.fwid"


def test_old_firmware_reports_no_identifier() -> None:
    assert claims_of(Shown(report=with_opaque(_20=None))).device.fwid is None


def test_without_the_extra_rims_stay_unread_and_are_not_taken_for_good() -> None:
    claims = claims_of(nvidia.hopper().replace(answers=()), find_tools=lambda: None)
    assert not claims.can_read_rims
    assert claims.rims == (("driver_rim", None), ("vbios_rim", None))


@pytest.mark.parametrize("library", ["lxml.etree", "signxml"])
def test_a_missing_library_is_found_out_without_an_error(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_xml_tools() is not None
    monkeypatch.setitem(sys.modules, library, None)
    assert load_xml_tools() is None
    assert not claims_of(Shown(rims=nvidia.hopper().rims)).can_read_rims


def test_the_verifier_does_not_need_the_extra_to_be_imported() -> None:
    program = "import sys, blindai.attestation.policy; print('lxml' in sys.modules, 'signxml' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


@settings(max_examples=200)
@given(start=st.integers(0, len(GOOD)), junk=st.binary(max_size=60))
def test_arbitrary_bytes_in_a_report_are_rejected_and_nothing_worse(start: int, junk: bytes) -> None:
    raw = GOOD[:start] + junk + GOOD[start + len(junk) :]
    if raw == GOOD:
        return
    with pytest.raises(RejectedEvidenceError):
        verify(Shown(report=raw).item(), NOW.timestamp(), Checks())


@given(tail=st.binary(max_size=400))
def test_arbitrary_opaque_data_is_read_or_malformed(tail: bytes) -> None:
    raw = nvidia.unsigned_report(opaque=opaque_data(HOPPER) + tail) + bytes(96)
    with contextlib.suppress(MalformedEvidenceError):
        parse(raw)


def test_a_changed_bit_of_a_signed_report_is_refused() -> None:
    for position in range(0, len(GOOD), 7):
        raw = bytearray(GOOD)
        raw[position] ^= 1 << (position % 8)
        with pytest.raises((MalformedEvidenceError, UnauthenticEvidenceError)):
            claims_of(Shown(report=bytes(raw)))


def written(folder: Path, shown: list[Shown]) -> Path:
    """As files: NVIDIA's serialised form if there are several devices, else a report and its chain."""
    chains = [dict(one.item().endorsements)["device_chain"] for one in shown]
    if len(shown) > 1:
        devices = [
            {"evidence": base64.b64encode(one.report).decode(), "certificate": base64.b64encode(chain).decode()}
            for one, chain in zip(shown, chains, strict=True)
        ]
        (folder / "original.json").write_text(json.dumps(devices))
    else:
        (folder / "attestation_report.bin").write_bytes(shown[0].report)
        (folder / "device_chain.pem").write_bytes(chains[0])
    for path, data in {
        "rim/driver_1.xml": shown[0].rims.get("driver_rim"),
        "rim/vbios_1.xml": shown[0].rims.get("vbios_rim"),
        **{f"ocsp/{number}.der": answer for number, answer in enumerate(shown[0].answers)},
    }.items():
        if data is not None:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(data)
    return folder


def test_a_folder_gives_back_what_was_shown(tmp_path: Path) -> None:
    (item,) = read_folder(written(tmp_path, [nvidia.hopper()]))
    assert item == nvidia.hopper().item()


def test_a_folder_of_several_devices_gives_rims_to_gpus_alone(tmp_path: Path) -> None:
    machine = [one.replace(rims=nvidia.hopper().rims) for one in nvidia.hgx()]
    gpu, _, switch, _ = read_folder(written(tmp_path, machine), collateral=tmp_path)
    assert [name for name, _ in gpu.endorsements] == ["device_chain", "driver_rim", "vbios_rim"]
    assert [name for name, _ in switch.endorsements] == ["device_chain"]


def test_a_folder_with_a_malformed_report_is_read_and_refused_later(tmp_path: Path) -> None:
    (item,) = read_folder(written(tmp_path, [Shown(report=b"no")]))
    assert malformed(item) == "nvidia_gpu.format"


@pytest.mark.parametrize("content", ["", "[]", "[1]", "{}", '[{"evidence": "!", "certificate": ""}]', "[" * 9999])
def test_serialised_evidence_of_another_form_is_malformed(content: str, tmp_path: Path) -> None:
    (tmp_path / "original.json").write_text(content)
    with pytest.raises(MalformedEvidenceError):
        read_folder(tmp_path)


def test_a_folder_without_evidence_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(MalformedEvidenceError):
        read_folder(tmp_path)
