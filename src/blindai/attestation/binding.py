"""What ties keys and nonce to evidence: the formulas, and nothing else (docs/spec/binding.md §2 to §4).

Both ends compute them from the same few values, and the verifier never reads an expected value from a message.
Leaves out: the keyset and its id (channel/keyset.py), and the decision (appraise.py).
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import StaleEvidenceError
from blindai.wire import label, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Sequence

DIGEST_BYTES = 32
NONCE_BYTES = 32
NO_DEVICES = bytes(DIGEST_BYTES)
MAX_COUNT = 2**32 - 1


class Mode(enum.IntEnum):
    """What evidence speaks for: a long-lived keyset, or one made for the verifier's own nonce."""

    CACHED = 0
    FRESH = 1


def report_data(*, mode: Mode, keyset_id: bytes, challenge: bytes, device_digest: bytes = NO_DEVICES) -> bytes:
    """`bound`, the 64 bytes that a quote carries.

    Raises:
        StaleEvidenceError: the challenge does not fit the mode (32 bytes when fresh, else none).
    """
    _check_size("keyset id", keyset_id, DIGEST_BYTES)
    _check_size("device digest", device_digest, DIGEST_BYTES)
    _check_challenge(mode, challenge)
    named = length_prefixed(keyset_id) + length_prefixed(device_digest) + length_prefixed(challenge)
    return hashlib.sha512(label("report-data") + bytes([mode]) + named).digest()


def report_data_32(bound: bytes) -> bytes:
    """`bound` for the one slot of 32 bytes, a TPM quote's `extraData`."""
    return hashlib.sha256(label("rd32") + bound).digest()


def device_digest(evidence: Sequence[bytes]) -> bytes:
    """`DEV`: the GPUs' evidence as sent, in that order; 32 zeros if there is none."""
    if not evidence:
        return NO_DEVICES
    return hashlib.sha256(label("device") + b"".join(length_prefixed(item) for item in evidence)).digest()


def device_nonce(*, mode: Mode, keyset_id: bytes, challenge: bytes) -> bytes:
    """The nonce that every GPU's report must carry.

    Raises:
        StaleEvidenceError: the challenge does not fit the mode.
    """
    _check_size("keyset id", keyset_id, DIGEST_BYTES)
    _check_challenge(mode, challenge)
    named = length_prefixed(keyset_id) + length_prefixed(challenge)
    return hashlib.sha256(label("device-nonce") + bytes([mode]) + named).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What evidence has to be about, as the verifier knows it.

    Attributes:
        keyset_id: SHA-256 over the keyset as received.
        challenge: the root over our nonce when fresh, empty when cached.
        device_digest: over the GPUs' evidence, or 32 zeros.
    """

    mode: Mode
    keyset_id: bytes
    challenge: bytes
    device_digest: bytes = NO_DEVICES

    def bound(self) -> bytes:
        """What a slot of 64 bytes must hold; raises as `report_data`."""
        return report_data(
            mode=self.mode,
            keyset_id=self.keyset_id,
            challenge=self.challenge,
            device_digest=self.device_digest,
        )

    def bound_32(self) -> bytes:
        """What a slot of 32 bytes must hold; raises as `report_data`."""
        return report_data_32(self.bound())

    def device_nonce(self) -> bytes:
        """What a device's report must carry, 32 bytes; raises as `report_data`."""
        return device_nonce(mode=self.mode, keyset_id=self.keyset_id, challenge=self.challenge)


@dataclass(frozen=True, slots=True, kw_only=True)
class InsecureUnbound:
    """In place of a binding: the evidence is judged alone, and so proves nothing about anybody's keys.

    Attributes:
        reason: shown beside every item's skipped check.
    """

    reason: str


class BatchTree:
    """The hash tree over the nonces that share one quote: its root, and the path from each nonce to it."""

    def __init__(self, nonces: Sequence[bytes]) -> None:
        if not 1 <= len(nonces) <= MAX_COUNT:
            raise ValueError("a batch has at least one nonce, and fewer than 2**32")
        rows = [[_leaf(nonce) for nonce in nonces]]
        while len(rows[-1]) > 1:
            below = rows[-1]
            pairs = [_node(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
            rows.append(pairs + below[2 * len(pairs) :])  # an odd node moves up unchanged
        self._rows = rows
        (top,) = rows[-1]
        self.root = _root(len(nonces), top)

    def path(self, index: int) -> tuple[bytes, ...]:
        """The siblings of nonce `index`, from the leaves up; rows where it stands alone add none."""
        if not 0 <= index < len(self._rows[0]):
            raise IndexError("no nonce of the batch has this index")
        siblings = []
        for row in self._rows[:-1]:
            if index | 1 < len(row):  # the right one of its pair
                siblings.append(row[index ^ 1])
            index >>= 1
        return tuple(siblings)


def root_from_path(*, nonce: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """The root that a path leads to from our own nonce.

    Raises:
        StaleEvidenceError: index and count do not imply a path of this length.
    """
    if not 0 <= index < count <= MAX_COUNT:
        raise StaleEvidenceError(f"nonce {index} of {count} cannot be", finding_code="binding.path")
    node, siblings, width = _leaf(nonce), list(path), count
    while width > 1:
        if index | 1 < width:  # the right one of its pair
            sibling = _next_sibling(siblings)
            node = _node(sibling, node) if index & 1 else _node(node, sibling)
        index >>= 1
        width = (width + 1) // 2
    if siblings:
        raise StaleEvidenceError("the path from our nonce is too long", finding_code="binding.path")
    return _root(count, node)


def _next_sibling(siblings: list[bytes]) -> bytes:
    if not siblings:
        raise StaleEvidenceError("the path from our nonce is too short", finding_code="binding.path")
    sibling = siblings.pop(0)
    if len(sibling) != DIGEST_BYTES:
        raise StaleEvidenceError("the path from our nonce has a node of another size", finding_code="binding.path")
    return sibling


def _leaf(nonce: bytes) -> bytes:
    _check_size("nonce", nonce, NONCE_BYTES)
    return hashlib.sha256(label("batch-leaf") + nonce).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(label("batch-node") + left + right).digest()


def _root(count: int, top: bytes) -> bytes:
    return hashlib.sha256(label("batch-root") + count.to_bytes(4, "big") + top).digest()


def _check_challenge(mode: Mode, challenge: bytes) -> None:
    wanted = DIGEST_BYTES if mode is Mode.FRESH else 0
    if len(challenge) != wanted:
        raise StaleEvidenceError(
            f"{mode.name.lower()} evidence answers a challenge of {wanted} bytes, this one has {len(challenge)}",
            finding_code="binding.mode",
        )


def _check_size(what: str, value: bytes, size: int) -> None:
    """A caller's mistake, not a peer's: these values are ours."""
    if len(value) != size:
        raise ValueError(f"a {what} has {size} bytes, this one has {len(value)}")
