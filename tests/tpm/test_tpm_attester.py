"""Evidence of a real TPM (swtpm): it verifies, is about the binding, and says what was measured."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from blindai.attestation.binding import report_data_32
from blindai.attestation.checks import Checks
from blindai.attestation.tee import tpm as verifier
from blindai.attestation.tpm2.event_log import MAX_LOG_BYTES
from blindai.attester.tpm import TpmAttester
from blindai.attester.tpm2.device import TpmRefusedError
from blindai.errors import AttesterError, RejectedEvidenceError

if TYPE_CHECKING:
    from pathlib import Path

    from tpm.software_tpm import SoftwareTpm

    from blindai.attestation.evidence import EvidenceItem

pytestmark = pytest.mark.swtpm
BOUND = bytes(range(64))


def attest(tpm: SoftwareTpm, folder: Path) -> EvidenceItem:
    return TpmAttester(tpm, folder / "no-log").attest(BOUND)


def test_a_quote_verifies_and_carries_the_binding(tpm: SoftwareTpm, tmp_path: Path) -> None:
    tpm.extend(11, b"k" * 32)
    claims = verifier.verify(attest(tpm, tmp_path), 0.0, Checks())
    assert claims.bound == report_data_32(BOUND)
    assert claims.pcrs[11] == hashlib.sha256(bytes(32) + b"k" * 32).digest()
    assert sorted(claims.pcrs) == list(range(24))
    assert (claims.hierarchy, claims.ak_root, claims.boot) == ("endorsement", "", None)


def test_the_attestation_key_is_the_same_after_power_off(tpm: SoftwareTpm, tmp_path: Path) -> None:
    first = verifier.verify(attest(tpm, tmp_path), 0.0, Checks())
    tpm.stop()
    tpm.start()
    second = verifier.verify(attest(tpm, tmp_path), 0.0, Checks())
    assert first.ak_name == second.ak_name
    assert second.quote.reset_count > first.quote.reset_count


def test_a_changed_byte_of_the_evidence_is_refused(tpm: SoftwareTpm, tmp_path: Path) -> None:
    item = attest(tpm, tmp_path)
    for at in range(0, len(item.evidence), 7):
        changed = item.evidence[:at] + bytes([item.evidence[at] ^ 1]) + item.evidence[at + 1 :]
        with pytest.raises(RejectedEvidenceError):
            verifier.verify(type(item)(tee=item.tee, evidence=changed, endorsements=()), 0.0, Checks())


def test_pcrs_that_change_all_the_time_are_not_quoted(tpm: SoftwareTpm, tmp_path: Path) -> None:
    def send(command: bytes) -> bytes:
        if command[6:10] == bytes.fromhex("0000017e"):  # before each reading something is measured
            tpm.extend(16, bytes(32))
        return tpm(command)

    with pytest.raises(AttesterError, match="change faster"):
        TpmAttester(send, tmp_path / "no-log").attest(BOUND)


def test_nothing_is_left_in_the_tpm(tpm: SoftwareTpm, tmp_path: Path) -> None:
    for _ in range(10):
        attest(tpm, tmp_path)


def test_a_command_that_the_tpm_has_not_begun_is_sent_again(tpm: SoftwareTpm, tmp_path: Path) -> None:
    sent: list[bytes] = []

    def busy_at_first(command: bytes) -> bytes:
        sent.append(command)
        return bytes.fromhex("80010000000a00000922") if sent.count(command) == 1 else tpm(command)

    assert TpmAttester(busy_at_first, tmp_path / "no-log").attest(BOUND).evidence
    with pytest.raises(TpmRefusedError, match="0x922"):
        TpmAttester(lambda _: bytes.fromhex("80010000000a00000922"), tmp_path / "no-log").attest(BOUND)


def test_a_tpm_of_before_is_named() -> None:
    """As one answers TPM2_CreatePrimary: TPM_BADTAG."""
    with pytest.raises(AttesterError, match=r"this is a TPM 1\.2"):
        TpmAttester(lambda _: bytes.fromhex("00c40000000a0000001e")).attest(BOUND)


def test_an_event_log_that_cannot_be_read_whole_is_an_error_and_not_left_out(tpm: SoftwareTpm, tmp_path: Path) -> None:
    """Linux shows it to root alone: a server of another user would send quotes that nothing explains."""
    log = tmp_path / "log"
    log.write_bytes(bytes(MAX_LOG_BYTES + 1))
    with pytest.raises(AttesterError, match="more than the 524288 bytes"):
        TpmAttester(tpm, log).attest(BOUND)
    log.unlink()
    log.mkdir()  # what root cannot read either
    with pytest.raises(AttesterError, match=r"event log cannot be read: .*: Is a directory"):
        TpmAttester(tpm, log).attest(BOUND)
