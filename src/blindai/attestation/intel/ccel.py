"""A TD's event log: parsed exactly, and replayed to the runtime measurement registers that the quote has.

Source: UEFI 2.10 §38 (confidential computing event log, ACPI table CCEL); the form is the TCG's crypto-agile log.
The log is written by what it describes and is signed by nobody: an event counts once the log replays to the quote.
Leaves out: events' own words about themselves, which nothing proves: only their digests are judged.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.policy_file import Skip
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Finding

MAX_LOG_BYTES = 512 << 10
MAX_EVENTS = 4096
DIGEST_BYTES = 48
REGISTERS = 4
# TCG_PCR_EVENT with TCG_EfiSpecIDEvent: register, EV_NO_ACTION, 20 zeros, its size, then platform class 0, version
# 2.0, erratum and size of UINTN, one algorithm (0x000c, SHA-384, 48 bytes) and no vendor information.
_SIGNATURE = b"Spec ID Event03\0"
_HEAD_BYTES = 4 + 4 + 20 + 4
_SPEC_BYTES = 33
_SHA384 = 0x000C
_EV_NO_ACTION = 3
_EVENT_HEAD_BYTES = 4 + 4 + 4 + 2 + DIGEST_BYTES + 4
_FILLS = (b"\0", b"\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredEvent:
    """A digest that was extended into RTMR `register`, 0 to 3."""

    register: int
    kind: int
    digest: bytes


def parse_ccel(raw: bytes, *, tee: str) -> tuple[MeasuredEvent, ...]:
    """Read the log's whole area of at most 512 KiB, the unused end of which holds only zeros or only 0xff.

    Events that are recorded and not extended are left out, and so are those of MRTD, which the TDX module measures.

    Raises:
        MalformedEvidenceError: anything else.
    """
    try:
        return tuple(_events(raw, _read_header(raw)))
    except ValueError as error:
        raise MalformedEvidenceError(
            f"expected a CCEL event log, found {error}", finding_code=f"{tee}.ccel_format", tee=tee
        ) from None


def _read_header(raw: bytes) -> int:
    """Where the events begin."""
    spec = raw[_HEAD_BYTES : _HEAD_BYTES + _SPEC_BYTES]
    if len(raw) > MAX_LOG_BYTES:
        raise ValueError(f"{len(raw)} bytes")
    if _number(raw, 4) != _EV_NO_ACTION or any(raw[8:28]) or _number(raw, 28) != _SPEC_BYTES:
        raise ValueError("no header of a crypto-agile log")
    algorithms = (1).to_bytes(4, "little") + _SHA384.to_bytes(2, "little") + DIGEST_BYTES.to_bytes(2, "little") + b"\0"
    if spec[:16] != _SIGNATURE or spec[20:22] != b"\0\2" or spec[24:] != algorithms:
        raise ValueError("a log of another version, or of other digests than SHA-384 alone")
    return _HEAD_BYTES + _SPEC_BYTES


def _events(raw: bytes, begin: int) -> Iterator[MeasuredEvent]:
    at = begin
    for _ in range(MAX_EVENTS):
        if _is_unused(raw, at):
            return
        register, kind, digests = (_number(raw, at + offset) for offset in (0, 4, 8))
        if register > REGISTERS or digests != 1 or int.from_bytes(raw[at + 12 : at + 14], "little") != _SHA384:
            raise ValueError(f"an event of register {register} with {digests} digests")
        digest = raw[at + 14 : at + 14 + DIGEST_BYTES]
        at += _EVENT_HEAD_BYTES + _number(raw, at + _EVENT_HEAD_BYTES - 4)
        if at > len(raw):
            raise ValueError("an event that ends early")
        if kind != _EV_NO_ACTION and register > 0:
            yield MeasuredEvent(register=register - 1, kind=kind, digest=digest)
    raise ValueError(f"more than {MAX_EVENTS} events")


def _is_unused(raw: bytes, at: int) -> bool:
    """Nothing follows, or only fill, which no event begins with: each has one digest."""
    return any(not raw[at : at + 16].strip(fill) and not raw[at:].strip(fill) for fill in _FILLS)


def _number(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


def replay(events: Sequence[MeasuredEvent]) -> dict[int, bytes]:
    """The values of the registers that the events extend, each beginning with zeros."""
    values: dict[int, bytes] = {}
    for event in events:
        before = values.get(event.register, bytes(DIGEST_BYTES))
        values[event.register] = hashlib.sha384(before + event.digest).digest()
    return values


def judge_replay(events: Sequence[MeasuredEvent], registers: Sequence[bytes], *, tee: str) -> Finding:
    """Whether the log leads to the quote's registers RTMR0 to RTMR3; one that it has no event of is passed over."""
    values = replay(events)
    wrong = [f"RTMR{register}" for register, value in sorted(values.items()) if value != registers[register]]
    replayed = ", ".join(f"RTMR{register}" for register in sorted(values)) or "no register"
    return judge(
        holds=not wrong,
        code=f"{tee}.ccel",
        expected="a log whose events lead to the registers of the quote",
        found=f"other values of {', '.join(wrong)}" if wrong else f"{len(events)} events that lead to {replayed}",
        why="The log is the host's word until it replays to what the TDX module measured.",
        hint="take the log at the time of the quote; what is measured later changes the registers",
    )


def judge_events(
    accepted: tuple[bytes, ...] | Skip,
    events: Sequence[MeasuredEvent] | None,
    registers: Sequence[bytes],
    *,
    tee: str,
) -> Finding:
    """Every event of RTMR1 to RTMR3: boot loader, kernel, initial RAM disk, command line and what runs after them."""
    code, why = f"{tee}.measured_events", "Each event is something that the TD ran or obeyed."
    count = "no event log" if events is None else f"{len(events)} events"
    if isinstance(accepted, Skip):
        return leave_out(code=code, reason=accepted.reason, found=count, why=why)
    logged = {event.register for event in events or ()}
    unlogged = [index for index, value in enumerate(registers) if index and any(value) and index not in logged]
    others = [event for event in events or () if event.register and event.digest not in accepted]
    found = [f"RTMR{register} without a log" for register in unlogged]
    found += [f"{event.digest.hex()} in RTMR{event.register}" for event in others]
    return judge(
        holds=events is not None and not found,
        code=code,
        expected="a log in which every event of RTMR1 to RTMR3 is accepted",
        found=", ".join(found) or count,
        why=why,
        hint="compare with what the image's builder publishes before you change the policy",
    )
