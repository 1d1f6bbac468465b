"""A TD's event log: read exactly, replayed to the quote or refused, and each of its events accepted by its digest."""

from __future__ import annotations

import hashlib

import pytest
from attestation.intel_cases import failures, findings, policy_of, refusal, verify
from fakes.intel import FakeEvidence, ccel, ccel_event
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.evidence import Outcome
from blindai.attestation.intel.ccel import MAX_EVENTS, MAX_LOG_BYTES, judge_events, judge_replay, parse_ccel, replay
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError

LOADER, KERNEL, OPTIONS = (bytes([number]) * 48 for number in (0xA1, 0xA2, 0xA3))
TABLES = b"\xa0" * 48
EVENTS = (
    ccel_event(1, TABLES),
    ccel_event(2, LOADER),
    ccel_event(3, KERNEL),
    ccel_event(3, OPTIONS, data=b""),
    ccel_event(0, b"m" * 48),
    ccel_event(3, b"n" * 48, kind=3),
)
LOG = ccel(*EVENTS)


def extended(*digests: bytes) -> bytes:
    value = bytes(48)
    for digest in digests:
        value = hashlib.sha384(value + digest).digest()
    return value


BODY = {
    "rt_mr0": extended(TABLES),
    "rt_mr1": extended(LOADER),
    "rt_mr2": extended(KERNEL, OPTIONS),
    "rt_mr3": bytes(48),
}
BOOTED = FakeEvidence(body=BODY, endorsements={"ccel": LOG})


