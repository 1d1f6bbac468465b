"""Keysets: read exactly or not at all, every byte counts in their id, and an operator's word is about one instance."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from channel.sealed_parts import (
    INSTANCE,
    ROUTE,
    WALL_S,
    FakeTime,
    Repeatable,
    flips,
    key_ring,
    private_half,
    runtime_policy,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from blindai.channel.admission import Admission, admit, verify_admission
from blindai.channel.exchange import open_exchange, seal_exchange
from blindai.channel.keyset import MAX_KEYSET_BYTES, Keyset, Software, keyset_id, parse_keyset
from blindai.errors import MalformedEvidenceError, PeerKeyMismatchError, SealedMessageError, WrongOperatorError
from blindai.wire import base64url_encode, compact_json

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATOR = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
ADMISSION = admit(OPERATOR, service="blindai-srv", instance=INSTANCE, not_after=WALL_S + 86_400)
RING = key_ring(FakeTime(), operator=ADMISSION, tls=(b"t" * 32,))
EPOCH = RING.epoch()
FRESH = RING.fresh(b"c" * 32)


def members(keyset: Keyset = EPOCH.keyset) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(keyset.encode())
    return decoded


@pytest.mark.parametrize("held", [EPOCH, FRESH], ids=["epoch", "fresh"])
def test_a_keyset_reads_back_as_it_was_made(held: Any) -> None:
    keyset = parse_keyset(held.encoded)
    assert keyset == held.keyset
    assert keyset.encode() == held.encoded


_lines = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=30)
_digests = st.binary(min_size=32, max_size=32)
_engines = st.dictionaries(_lines, _lines, max_size=4).map(lambda engines: tuple(sorted(engines.items())))


keysets = st.builds(
    replace,
    st.sampled_from([EPOCH.keyset, replace(FRESH.keyset, operator=None)]),
    service=_lines,
    instance=_digests,
    not_after=st.integers(WALL_S + 1, WALL_S + 900),
    receipt_public_key=_digests,
    hpke_public_key=st.binary(min_size=1216, max_size=1216),
    simulated=st.booleans(),
    software=st.builds(Software, name=_lines, version=_lines, engines=_engines),
    runtime=st.builds(replace, st.just(runtime_policy()), telemetry=st.booleans(), configuration=_digests),
)


@given(keysets)
def test_round_trip(keyset: Keyset) -> None:
    assert parse_keyset(keyset.encode()) == keyset


def test_the_id_is_the_specified_hash() -> None:
    encoded = EPOCH.encoded
    specified = b"blindai/1 keyset\0" + len(encoded).to_bytes(4, "big") + encoded
    assert EPOCH.keyset_id == keyset_id(encoded) == hashlib.sha256(specified).digest()


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_malformed_evidence(data: bytes) -> None:
    with pytest.raises(MalformedEvidenceError):
        parse_keyset(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(members())), _json)
def test_any_replaced_member_reads_back_or_raises_malformed_evidence(name: str, value: Any) -> None:
    data = compact_json({**members(), name: value})
    try:
        keyset = parse_keyset(data)
    except MalformedEvidenceError:
        return
    assert keyset.encode() == data


def test_every_flipped_byte_fails_to_parse_or_ends_in_a_request_that_does_not_open(
    tell: Callable[[str], None],
) -> None:
    unparsed = unopened = 0
    for changed in flips(FRESH.encoded):
        assert keyset_id(changed) != FRESH.keyset_id
        try:
            keyset = parse_keyset(changed)
        except MalformedEvidenceError:
            unparsed += 1
            continue
        assert not opens(keyset, changed)
        unopened += 1
    assert opens(FRESH.keyset, FRESH.encoded)
    assert min(unparsed, unopened) > 0
    assert unparsed + unopened == 2 * len(FRESH.encoded)
    tell(f"keyset: {len(FRESH.encoded)} bytes, {unparsed} flips not parsed, {unopened} requests not opened")


def opens(keyset: Keyset, encoded: bytes) -> bool:
    """Whether the server opens what a client seals who believes `encoded`."""
    try:
        sealed = seal_exchange(
            public_key=keyset.hpke_public_key, keyset_id=keyset_id(encoded), route=ROUTE, random=Repeatable("flip")
        )
        open_exchange(sealed.header, keys=private_half(FRESH), keyset_id=FRESH.keyset_id, route=ROUTE)
    except (PeerKeyMismatchError, SealedMessageError):
        return False
    return True


@pytest.mark.parametrize("missing", sorted(members()))
def test_a_missing_member_is_refused(missing: str) -> None:
    rest = {name: value for name, value in members().items() if name != missing}
    with pytest.raises(MalformedEvidenceError, match="lacks"):
        parse_keyset(compact_json(rest))


HPKE = members()["hpke"][0]
RECEIPT = members()["receipt"]
RUNTIME = members()["runtime"]
SOFTWARE = members()["software"]
BEGIN = members()["not_before"]


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"version": 2},
        {"version": True},
        {"version": "1"},
        {"service": ""},
        {"service": "a\nb"},
        {"operator": {}},
        {"operator": {**members()["operator"], "name": "x"}},
        {"operator": {**members()["operator"], "signature": "AA"}},
        {"instance": base64url_encode(bytes(31))},
        {"kind": "eternal"},
        {"kind": None},
        {"kind": "fresh"},  # without a challenge
        {"challenge": base64url_encode(bytes(32))},  # of an epoch keyset
        {"not_after": BEGIN},
        {"not_after": BEGIN - 1},
        {"not_after": BEGIN + 24 * 3600 + 1},
        {"not_before": -1},
        {"not_after": 2**53},
        {"hpke": []},
        {"hpke": [HPKE, HPKE]},
        {"hpke": HPKE},
        {"hpke": [{**HPKE, "kem": 32}]},
        {"hpke": [{**HPKE, "aead": 2}]},
        {"hpke": [{**HPKE, "public_key": base64url_encode(bytes(1215))}]},
        {"tls": None},
        {"tls": ["AA"]},
        {"tls": [base64url_encode(bytes(32))] * 65},
        {"receipt": {**RECEIPT, "alg": "HS256"}},
        {"receipt": {**RECEIPT, "alg": "EdDSA"}},
        {"receipt": {**RECEIPT, "kid": ""}},
        {"receipt": {**RECEIPT, "public_key": base64url_encode(bytes(33))}},
        {"runtime": {**RUNTIME, "debug": True}},
        {"runtime": {**RUNTIME, "telemetry": 0}},
        {"runtime": {**RUNTIME, "limits": {**RUNTIME["limits"], "max_models": -1}}},
        {"runtime": {name: value for name, value in RUNTIME.items() if name != "isolation"}},
        {"software": {**SOFTWARE, "engines": []}},
        {"software": {**SOFTWARE, "engines": {"a": ""}}},
        {"simulated": None},
        {"simulated": 1},
    ],
)
def test_a_keyset_that_says_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvidenceError):
        parse_keyset(compact_json({**members(), **changes}))


def test_a_fresh_keyset_lives_15_minutes_at_most_and_names_no_tls_key() -> None:
    fresh = members(FRESH.keyset)
    assert fresh["not_after"] - fresh["not_before"] == 900
    assert fresh["tls"] == []
    for changes in ({"not_after": fresh["not_before"] + 901}, {"tls": [base64url_encode(bytes(32))]}):
        with pytest.raises(MalformedEvidenceError):
            parse_keyset(compact_json({**fresh, **changes}))


def test_duplicate_names_are_refused_at_every_depth() -> None:
    for once, twice in (
        (b'{"challenge"', b'{"simulated":true,"challenge"'),
        (b'"kem":25722', b'"kem":25722,"kem":25722'),
        (b'"max_models":16', b'"max_models":16,"max_models":16'),
        (b'"alg":"Ed25519"', b'"alg":"Ed25519","alg":"Ed25519"'),
    ):
        assert EPOCH.encoded.count(once) == 1
        with pytest.raises(MalformedEvidenceError, match="twice"):
            parse_keyset(EPOCH.encoded.replace(once, twice))


def test_a_keyset_has_at_most_16_kib_on_both_ends() -> None:
    padded = EPOCH.encoded + b" " * (MAX_KEYSET_BYTES - len(EPOCH.encoded))
    assert parse_keyset(padded) == EPOCH.keyset
    assert keyset_id(padded) != EPOCH.keyset_id  # hashed as transmitted
    with pytest.raises(MalformedEvidenceError):
        parse_keyset(padded + b" ")
    too_long = replace(EPOCH.keyset, runtime=replace(runtime_policy(), models=("x" * 256,) * 64))
    with pytest.raises(ValueError, match="at most 16384"):
        too_long.encode()


def test_the_runtime_digest_changes_with_every_member() -> None:
    policy = runtime_policy()
    changed = [
        replace(policy, log_level="debug"),
        replace(policy, telemetry=True),
        replace(policy, isolation="thread"),
        replace(policy, batching=True),
        replace(policy, authentication="tokens"),
        replace(policy, sealing="other"),
        replace(policy, upload_allowed=False),
        replace(policy, require_sealed=False),
        replace(policy, models=()),
        replace(policy, limits=replace(policy.limits, max_models=1)),
        replace(policy, configuration=b"c" * 32),
    ]
    assert len({one.digest for one in (policy, *changed)}) == 1 + len(changed)


# The operator's admission


def verify(admission: Admission | None = ADMISSION, **changes: Any) -> bytes:
    about: dict[str, Any] = {"service": "blindai-srv", "instance": INSTANCE, "now": float(WALL_S)}
    return verify_admission(admission, **{**about, **changes})


def test_an_admission_of_this_instance_names_its_operator() -> None:
    assert verify() == OPERATOR.public_key().public_bytes_raw()
    carried = parse_keyset(EPOCH.encoded).operator
    assert verify(carried) == OPERATOR.public_key().public_bytes_raw()


@pytest.mark.parametrize(
    "changes",
    [
        {"instance": bytes(32)},
        {"service": "other-srv"},
        {"attestation_key_name": b"an AK"},
        {"service": "blindai-srv" + "\0"},
    ],
)
def test_an_admission_of_another_instance_service_or_key_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WrongOperatorError, match="not about this instance"):
        verify(**changes)


def test_an_admission_ends() -> None:
    verify(now=ADMISSION.not_after - 0.001)
    with pytest.raises(WrongOperatorError, match="ended"):
        verify(now=float(ADMISSION.not_after))


def test_an_admission_cannot_be_prolonged_or_taken_over() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"p" * 32).public_key().public_bytes_raw()
    for admission in (
        replace(ADMISSION, not_after=ADMISSION.not_after + 1),
        replace(ADMISSION, public_key=other),
        replace(ADMISSION, public_key=bytes(31)),
        replace(ADMISSION, signature=bytes(64)),
        replace(ADMISSION, signature=b""),
    ):
        with pytest.raises(WrongOperatorError, match="not about this instance"):
            verify(admission)


def test_an_absent_admission_is_refused_with_a_way_out() -> None:
    with pytest.raises(WrongOperatorError, match="no operator") as caught:
        verify(None)
    assert "skip" in caught.value.hint


def test_an_admission_may_name_the_attestation_key() -> None:
    named = admit(OPERATOR, service="s", instance=INSTANCE, not_after=WALL_S + 1, attestation_key_name=b"AK")
    verify(named, service="s", attestation_key_name=b"AK")
    with pytest.raises(WrongOperatorError):
        verify(named, service="s")


def test_an_admission_signs_the_specified_bytes() -> None:
    service, end = b"blindai-srv", (WALL_S + 86_400).to_bytes(8, "big")
    message = b"blindai/1 admission\0" + b"\0\0\0\x0b" + service + b"\0\0\0\x20" + INSTANCE + b"\0\0\0\0" + end
    OPERATOR.public_key().verify(ADMISSION.signature, message)
