"""Azure's HCL report at its limits: what just fits is read, and every compared byte is compared."""

from __future__ import annotations

import re

import pytest
from fakes.azure import FakeAzure, web_key
from fakes.tpm_vendor import rsa_key

from blindai.attestation.azure.hcl import MAX_HCL_BYTES, HclReport, parse_hcl, parse_runtime_claims
from blindai.errors import MalformedEvidenceError
from blindai.wire import base64url_encode

AK = web_key("HCLAkPub", "sign", rsa_key())


def report_of(fake: FakeAzure) -> HclReport:
    return parse_hcl(fake.hcl_report(fake.machine()))


def with_modulus(bits: int) -> bytes:
    modulus = (1 << bits - 1) + 1
    return FakeAzure(claims={"keys": [{**AK, "n": base64url_encode(modulus.to_bytes((bits + 7) // 8, "big"))}]}).json()


@pytest.mark.parametrize("bits", [2048, 4096])
def test_keys_at_the_limits_are_read(bits: int) -> None:
    assert parse_runtime_claims(with_modulus(bits)).attestation_key.key_size == bits


@pytest.mark.parametrize("bits", [2047, 4097])
def test_keys_beyond_the_limits_are_refused(bits: int) -> None:
    with pytest.raises(MalformedEvidenceError, match=f"HCLAkPub has {bits} bits"):
        parse_runtime_claims(with_modulus(bits))


def test_eight_keys_are_read_and_nine_are_not() -> None:
    others = [{"kid": str(number)} for number in range(8)]
    parse_runtime_claims(FakeAzure(claims={"keys": [*others[:7], AK]}).json())
    with pytest.raises(MalformedEvidenceError, match="keys is no list of at most 8"):
        parse_runtime_claims(FakeAzure(claims={"keys": [*others, AK]}).json())


def test_runtime_data_is_at_most_as_long_as_a_report() -> None:
    more = MAX_HCL_BYTES - len(FakeAzure(claims={"more": ""}).json())
    parse_runtime_claims(FakeAzure(claims={"more": "x" * more}).json())
    with pytest.raises(MalformedEvidenceError, match="4097"):
        parse_runtime_claims(FakeAzure(claims={"more": "x" * (more + 1)}).json())


@pytest.mark.parametrize(
    ("raw", "problem"),
    [(b"", "the magic has 4 bytes, 0 are left"), (b"HCLB", "it does not begin with HCLA")],
)
def test_what_does_not_begin_as_a_report_is_refused_for_that(raw: bytes, problem: str) -> None:
    with pytest.raises(MalformedEvidenceError, match=problem) as refusal:
        parse_hcl(raw)
    assert refusal.value.finding_code == "azure_vtpm.hcl_format"


def test_a_key_that_is_no_object_is_refused_for_that() -> None:
    with pytest.raises(MalformedEvidenceError, match="a key is no object"):
        parse_runtime_claims(FakeAzure(claims={"keys": ["HCLAkPub"]}).json())


@pytest.mark.parametrize("count", [0, 2])
def test_the_attestation_key_is_named_once(count: int) -> None:
    with pytest.raises(MalformedEvidenceError, match=f"{count} keys are named HCLAkPub"):
        parse_runtime_claims(FakeAzure(claims={"keys": [AK] * count}).json())


def test_reports_and_keys_are_not_shown_whole() -> None:
    fake = FakeAzure()
    shown = repr(report_of(fake)) + repr(parse_runtime_claims(fake.json()))
    assert re.findall("hardware_report=|runtime_data=|attestation_key=", shown) == []
    assert "hash_name='sha256'" in shown


@pytest.mark.parametrize("version", [4, 5])
def test_every_byte_of_a_quotes_body_is_compared_with_the_tdreport(version: int) -> None:
    fake = FakeAzure(hardware="tdx", quote_version=version)
    quote, report = fake.machine().evidence, report_of(fake)
    assert report.is_report_of("tdx", quote)
    begin = {4: 48, 5: 54}[version]
    for place in range(begin, begin + 584):
        assert not report.is_report_of("tdx", quote[:place] + bytes([quote[place] ^ 1]) + quote[place + 1 :])


def test_every_byte_of_an_snp_report_is_compared() -> None:
    fake = FakeAzure()
    machine = fake.machine()
    evidence, report = machine.evidence, parse_hcl(fake.hcl_report(machine))
    assert report.is_report_of("sev_snp", evidence)
    assert not report.is_report_of("tdx", evidence)
    for place in range(len(evidence)):
        changed = evidence[:place] + bytes([evidence[place] ^ 1]) + evidence[place + 1 :]
        assert not report.is_report_of("sev_snp", changed)
