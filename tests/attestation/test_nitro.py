"""Nitro attestation documents of our own AWS: a good one passes, and each check fails for its own reason."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fakes import aws
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.aws.cose_sign1 import CoseSign1
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Finding, Outcome
from blindai.attestation.policy_file import Skip, open_policy
from blindai.attestation.tee import TEES
from blindai.attestation.tee.nitro import JUDGED_PCRS, NitroClaims, NitroPolicy, check, parse, parse_policy, verify
from blindai.errors import (
    InvalidPolicyError,
    MalformedEvidenceError,
    RejectedEvidenceError,
    UnauthenticEvidenceError,
)
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Mapping

RSA_KEY = rsa.generate_private_key(65537, 2048).public_key()
POLICY = NitroPolicy(debug=False, max_age_s=300, pcrs=tuple((index, (aws.pcr(index),)) for index in JUDGED_PCRS))


def verified(enclave: aws.Enclave, now: float = aws.NOW) -> NitroClaims:
    return verify(enclave.item(), now, Checks(), roots=aws.ROOTS)


def refusal_of(item: EvidenceItem, kind: type[RejectedEvidenceError], now: float = aws.NOW) -> RejectedEvidenceError:
    """The refusal, whose last finding is the failed one."""
    with pytest.raises(kind) as refusal:
        verify(item, now, Checks(), roots=aws.ROOTS)
    assert refusal.value.tee == "nitro"
    assert [finding.outcome for finding in refusal.value.findings].count(Outcome.FAILED) == 1
    assert refusal.value.findings[-1].outcome is Outcome.FAILED
    return refusal.value


def unauthentic(enclave: aws.Enclave, now: float = aws.NOW) -> str:
    return refusal_of(enclave.item(), UnauthenticEvidenceError, now).finding_code


def of_bytes(evidence: bytes) -> EvidenceItem:
    return EvidenceItem(tee="nitro", evidence=evidence, endorsements=())


def outcomes(claims: NitroClaims, policy: NitroPolicy = POLICY) -> dict[str, Outcome]:
    return {finding.code: finding.outcome for finding in check(claims, policy)}


def failed(claims: NitroClaims, policy: NitroPolicy = POLICY) -> list[Finding]:
    return [finding for finding in check(claims, policy) if finding.outcome is Outcome.FAILED]


def test_good_document_passes_every_check() -> None:
    checks = Checks()
    claims = verify(aws.Enclave().item(), aws.NOW, checks, roots=aws.ROOTS)
    assert [(finding.code, finding.outcome) for finding in checks.findings] == [
        ("nitro.endorsements", Outcome.PASSED),
        ("nitro.format", Outcome.PASSED),
        ("nitro.nitrotpm", Outcome.PASSED),
        ("nitro.certificate_format", Outcome.PASSED),
        ("nitro.chain_root", Outcome.PASSED),
        ("nitro.chain", Outcome.PASSED),
        ("nitro.chain_validity", Outcome.PASSED),
        ("nitro.signing_key", Outcome.PASSED),
        ("nitro.signature", Outcome.PASSED),
        ("nitro.module_id", Outcome.PASSED),
    ]
    assert outcomes(claims) == dict.fromkeys(
        ["nitro.pcr0_zero", "nitro.age", *(f"nitro.pcr{index}" for index in JUDGED_PCRS)], Outcome.PASSED
    )


def test_claims_are_what_the_document_says() -> None:
    claims = verified(aws.Enclave(members={"nonce": b"n", "public_key": b"k"}))
    assert claims.bound == bytes(range(64))
    assert claims.pcr(8) == b"\x09" * 48
    assert claims.pcr(31) == b""
    assert claims.age_s == 10
    assert dict(claims.facts()) == {
        "module_id": aws.MODULE_ID,
        "timestamp": "2026-03-01T12:00:00Z",
        "debug mode": "no",
        **{f"PCR{index}": aws.pcr(index).hex() for index in JUDGED_PCRS},
        "user_data": bytes(range(64)).hex(),
        "nonce": "6e",
        "public_key": "6b",
    }


def test_document_without_optional_fields_is_bound_to_nothing() -> None:
    claims = verified(aws.Enclave(members=dict.fromkeys(("user_data", "nonce", "public_key"), ...)))
    assert (claims.bound, claims.nonce, claims.public_key) == (b"", None, None)
    assert dict(claims.facts())["user_data"] == "none"


def test_tagged_and_indefinite_forms_say_the_same() -> None:
    enclave = aws.Enclave()
    plain = parse(enclave.document())
    for other in (enclave.document(tagged=True), enclave.sign(aws.indefinite(enclave.payload()))):
        assert other != enclave.document()
        assert dataclasses.replace(parse(other), envelope=plain.envelope) == plain
        verify(of_bytes(other), aws.NOW, Checks(), roots=aws.ROOTS)


def test_all_32_pcrs_are_read() -> None:
    pcrs = {index: bytes([index]) * 48 for index in reversed(range(32))}
    assert verified(aws.Enclave(members={"pcrs": pcrs})).pcrs == tuple(sorted(pcrs.items()))


def test_the_table_binds_all_64_bytes() -> None:
    assert TEES["nitro"].slot.__name__ == "bound"
    assert TEES["nitro"].verify is verify


# What cannot be read exactly.

GOOD = aws.Enclave()
PAYLOAD = cbor2.dumps(GOOD.payload())
ENVELOPE = [aws.PROTECTED, {}, PAYLOAD, bytes(96)]
MALFORMED: Mapping[str, bytes] = {
    "nothing": b"",
    "one byte more": GOOD.document() + b"\0",
    "one byte less": GOOD.document()[:-1],
    "tagged twice": b"\xd2\xd2" + GOOD.document(),
    "another tag": b"\xd1" + GOOD.document(),
    "too long": bytes(17000),
    "no array": cbor2.dumps({}),
    "three members": cbor2.dumps(ENVELOPE[:3]),
    "array of indefinite length": b"\x9f" + b"".join(cbor2.dumps(one) for one in ENVELOPE) + b"\xff",
    "payload with a longer length than needed": b"\x84"
    + b"".join(cbor2.dumps(one) for one in ENVELOPE[:2])
    + b"\x5a"
    + len(PAYLOAD).to_bytes(4, "big")
    + PAYLOAD
    + cbor2.dumps(bytes(96)),
    "another algorithm": cbor2.dumps([cbor2.dumps({1: -7}), *ENVELOPE[1:]]),
    "protected header as text": cbor2.dumps(["", *ENVELOPE[1:]]),
    "something unprotected": cbor2.dumps([aws.PROTECTED, {4: b""}, *ENVELOPE[2:]]),
    "unprotected header that is an array": cbor2.dumps([aws.PROTECTED, [], *ENVELOPE[2:]]),
    "payload as text": cbor2.dumps([*ENVELOPE[:2], "", bytes(96)]),
    "empty payload": cbor2.dumps([*ENVELOPE[:2], b"", bytes(96)]),
    "payload over the limit": cbor2.dumps([*ENVELOPE[:2], bytes(16385), bytes(96)]),
    "signature of another size": cbor2.dumps([*ENVELOPE[:3], bytes(95)]),
    "deeply nested": b"\x81" * 5000 + b"\0",
    "endless length": b"\x84\x5b" + b"\xff" * 8,
}
BAD_PAYLOADS: Mapping[str, bytes] = {
    "no map": cbor2.dumps([]),
    "a name that is no text": cbor2.dumps({1: 2}),
    "trailing byte": PAYLOAD + b"\0",
    "duplicate name": b"\xa2" + cbor2.dumps("digest") * 0 + (cbor2.dumps("a") + b"\0") * 2,
    "inner map of indefinite length": aws.indefinite({"pcrs": 0}).replace(b"\x00\xff", b"\xbf\xff\xff"),
    "number longer than needed": b"\xa1" + cbor2.dumps("timestamp") + b"\x18\x01",
    "tag inside": cbor2.dumps({**GOOD.payload(), "timestamp": cbor2.CBORTag(1, 5)}),
    "cycle": b"\xa1" + cbor2.dumps("cabundle") + b"\xd8\x1c\x81\xd8\x1d\x00",
    "undefined": b"\xa1" + cbor2.dumps("digest") + b"\xf7",
    "not a number": b"\xa1" + cbor2.dumps("digest") + b"\xf9\x7e\x00",
}
BAD_MEMBERS: tuple[dict[str, Any], ...] = (
    *({name: ...} for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")),
    {"extra": 1},
    {"digest": "SHA256"},
    {"digest": None},
    {"module_id": ""},
    {"module_id": b"i-0"},
    {"module_id": "i" * 256},
    {"timestamp": 0},
    {"timestamp": -1},
    {"timestamp": True},
    {"timestamp": 1.5},
    {"timestamp": 2**64 - 1},
    {"timestamp": 253_402_300_800_000},
    {"pcrs": {}},
    {"pcrs": []},
    {"pcrs": {32: bytes(48)}},
    {"pcrs": {-1: bytes(48)}},
    {"pcrs": {"0": bytes(48)}},
    {"pcrs": {False: bytes(48)}},
    {"pcrs": {0: bytes(32)}},
    {"pcrs": {0: "0" * 48}},
    {"pcrs": {index: bytes(48) for index in range(33)}},
    {"certificate": b""},
    {"certificate": None},
    {"certificate": bytes(1025)},
    {"cabundle": []},
    {"cabundle": [b""]},
    {"cabundle": ["text"]},
    {"cabundle": [bytes(1025)]},
    {"cabundle": [b"x"] * 8},
    {"user_data": bytes(513)},
    {"user_data": "text"},
    {"nonce": bytes(513)},
    {"public_key": b""},
    {"public_key": bytes(1025)},
    {"nitrotpm_pcrs": {0: bytes(48)}},
)


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_other_envelopes_are_malformed(raw: bytes) -> None:
    assert refusal_of(of_bytes(raw), MalformedEvidenceError).finding_code == "nitro.format"


@pytest.mark.parametrize("payload", BAD_PAYLOADS.values(), ids=BAD_PAYLOADS)
def test_other_payloads_are_malformed(payload: bytes) -> None:
    assert refusal_of(of_bytes(GOOD.sign(payload)), MalformedEvidenceError).finding_code == "nitro.format"


@pytest.mark.parametrize("members", BAD_MEMBERS, ids=lambda members: str(members)[:40])
def test_other_members_are_malformed(members: dict[str, Any]) -> None:
    item = aws.Enclave(members=members).item()
    assert refusal_of(item, MalformedEvidenceError).finding_code == "nitro.format"


def test_document_of_nitrotpm_is_refused_by_name() -> None:
    item = aws.Enclave(members={"pcrs": ..., "nitrotpm_pcrs": {4: bytes(48)}}).item()
    refusal = refusal_of(item, MalformedEvidenceError)
    assert refusal.finding_code == "nitro.nitrotpm"
    assert "enclave" in refusal.hint


def test_endorsements_have_no_place() -> None:
    item = dataclasses.replace(GOOD.item(), endorsements=(("root", aws.ROOT.der),))
    assert refusal_of(item, MalformedEvidenceError).finding_code == "nitro.endorsements"


@pytest.mark.parametrize("members", [{"certificate": b"none"}, {"cabundle": [aws.ROOT.der, aws.ROOT.der + b"\0"]}])
def test_certificates_are_der(members: dict[str, Any]) -> None:
    item = aws.Enclave(members=members).item()
    assert refusal_of(item, MalformedEvidenceError).finding_code == "nitro.certificate_format"


@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_and_nothing_worse(raw: bytes) -> None:
    for evidence in (raw, GOOD.sign(raw or b"\0"), b"\x84\x44\xa1\x01\x38\x22\xa0" + raw):
        refusal_of(of_bytes(evidence), MalformedEvidenceError)


CBOR = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=60)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 40), inner, max_size=4)
        | st.builds(cbor2.CBORTag, st.integers(0, 300), inner)
    ),
    max_leaves=12,
)


@given(name=st.sampled_from(sorted(GOOD.payload())), value=CBOR)
def test_arbitrary_values_are_refused_or_read(name: str, value: Any) -> None:
    with contextlib.suppress(MalformedEvidenceError):
        parse(aws.Enclave(members={name: value}).document())


# Who signed.


def test_rejects_root_that_is_not_pinned() -> None:
    with pytest.raises(UnauthenticEvidenceError) as refusal:
        verify(GOOD.item(), aws.NOW, Checks())
    assert refusal.value.finding_code == "nitro.chain_root"


def test_rejects_bundle_that_begins_with_another_root() -> None:
    other = aws.issue("aws.nitro-enclaves", path_length=3, lifetime=timedelta(days=30))
    assert unauthentic(aws.Enclave(bundle=(other, *GOOD.bundle[1:]))) == "nitro.chain_root"


def test_rejects_bundle_in_another_order() -> None:
    assert unauthentic(aws.Enclave(bundle=(aws.ROOT, aws.ZONE, aws.REGION, aws.INSTANCE))) == "nitro.chain"


def test_rejects_issuer_that_is_no_ca() -> None:
    issuer = aws.issue("i-0", aws.ZONE, is_ca=False, usage="key_cert_sign")
    leaf = aws.issue(f"{aws.MODULE_ID}.us-east-1.aws", issuer, is_ca=False)
    assert unauthentic(aws.Enclave(leaf=leaf, bundle=(*GOOD.bundle[:3], issuer))) == "nitro.chain"


def test_rejects_chain_longer_than_an_issuer_allows() -> None:
    issuer = aws.issue("i-0", aws.INSTANCE)
    leaf = aws.issue(f"{aws.MODULE_ID}.us-east-1.aws", issuer, is_ca=False)
    assert unauthentic(aws.Enclave(leaf=leaf, bundle=(*GOOD.bundle, issuer))) == "nitro.chain"


@pytest.mark.parametrize("now", [aws.NOW - 3600, aws.NOW + 3 * 3600])
def test_rejects_chain_that_is_not_valid_now(now: float) -> None:
    assert unauthentic(GOOD, now) == "nitro.chain_validity"


def test_validity_is_judged_now_and_not_at_the_documents_own_time() -> None:
    later = datetime(2026, 3, 2, tzinfo=UTC)
    members = {"timestamp": round(aws.MADE.timestamp() * 1000)}
    assert unauthentic(aws.Enclave(members=members), later.timestamp()) == "nitro.chain_validity"


@pytest.mark.parametrize(
    "leaf",
    [
        aws.issue(f"{aws.MODULE_ID}.x.aws", aws.INSTANCE, is_ca=False, usage=None),
        aws.issue(f"{aws.MODULE_ID}.x.aws", aws.INSTANCE, is_ca=False, usage="key_agreement"),
        aws.issue(f"{aws.MODULE_ID}.x.aws", aws.INSTANCE, is_ca=False, usage="key_cert_sign"),
        aws.issue(f"{aws.MODULE_ID}.x.aws", aws.INSTANCE, is_ca=False, usage="digital_signature key_cert_sign"),
        aws.issue(f"{aws.MODULE_ID}.x.aws", aws.INSTANCE, is_ca=False, certified=RSA_KEY),
        aws.issue(f"{aws.MODULE_ID}.x.aws", aws.INSTANCE, is_ca=False, key=ec.generate_private_key(ec.SECP256R1())),
    ],
    ids=["no usage", "another usage", "a CA's usage", "a CA's usage too", "RSA", "another curve"],
)
def test_rejects_key_that_may_not_sign_documents(leaf: aws.Issued) -> None:
    members = {"certificate": leaf.der}  # the signature is another key's: its size must be right to come that far
    assert unauthentic(aws.Enclave(members=members)) == "nitro.signing_key"


def test_rejects_document_signed_by_another_key() -> None:
    forged = dataclasses.replace(aws.LEAF, key=ec.generate_private_key(ec.SECP384R1()))
    assert unauthentic(aws.Enclave(leaf=forged)) == "nitro.signature"


def test_rejects_changed_payload() -> None:
    changed = GOOD.document().replace(aws.pcr(0), aws.pcr(1))
    assert refusal_of(of_bytes(changed), UnauthenticEvidenceError).finding_code == "nitro.signature"


def test_rejects_signature_of_zeros() -> None:
    zeros = GOOD.document()[:-96] + bytes(96)
    assert refusal_of(of_bytes(zeros), UnauthenticEvidenceError).finding_code == "nitro.signature"


def test_other_kinds_of_keys_signed_nothing() -> None:
    envelope = CoseSign1(payload=b"p", signature=bytes(96))
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())):
        assert not envelope.is_signed_by(key.public_key())


@pytest.mark.parametrize("name", ["", "i-0-enc0.us-east-1.aws", aws.MODULE_ID, f"other+{aws.MODULE_ID}.aws"])
def test_rejects_certificate_of_another_enclave(name: str) -> None:
    assert unauthentic(aws.Enclave(leaf=aws.issue(name, aws.INSTANCE, is_ca=False))) == "nitro.module_id"


def test_no_changed_bit_is_accepted() -> None:
    """One bit of every seventh byte, whatever it means."""
    evidence = GOOD.document()
    for place in range(0, len(evidence), 7):
        changed = evidence[:place] + bytes([evidence[place] ^ 1 << place % 8]) + evidence[place + 1 :]
        with pytest.raises((MalformedEvidenceError, UnauthenticEvidenceError)):
            verify(of_bytes(changed), aws.NOW, Checks(), roots=aws.ROOTS)


# What the policy accepts.


@pytest.mark.parametrize("pcrs", [{index: bytes(48) for index in range(16)}, {4: aws.pcr(4)}])
def test_rejects_debug_mode(pcrs: dict[int, bytes]) -> None:
    claims = verified(aws.Enclave(members={"pcrs": pcrs}))
    assert "nitro.pcr0_zero" in [finding.code for finding in failed(claims)]
    assert dict(claims.facts())["debug mode"] == "yes"


def test_debug_mode_is_seen_in_pcr_0_alone() -> None:
    claims = verified(aws.Enclave(members={"pcrs": {0: bytes(47) + b"x", 1: bytes(48)}}))
    assert "nitro.pcr0_zero" not in [finding.code for finding in failed(claims)]
    assert [name for name, _ in claims.facts() if name.startswith("PCR")] == ["PCR0"]


@pytest.mark.parametrize(("age_s", "holds"), [(-61, False), (-60, True), (300, True), (300.5, False)])
def test_age_is_limited(age_s: float, holds: bool) -> None:  # noqa: FBT001  # the expectation
    claims = dataclasses.replace(verified(GOOD), age_s=age_s)
    assert [finding.code for finding in failed(claims)] == ([] if holds else ["nitro.age"])


@pytest.mark.parametrize("index", JUDGED_PCRS)
def test_rejects_other_pcr(index: int) -> None:
    pcrs = {**GOOD.payload()["pcrs"], index: b"x" * 48}
    (finding,) = failed(verified(aws.Enclave(members={"pcrs": pcrs})))
    assert (finding.code, finding.found) == (f"nitro.pcr{index}", b"x".hex() * 48)
    del pcrs[index]
    assert f"nitro.pcr{index}" in [finding.code for finding in failed(verified(aws.Enclave(members={"pcrs": pcrs})))]


def test_every_check_can_be_left_out_with_a_reason() -> None:
    skip = Skip(reason="a test")
    policy = NitroPolicy(debug=skip, max_age_s=skip, pcrs=tuple((index, skip) for index in JUDGED_PCRS))
    claims = verified(aws.Enclave(members={"pcrs": {0: bytes(48)}}))
    assert set(outcomes(claims, policy).values()) == {Outcome.SKIPPED}


TABLE = "\n".join([*(f'pcr{index} = ["{aws.pcr(index).hex()}"]' for index in JUDGED_PCRS)])


@pytest.mark.parametrize(("preset", "max_age_s"), [("strict", 300), ("cloud-aws", 10800)])
def test_presets_leave_only_reference_values_open(preset: str, max_age_s: int) -> None:
    defaults = preset_table(preset, "nitro")
    assert defaults is not None
    policy = parse_policy(open_policy(TABLE, source="t").with_defaults(defaults))
    assert policy == dataclasses.replace(POLICY, max_age_s=max_age_s)
    with pytest.raises(InvalidPolicyError, match="does not set `pcr0`"):
        parse_policy(open_policy("", source="t").with_defaults(defaults))


def test_policy_names_known_codes_only() -> None:
    text = f'debug = false\nmax_age_s = 1\ntrack = ["nitro.age"]\n{TABLE}'
    assert parse_policy(open_policy(text, source="t")).track == {"nitro.age"}
    with pytest.raises(InvalidPolicyError, match="line 3"):
        parse_policy(open_policy(text.replace("nitro.age", "nitro.chain"), source="t"))


PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "tee" / "nitro.md").read_text("utf-8")


def test_the_page_lists_every_code() -> None:
    checks = Checks()
    claims = verify(GOOD.item(), aws.NOW, checks, roots=aws.ROOTS)
    codes = [finding.code for finding in (*checks.findings, *check(claims, POLICY))]
    assert re.findall(r"^\| `(nitro\.\w+)` \| (?:verify|check) \|", PAGE, re.MULTILINE) == codes


def test_the_pages_example_is_a_policy() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    section = open_policy(example, source="nitro.md").section("tee").section("nitro")
    assert parse_policy(section.with_defaults(preset_table("strict", "nitro") or {})).debug is False
