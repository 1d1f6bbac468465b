"""Event logs are parsed exactly and replayed, in every bank."""

from __future__ import annotations

import pytest
from fakes.tpm_boot import ACTION, ALGORITHMS, IPL, FakeBoot, digest, firmware, grub, sized, spec_id
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.tpm2.event_log import (
    EV_NO_ACTION,
    MAX_EVENTS,
    MAX_LOG_BYTES,
    Event,
    EventLog,
    parse_event_log,
    replay,
    told,
)
from blindai.errors import MalformedEvidenceError


def parsed(raw: bytes) -> EventLog:
    return parse_event_log(raw, tee="tpm")


def refuse(raw: bytes) -> str:
    with pytest.raises(MalformedEvidenceError) as refusal:
        parsed(raw)
    assert (refusal.value.finding_code, refusal.value.tee) == ("tpm.event_log_format", "tpm")
    return str(refusal.value)


def test_a_log_has_every_event_in_order() -> None:
    boot = FakeBoot().record(0, b"SP800-155 Event3").extend(4, ACTION, b"boot").extend(8, IPL, b"", measured=b"text")
    log = parsed(boot.log())
    assert log.banks == ("sha1", "sha256", "sha384")
    assert [(event.pcr, event.kind, event.data) for event in log.events] == [
        (0, EV_NO_ACTION, b"SP800-155 Event3"),
        (4, ACTION, b"boot"),
        (8, IPL, b""),
    ]
    assert log.events[2].says("sha384", b"text")
    assert not log.events[2].says("sha384", b"")


@pytest.mark.parametrize("banks", [("sha1",), ("sha256",), ("sha1", "sha256", "sha384", "sha512")])
def test_a_log_replays_to_the_pcrs_in_every_bank(banks: tuple[str, ...]) -> None:
    boot = grub(firmware(FakeBoot(banks=banks)))
    log = parsed(boot.log())
    for bank in banks:
        assert replay(log, bank) == {pcr: boot.value(bank, pcr) for pcr in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)}


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_the_startup_locality_is_where_pcr_0_begins(locality: int) -> None:
    boot = FakeBoot(locality=locality).record(0, b"StartupLocality\0" + bytes([locality])).extend(0, ACTION, b"first")
    boot.extend(1, ACTION, b"first")
    log = parsed(boot.log())
    assert log.startup_locality == locality
    start = bytes(31) + bytes([locality])
    assert replay(log, "sha256") == {
        0: digest(start + digest(b"first")),
        1: digest(bytes(32) + digest(b"first")),
    }


def test_a_locality_counts_only_unextended() -> None:
    boot = FakeBoot().extend(0, ACTION, b"StartupLocality\0\x03")
    assert parsed(boot.log()).startup_locality == 0


def test_pcrs_are_told_in_their_order() -> None:
    boot = FakeBoot().extend(8, ACTION, b"x").extend(1, ACTION, b"x")
    assert list(replay(parsed(boot.log()), "sha256")) == [1, 8]


def test_silence_about_a_pcr_means_something_only_while_it_is_all_zeros() -> None:
    log = parsed(FakeBoot().extend(4, ACTION, b"x").log())
    assert told(log, {4: bytes(32), 5: bytes(32), 6: bytes(31) + b"\1", 7: b"\1" + bytes(31)}) == (4, 5)


def test_a_log_of_nothing_leads_nowhere() -> None:
    assert replay(parsed(FakeBoot().log()), "sha256") == {}


@pytest.mark.parametrize(
    "boot",
    [
        FakeBoot().record(1, b"StartupLocality\0\x03"),
        FakeBoot().record(0, b"StartupLocality\0"),
        FakeBoot().record(0, b"StartupLocality\0\x03\x03"),
        FakeBoot().record(0, b"StartupLocality\0\x01"),
        FakeBoot().record(0, b"StartupLocality\0\x03").record(0, b"StartupLocality\0\x03"),
    ],
)
def test_a_locality_that_is_none_is_refused(boot: FakeBoot) -> None:
    assert "startup locality" in refuse(boot.log())


