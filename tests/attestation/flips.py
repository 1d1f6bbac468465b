"""Evidence with one bit changed: every bit of what is signed by the machine, one bit of each byte of what vouches for it.

Each must be refused. Bytes that carry no meaning stand in meaningless_bytes.toml, with reasons; places that depend on a
document's text (line ends of PEM, unsigned parts of XML) are found by meaning, in `PLACES`.
Leaves out: whose evidence it is (test_flips.py).
"""

from __future__ import annotations

import base64
import dataclasses
import multiprocessing
import random
import re
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.attestation.checks import Checks
from blindai.errors import RejectedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blindai.attestation.evidence import Claims, EvidenceItem

TABLE = Path(__file__).with_name("meaningless_bytes.toml")
EVIDENCE = "evidence"
_BITS = 8
_FORK = multiprocessing.get_context("fork")

Verify = "Callable[[EvidenceItem, float, Checks], Claims]"


@dataclass(frozen=True, slots=True, order=True)
class Flip:
    """One bit of one part: `evidence`, or the name of an endorsement."""

    part: str
    byte: int
    bit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaningless:
    """Bytes that may change without anybody being deceived.

    Attributes:
        tee: whose.
        part: which, as a pattern of its whole name.
        place: the name of a function in `PLACES`, or `first-last` as numbers.
        bits: which of them; all of them if none is named.
    """

    tee: str
    part: re.Pattern[str]
    place: str
    reason: str


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


def accepted_flips(
    item: EvidenceItem, flips: Sequence[Flip], verify: Callable[[EvidenceItem], object], *, jobs: int = 1
) -> list[Flip]:
    """Those that `verify` does not refuse; anything but a refusal is an error."""
    if jobs == 1:
        return _accepted(item, flips, verify)
    shares = [flips[number::jobs] for number in range(jobs)]
    with _FORK.Pool(jobs, initializer=_remember, initargs=(item, verify)) as pool:
        return sorted(flip for found in pool.map(_accepted_in_pool, shares) for flip in found)


_in_pool: list[tuple[EvidenceItem, Callable[[EvidenceItem], object]]] = []


def _remember(item: EvidenceItem, verify: Callable[[EvidenceItem], object]) -> None:
    _in_pool.append((item, verify))


def _accepted_in_pool(flips: Sequence[Flip]) -> list[Flip]:
    return _accepted(_in_pool[-1][0], flips, _in_pool[-1][1])


def _accepted(item: EvidenceItem, flips: Iterable[Flip], verify: Callable[[EvidenceItem], object]) -> list[Flip]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography's, about strange certificates
        return [flip for flip in flips if _is_accepted(flipped(item, flip), verify)]


def _is_accepted(item: EvidenceItem, verify: Callable[[EvidenceItem], object]) -> bool:
    try:
        verify(item)
    except RejectedEvidenceError:
        return False
    return True
