"""Evidence with one bit changed: each bit of what the machine signed, one bit of each byte of what vouches for it.

Each must be refused. What may change stands in meaningless_bytes.toml, by meaning and with a reason; where such bytes
are is found in the evidence itself (`PLACES`), and what is claimed then is compared with what was claimed before.
Leaves out: whose evidence it is (test_flips.py).
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import random
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.attestation.azure.hcl import parse_hcl
from blindai.attestation.exact_reader import ExactReader
from blindai.attestation.tee import azure_vtpm, tdx, tpm
from blindai.errors import RejectedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blindai.attestation.evidence import Claims, EvidenceItem

    Verify = Callable[[EvidenceItem], Claims]

TABLE = Path(__file__).with_name("meaningless_bytes.toml")
EVIDENCE = "evidence"
_BITS = 8
_FORK = multiprocessing.get_context("fork")
# What claims say in place of a word that is no longer proven.
_UNKNOWN = {"unknown", "not named", "not said", "none", ""}


@dataclass(frozen=True, slots=True, order=True)
class Flip:
    """One bit of one part: `evidence`, or the name of an endorsement."""

    part: str
    byte: int
    bit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaningless:
    """Bytes that may change and deceive nobody.

    Attributes:
        tee: whose.
        part: the name of the part.
        place: which of its bytes; a name in `PLACES`.
        claims: `same` if nothing that is claimed may change, `less` if a word may get lost, and none come.
        reason: why.
    """

    tee: str
    part: str
    place: str
    claims: str
    reason: str


def meaningless() -> tuple[Meaningless, ...]:
    """The committed table."""
    return tuple(Meaningless(**entry) for entry in tomllib.loads(TABLE.read_text("utf-8")).get("meaningless", ()))


def parts_of(item: EvidenceItem) -> dict[str, bytes]:
    """Evidence and endorsements by name."""
    return {EVIDENCE: item.evidence, **dict(item.endorsements)}


def flips_of(item: EvidenceItem, share: float = 1.0, *, seed: int = 0) -> list[Flip]:
    """All flips, or a share of them drawn from a seed; which bit of an endorsement's byte is drawn as well."""
    chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
    chosen = []
    for part, data in sorted(parts_of(item).items()):
        for byte in range(len(data)):
            bits = range(_BITS) if part == EVIDENCE else (chance.randrange(_BITS),)
            chosen += [Flip(part, byte, bit) for bit in bits if chance.random() < share]
    return chosen


def flipped(item: EvidenceItem, flip: Flip) -> EvidenceItem:
    """The item with that bit changed."""
    data = bytearray(parts_of(item)[flip.part])
    data[flip.byte] ^= 1 << flip.bit
    if flip.part == EVIDENCE:
        return dataclasses.replace(item, evidence=bytes(data))
    changed = tuple((name, bytes(data) if name == flip.part else other) for name, other in item.endorsements)
    return dataclasses.replace(item, endorsements=changed)


def accepted_flips(item: EvidenceItem, flips: Sequence[Flip], verify: Verify, *, jobs: int = 1) -> list[Flip]:
    """Those that `verify` does not refuse; anything but a refusal is an error."""
    if jobs == 1:
        return _accepted(item, flips, verify)
    shares = [flips[number::jobs] for number in range(jobs)]
    with _FORK.Pool(jobs, initializer=_remember, initargs=(item, verify)) as pool:
        return sorted(flip for found in pool.map(_accepted_in_pool, shares) for flip in found)


_in_pool: list[tuple[EvidenceItem, Verify]] = []


def _remember(item: EvidenceItem, verify: Verify) -> None:
    _in_pool.append((item, verify))


def _accepted_in_pool(flips: Sequence[Flip]) -> list[Flip]:
    return _accepted(_in_pool[-1][0], flips, _in_pool[-1][1])


def _accepted(item: EvidenceItem, flips: Iterable[Flip], verify: Verify) -> list[Flip]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography's, about strange certificates
        return [flip for flip in flips if _is_accepted(flipped(item, flip), verify)]


def _is_accepted(item: EvidenceItem, verify: Verify) -> bool:
    try:
        verify(item)
    except RejectedEvidenceError:
        return False
    return True


# --- where bytes without meaning are


def _event_log_words(item: EvidenceItem) -> Iterator[range]:
    """In a TPM's event log: what no quoted PCR proves; by a reader that shares nothing with the verifier's but cutting.

    Types and texts of events, digests of banks that were not quoted, PCRs and digests of events that extend nothing,
    and of the header the platform's class, the specification's erratum, the size of a native integer and the
    vendor's words.
    """
    log = tpm.parse(item.evidence).event_log
    start = len(item.evidence) - len(log)
    cut = ExactReader(log, "little")

    def taken(size: int) -> range:
        begin = start + len(log) - cut.left
        cut.take(size, "bytes")
        return range(begin, begin + size)

    taken(4 + 4 + 20 + 4 + 16)  # the header's PCR, type, digest and size, and its signature
    yield taken(4)
    taken(2)
    yield taken(2)
    taken(4 * cut.number(4, "a number of banks"))
    yield taken(cut.number(1, "a size"))
    while cut.left:
        pcr = taken(4)
        extends = cut.number(4, "a type") != _EV_NO_ACTION
        if not extends:
            yield pcr
        yield range(start + len(log) - cut.left - 4, start + len(log) - cut.left)
        for _ in range(cut.number(4, "a number of digests")):
            algorithm = cut.number(2, "an algorithm")
            digest = taken(_DIGEST_BYTES[algorithm])
            if algorithm != _SHA256 or not extends:
                yield digest
        yield taken(cut.number(4, "a size"))


_EV_NO_ACTION = 3
_SHA256 = 0x000B
_DIGEST_BYTES = {0x0004: 20, _SHA256: 32, 0x000C: 48, 0x000D: 64}


def _td_report_words(item: EvidenceItem) -> Iterator[range]:
    """In an Azure TDREPORT: what the quote beside it does not hold, too (REPORTMACSTRUCT, TEE_TCB_INFO and TDINFO)."""
    hcl = parse_hcl(azure_vtpm.parse(item.evidence).hcl_report)
    if hcl.hardware == tdx.TEE:
        start = item.evidence.index(hcl.hardware_report)
        for first, end in ((0x00, 0x80), (0xC0, 0x108), (0x180, 0x200), (0x390, 0x400)):
            yield range(start + first, start + end)


PLACES: dict[str, Callable[[EvidenceItem], Iterator[range]]] = {
    "event_log_words": _event_log_words,
    "td_report_words": _td_report_words,
}


def bytes_of(item: EvidenceItem, entry: Meaningless) -> frozenset[int]:
    """The offsets of an entry's bytes in its part."""
    return frozenset(offset for place in PLACES[entry.place](item) for offset in place)


def says_no_more(item: EvidenceItem, before: Claims, after: Claims) -> bool:
    """Whether every new fact is only a word that got lost, or a digest that the evidence holds anyway."""
    new = set(after.facts()) - set(before.facts())
    return all(text in _UNKNOWN or _digest(text) in item.evidence for _, text in new)


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("digest ")) or b"no digest"
    except ValueError:
        return b"no digest"