def test_the_vendors_information_is_passed_over() -> None:
    assert parsed(FakeBoot(header=spec_id(("sha256",), vendor=b"vendor")).log()).banks == ("sha256",)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"", "has 16 bytes, 0 are left"),
        (b"Spec ID Event02\0" + bytes(20), "does not begin with the header"),
        (spec_id(("sha256",), version=b"\x02\x01"), "its version is not 2.0"),
        (spec_id(()), "it has 0 banks"),
        (spec_id(("sha256",) * 9), "it has 9 banks"),
        (spec_id(("sha256", "sha256")), "or twice"),
        (spec_id(("sha256",), sizes={"sha256": 20}), "sha256 with 20 bytes"),
        (spec_id(("sha256",)) + b"\0", "1 bytes follow the header"),
        (spec_id(("sha256",))[:-1], "the vendor's information"),
        (spec_id(("sha256",)).replace(b"\x0b\x00\x20", b"\x12\x00\x20"), "algorithm 0x0012 is no digest"),
        (spec_id(("sha256",), vendor=bytes(250)), "at most 256"),
    ],
)
def test_a_header_that_is_none_is_refused(header: bytes, found: str) -> None:
    assert found in refuse(FakeBoot(header=header).log())


def test_a_header_event_of_another_pcr_type_or_digest_is_refused() -> None:
    raw = FakeBoot().log()
    for offset in (0, 4, 8):
        changed = bytearray(raw)
        changed[offset] ^= 1
        assert "does not begin with the header" in refuse(bytes(changed))


def test_the_older_form_with_sha_1_alone_is_refused() -> None:
    event = (4).to_bytes(4, "little") + ACTION.to_bytes(4, "little") + bytes(20) + sized(b"boot")
    assert "does not begin with the header" in refuse(event * 20)


@pytest.mark.parametrize("pcr", [17, 22, 24, 2**32 - 1])
def test_an_event_of_a_pcr_that_firmware_does_not_have_is_refused(pcr: int) -> None:
    digests = {bank: bytes(ALGORITHMS[bank][1]) for bank in FakeBoot().banks}
    boot = FakeBoot(events=[FakeBoot.event(pcr, ACTION, digests, b"")])
    assert f"an event names PCR {pcr}" in refuse(boot.log())


def test_an_event_without_one_digest_for_each_bank_is_refused() -> None:
    sha256, sha384 = {"sha256": bytes(32)}, {"sha256": bytes(32), "sha384": bytes(48)}
    for digests, found in ((sha256, "not one digest for each bank"), ({**sha256, "sha512": bytes(64)}, "undeclared")):
        boot = FakeBoot(banks=("sha256", "sha384"), events=[FakeBoot.event(0, ACTION, digests, b"")])
        assert found in refuse(boot.log())
    doubled = FakeBoot.event(0, ACTION, sha384, b"").replace(b"\x0c\x00" + bytes(48), b"\x0b\x00" + bytes(48))
    assert "undeclared or twice" in refuse(FakeBoot(banks=("sha256", "sha384"), events=[doubled]).log())


def test_digests_may_stand_in_another_order_than_declared() -> None:
    event = FakeBoot.event(0, ACTION, {"sha384": digest(b"x", "sha384"), "sha256": digest(b"x")}, b"x")
    log = parsed(FakeBoot(banks=("sha256", "sha384"), events=[event]).log())
    assert log.events[0].says("sha256", b"x")
    assert log.events[0].says("sha384", b"x")


def test_a_cut_or_longer_log_is_refused() -> None:
    raw = FakeBoot().extend(0, ACTION, b"boot").log()
    for wrong in (b"", raw[:-1], raw + b"\0"):
        refuse(wrong)


def test_a_header_has_at_most_256_bytes() -> None:
    room = 256 - len(spec_id(("sha256",)))
    assert parsed(FakeBoot(header=spec_id(("sha256",), vendor=bytes(room))).log()).banks == ("sha256",)
    assert "at most 256" in refuse(FakeBoot(header=spec_id(("sha256",), vendor=bytes(room + 1))).log())


def test_a_log_larger_than_accepted_is_refused() -> None:
    assert "at most" in refuse(bytes(MAX_LOG_BYTES + 1))
    room = MAX_LOG_BYTES - len(FakeBoot().extend(0, ACTION, b"").log())
    assert len(parsed(FakeBoot().extend(0, ACTION, bytes(room)).log()).events) == 1
    assert "at most" in refuse(FakeBoot().extend(0, ACTION, bytes(room + 1)).log())
    boot = FakeBoot(banks=("sha1",))
    boot.events = boot.extend(0, ACTION, b"").events * MAX_EVENTS
    assert len(parsed(boot.log()).events) == MAX_EVENTS
    boot.events.append(boot.events[0])
    assert f"more than {MAX_EVENTS} events" in refuse(boot.log())


@given(st.binary(max_size=200))
def test_no_bytes_get_out_but_as_a_log_or_a_refusal(data: bytes) -> None:
    prefix = FakeBoot(banks=("sha256",)).log()
    for raw in (data, prefix + data):
        try:
            log = parsed(raw)
        except MalformedEvidenceError:
            continue
        assert all(isinstance(event, Event) for event in log.events)
