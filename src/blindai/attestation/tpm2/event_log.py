"""A firmware's event log: parsed exactly, and replayed to PCR values (TCG PC Client Platform Firmware Profile 1.06).

The log is written by what it describes and is signed by nobody: an event counts once the log replays to quoted PCRs.
Leaves out: what events mean (tpm2/boot_events.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge
from blindai.attestation.exact_reader import ExactReader
from blindai.attestation.tpm2.keys import DIGEST_BYTES, digest_name, parsing_tpm
from blindai.attestation.tpm2.quote import PCRS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from blindai.attestation.evidence import Finding

MAX_LOG_BYTES = 512 << 10
MAX_EVENTS = 4096
MAX_ALGORITHMS = 8
_SHA1_BYTES = 20

# Event types; those that are read here and in tpm2/boot_events.py.
EV_NO_ACTION = 0x00000003  # recorded, and not extended
EV_SEPARATOR = 0x00000004
EV_EVENT_TAG = 0x00000006
EV_S_CRTM_VERSION = 0x00000008
EV_IPL = 0x0000000D
EV_NONHOST_INFO = 0x00000011
EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
EV_EFI_ACTION = 0x80000007

# TCG_EfiSpecIDEvent: the legacy event that heads a crypto-agile log.
HEADER_SIGNATURE = b"Spec ID Event03\0"
# TCG_EfiStartupLocalityEvent; what other recorded events say, such as `SP800-155 Event3`, is not proven.
LOCALITY_SIGNATURE = b"StartupLocality\0"
_LOCALITIES = (0, 3, 4)
_DYNAMIC_PCRS = range(17, 23)  # a later launch's: no firmware measures there, and they do not start as zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A TCG_PCR_EVENT2.

    Attributes:
        kind: the event type's number.
        digests: what was extended, by bank.
        data: what the log's writer says about it; it is proven only where its digest is the extended one.
    """

    pcr: int
    kind: int
    digests: Mapping[str, bytes]
    data: bytes = field(repr=False)

    @property
    def is_extended(self) -> bool:
        """Whether the event changed its PCR."""
        return self.kind != EV_NO_ACTION

    def says(self, bank: str, data: bytes) -> bool:
        """Whether these very bytes were extended."""
        return self.digests[bank] == hashlib.new(bank, data).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A whole log.

    Attributes:
        banks: the digests that every event has.
        startup_locality: the locality that started the TPM; it is the first value of PCR 0.
    """

    banks: tuple[str, ...]
    events: tuple[Event, ...]
    startup_locality: int


def parse_event_log(raw: bytes, *, tee: str) -> EventLog:
    """Read exactly a crypto-agile log; the older form, which has SHA-1 only, is refused.

    Raises:
        MalformedEvidenceError: anything else, code `<tee>.event_log_format`.
    """
    with parsing_tpm(tee, "event_log"):
        if len(raw) > MAX_LOG_BYTES:
            raise ValueError(f"it has {len(raw)} bytes, at most {MAX_LOG_BYTES} are accepted")
        reader = ExactReader(raw, "little")
        algorithms = _take_header(reader)
        events = tuple(_take_events(reader, algorithms))
        return EventLog(
            banks=tuple(name for name, _ in algorithms.values()),
            events=events,
            startup_locality=_startup_locality(events),
        )


def _take_header(reader: ExactReader) -> dict[int, tuple[str, int]]:
    """TCG_PCR_EVENT with TCG_EfiSpecIDEvent: the banks' names and digest sizes by algorithm."""
    pcr, kind = reader.number(4, "the header's PCR"), reader.number(4, "the header's type")
    digest = reader.take(_SHA1_BYTES, "the header's digest")
    data = ExactReader(reader.sized(4, "the header", limit=256), "little")
    if (pcr, kind) != (0, EV_NO_ACTION) or any(digest) or data.take(16, "the signature") != HEADER_SIGNATURE:
        raise ValueError("it does not begin with the header of a crypto-agile log")
    data.take(4, "the platform's class")
    if data.take(2, "the version") != b"\x00\x02":
        raise ValueError("its version is not 2.0")
    data.take(2, "the erratum and the size of UINTN")
    algorithms = dict(_take_algorithms(data))
    data.sized(1, "the vendor's information", limit=255)
    data.finish("the header")
    return algorithms