def policy_text(*accepted: bytes) -> str:
    skipped = "".join(f'{name} = {{ skip = "events" }}\n' for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"))
    return f"{skipped}measured_events = {[digest.hex() for digest in accepted]}"


ALL = policy_of("tdx", policy_text(LOADER, KERNEL, OPTIONS))


@pytest.mark.parametrize("fill", [b"", b"\xff", bytes(5), b"\xff" * 1000, bytes(1000)])
def test_a_log_replays_to_its_registers(fill: bytes) -> None:
    events = parse_ccel(ccel(*EVENTS, fill=fill), tee="tdx")
    assert [(event.register, event.digest) for event in events] == [
        (0, TABLES),
        (1, LOADER),
        (2, KERNEL),
        (2, OPTIONS),
    ]
    assert replay(events) == {0: BODY["rt_mr0"], 1: BODY["rt_mr1"], 2: BODY["rt_mr2"]}


def test_a_log_as_long_as_its_area_is_read_and_its_last_event_may_have_no_data() -> None:
    longest = ccel(fill=bytes(MAX_LOG_BYTES - HEAD))
    assert len(longest) == MAX_LOG_BYTES
    assert parse_ccel(longest, tee="tdx") == ()
    bare = parse_ccel(ccel(ccel_event(4, OPTIONS, data=b""), fill=b""), tee="tdx")
    assert [(event.register, event.digest) for event in bare] == [(3, OPTIONS)]


def test_a_log_that_replays_is_told() -> None:
    claims, made = verify(BOOTED.item())
    assert [finding.code for finding in made][-2:] == ["tdx.ccel_format", "tdx.ccel"]
    assert ("event log", "4 events that replay") in claims.facts()
    assert failures(BOOTED, ALL) == set()


@pytest.mark.parametrize("name", ["rt_mr0", "rt_mr1", "rt_mr2"])
def test_a_log_of_another_boot_is_refused(name: str) -> None:
    other = FakeEvidence(body={**BODY, name: bytes(48)}, endorsements={"ccel": LOG})
    refusal(other.item(), "ccel", UnauthenticEvidenceError)


def test_registers_are_told_in_their_order() -> None:
    events = parse_ccel(ccel(*reversed(EVENTS[:3])), tee="tdx")
    registers = [BODY["rt_mr0"], BODY["rt_mr1"], extended(KERNEL), bytes(48)]
    assert judge_replay(events, registers, tee="tdx").found == "3 events that lead to RTMR0, RTMR1, RTMR2"
    others = judge_replay(events, [bytes(48)] * 4, tee="tdx")
    assert (others.outcome, others.found) == (Outcome.FAILED, "other values of RTMR0, RTMR1, RTMR2")


def test_the_firmwares_register_needs_no_log_and_any_other_that_is_not_zero_does() -> None:
    nothing, one_bit = bytes(48), bytes(47) + b"\1"
    for registers, found in (
        ([one_bit, nothing, nothing, nothing], "0 events"),
        ([nothing, nothing, nothing, one_bit], "RTMR3 without a log"),
        ([nothing, one_bit, nothing, nothing], "RTMR1 without a log"),
    ):
        assert judge_events((), (), registers, tee="tdx").found == found


@pytest.mark.parametrize("missing", range(3))
def test_every_event_after_the_firmware_must_be_accepted(missing: int) -> None:
    accepted = [LOADER, KERNEL, OPTIONS]
    left_out = accepted.pop(missing)
    made = findings(BOOTED, policy_of("tdx", policy_text(*accepted)))["measured_events"]
    assert made.outcome is Outcome.FAILED
    assert left_out.hex() in made.found


def test_what_is_measured_without_a_log_is_refused() -> None:
    later = FakeEvidence(body={**BODY, "rt_mr3": b"x" * 48}, endorsements={"ccel": LOG})
    assert findings(later, ALL)["measured_events"].found == "RTMR3 without a log"
    assert failures(FakeEvidence(body=BODY), ALL) == {"measured_events"}
    nothing = dict.fromkeys(("rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3"), bytes(48))
    none = findings(FakeEvidence(body=nothing), ALL)["measured_events"]
    assert (none.outcome, none.found) == (Outcome.FAILED, "no event log")
    empty = FakeEvidence(body=nothing, endorsements={"ccel": ccel()})
    assert failures(empty, ALL) == set()
    assert "no register" in verify(empty.item())[1][-1].found


HEAD = len(ccel(fill=b""))
LOGS = {
    "nothing": b"",
    "a header that ends early": LOG[: HEAD - 1],
    "another kind of header": LOG[:4] + b"\4" + LOG[5:],
    "a header with a digest": LOG[:8] + b"\1" + LOG[9:],
    "a header with a digest's last byte": LOG[:27] + b"\1" + LOG[28:],
    "a header of another size": LOG[:28] + b"\x22" + LOG[29:],
    "another signature": LOG[:32] + b"X" + LOG[33:],
    "another version": ccel(spec=b"\0\0\0\0\0\1\0\2\1\0\0\0\x0c\0\x30\0\0"),
    "another algorithm": ccel(spec=b"\0\0\0\0\0\2\0\2\1\0\0\0\x0b\0\x20\0\0"),
    "vendor information": ccel(spec=b"\0\0\0\0\0\2\0\2\1\0\0\0\x0c\0\x30\0\1"),
    "an event that ends early": ccel(*EVENTS, fill=b"")[:-1],
    "half an event": ccel(EVENTS[0][:20], fill=b""),
    "a register that is none": ccel(ccel_event(5, KERNEL)),
    "a register with a high byte": ccel(EVENTS[0][:3] + b"\1" + EVENTS[0][4:]),
    "a digest of an algorithm with a high byte": ccel(EVENTS[0][:13] + b"\1" + EVENTS[0][14:]),
    "two digests": ccel(EVENTS[0][:8] + b"\2" + EVENTS[0][9:]),
    "a digest of another algorithm": ccel(EVENTS[0][:12] + b"\x0b" + EVENTS[0][13:]),
    "a fill of both": ccel(*EVENTS, fill=b"\xff" * 20 + b"\0"),
    "a fill of something else": ccel(*EVENTS, fill=b"\1" * 20),
    "too many events": ccel(*[EVENTS[0]] * (MAX_EVENTS + 1)),
    "too many bytes": ccel(fill=bytes(MAX_LOG_BYTES)),
}


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS.keys())
def test_other_logs_are_malformed(log: bytes) -> None:
    refusal(FakeEvidence(body=BODY, endorsements={"ccel": log}).item(), "ccel_format", MalformedEvidenceError)


@given(log=st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: ccel(data, fill=b"")))
def test_arbitrary_logs_are_malformed_and_nothing_worse(log: bytes) -> None:
    try:
        assert parse_ccel(log, tee="tdx") is not None
    except MalformedEvidenceError:
        return
    assert log.startswith(ccel(fill=b""))


def test_sgx_has_no_such_log() -> None:
    sgx = FakeEvidence(tee="sgx", version=3, endorsements={"ccel": LOG})
    refusal(sgx.item(), "endorsements", MalformedEvidenceError)