def _take_algorithms(data: ExactReader) -> Iterator[tuple[int, tuple[str, int]]]:
    count = data.number(4, "the number of banks")
    if not 1 <= count <= MAX_ALGORITHMS:
        raise ValueError(f"it has {count} banks, 1 to {MAX_ALGORITHMS} are accepted")
    seen = set()
    for _ in range(count):
        algorithm, size = data.number(2, "an algorithm"), data.number(2, "a digest's size")
        name = digest_name(algorithm)
        if algorithm in seen or size != DIGEST_BYTES[name]:
            raise ValueError(f"it declares {name} with {size} bytes, or twice")
        seen.add(algorithm)
        yield algorithm, (name, size)


def _take_events(reader: ExactReader, algorithms: dict[int, tuple[str, int]]) -> Iterator[Event]:
    for _ in range(MAX_EVENTS):
        if not reader.left:
            return
        yield _take_event(reader, algorithms)
    if reader.left:
        raise ValueError(f"it has more than {MAX_EVENTS} events")


def _take_event(reader: ExactReader, algorithms: dict[int, tuple[str, int]]) -> Event:
    pcr, kind = reader.number(4, "an event's PCR"), reader.number(4, "an event's type")
    if pcr not in PCRS or pcr in _DYNAMIC_PCRS:
        raise ValueError(f"an event names PCR {pcr}")
    if reader.number(4, "the number of digests") != len(algorithms):
        raise ValueError("an event has not one digest for each bank")
    digests = {}
    for _ in algorithms:
        algorithm = reader.number(2, "a digest's algorithm")
        if algorithm not in algorithms or algorithms[algorithm][0] in digests:
            raise ValueError(f"an event has a digest of algorithm {algorithm:#06x}, undeclared or twice")
        name, size = algorithms[algorithm]
        digests[name] = reader.take(size, "a digest")
    data = reader.sized(4, "an event", limit=MAX_LOG_BYTES)
    return Event(pcr=pcr, kind=kind, digests=digests, data=data)


def _startup_locality(events: Iterable[Event]) -> int:
    """The one event that says it, of PCR 0; where none does, it is 0."""
    said = [event for event in events if not event.is_extended and event.data.startswith(LOCALITY_SIGNATURE)]
    if not said:
        return 0
    locality = said[0].data[len(LOCALITY_SIGNATURE) :]
    if len(said) != 1 or said[0].pcr != 0 or len(locality) != 1 or locality[0] not in _LOCALITIES:
        raise ValueError("its startup locality is not one of 0, 3 and 4, said once and of PCR 0")
    return locality[0]


def replay(log: EventLog, bank: str) -> dict[int, bytes]:
    """The values that the log's events lead to, for each PCR that any of them extended.

    A PCR starts as zeros, PCR 0 with the startup locality in its last byte (PC Client Platform TPM Profile).
    """
    zeros = bytes(DIGEST_BYTES[bank])
    values: dict[int, bytes] = {0: zeros[:-1] + bytes([log.startup_locality])}
    extended = set()
    for event in log.events:
        if event.is_extended:
            extended.add(event.pcr)
            values[event.pcr] = hashlib.new(bank, values.get(event.pcr, zeros) + event.digests[bank]).digest()
    return {index: values[index] for index in sorted(extended)}


def told(log: EventLog, pcrs: Mapping[int, bytes]) -> tuple[int, ...]:
    """The quoted PCRs whose whole story a log that has replayed tells: those it extends, and those nothing extended.

    A log that leaves out all events of a PCR replays as well as an honest one: its silence means nothing then.
    """
    logged = {event.pcr for event in log.events if event.is_extended}
    return tuple(index for index, value in pcrs.items() if index in logged or not any(value))


def judge_replay(log: EventLog | None, bank: str, pcrs: Mapping[int, bytes], *, tee: str) -> Iterator[Finding]:
    """Every quoted PCR that the log says anything of has exactly the value that the log leads to."""
    if log is None:
        return
    replayed = replay(log, bank) if bank in log.banks else {}
    wrong = [str(index) for index, value in replayed.items() if index in pcrs and pcrs[index] != value]
    yield judge(
        holds=bank in log.banks and not wrong,
        code=f"{tee}.event_log_replay",
        expected=f"a log of the bank {bank} that leads to the quoted PCRs",
        found=f"other values of PCRs {', '.join(wrong)}" if wrong else f"banks {', '.join(log.banks)}, replayed",
        why="Nobody signs an event log: it is true where it leads to what the TPM quoted.",
        hint="something was measured after the log was read: do not quote PCRs that the running system extends",
    )
