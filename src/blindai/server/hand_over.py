"""A kept store goes to another measurement: the next release, which its operator and the models' owners signed.

The server that has the store writes, at its start and its end, a second index and key into the folder `handed-over`:
only what boots as the next release's manifest says opens them, and only models are in it whose owner has signed that
manifest. What changes afterwards makes it stale. The next
server makes them its own at its first start, once: then the counter of the one before is gone (docs/spec/store.md).
Leaves out: how a TEE keeps a key for other software (`attester.sealing`).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindai import __version__
from blindai.attestation.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_FILE_BYTES,
    SIGNATURE_SUFFIX,
    parse_manifest,
    signers_of,
)
from blindai.attestation.policy_release import parse_release
from blindai.attestation.tee.tpm import TEE
from blindai.attester.sealing import read_own, sync_folder, write_whole
from blindai.errors import InvalidManifestError, UnsealError
from blindai.server.log import LOG
from blindai.server.store_index import ID_BYTES, MAX_INDEX_BYTES, StoreIndex, open_index, seal_index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blindai.attester.sealing import MovableSealer

FOLDER = "handed-over"
_KEY, _INDEX, _OWN_INDEX = "key", "index", "index.own"
_FOLDER_MODE = 0o700
_RETIRED, _TAKEN = 1, 2  # what the new counter says once the old one is gone, and of which generation the index is
_AGAIN = "start the release before again: it hands over as it starts, and again as it ends; nothing was removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRelease:
    """What another release measures to, and who says so.

    Attributes:
        version: as `1.2.0`.
        reference: the manifest's values of this TEE.
        signers: every Ed25519 public key that has signed it, an operator's among them.
    """

    version: str
    reference: Mapping[str, Any] = field(repr=False)
    signers: frozenset[bytes] = field(repr=False)


def read_release(path: Path, tee: str, operators: frozenset[bytes]) -> SignedRelease:
    """A manifest beside its signatures, of which one is an operator's.

    Raises:
        InvalidManifestError: it cannot be read, says nothing of the TEE, or no operator has signed it.
    """
    try:
        with path.open("rb") as file:
            manifest = file.read(MAX_MANIFEST_BYTES + 1)
        with path.with_name(path.name + SIGNATURE_SUFFIX).open("rb") as file:
            signatures = file.read(MAX_SIGNATURE_FILE_BYTES + 1)
    except OSError as problem:
        raise InvalidManifestError(f"{problem.filename or path}: {problem.strerror}") from None
    signers = signers_of(manifest, signatures, source=str(path))
    if operators.isdisjoint(signers):
        raise InvalidManifestError(
            f"{path}: no key of `upgrade_signers` has signed it", hint="`blindai manifest sign` adds a signature"
        )
    found = parse_manifest(manifest, source=str(path))
    if tee not in found.tees:
        raise InvalidManifestError(f"{path}: it says nothing of {tee}")
    return SignedRelease(version=found.release.text, reference=found.tees[tee], signers=signers)


def require_not_older(release: SignedRelease, version: str) -> None:
    """An old release may have a fault that its signers did not know when they signed.

    Raises:
        InvalidManifestError: it is older than `version`.
    """
    if parse_release(release.version) < parse_release(version):
        raise InvalidManifestError(f"release {release.version} is older than this one, {version}: no store goes back")


def entrusted(index: StoreIndex, signers: frozenset[bytes]) -> StoreIndex:
    """What of an index the owners let go: models whose owner's key has signed, and the sharing of their names."""
    records = tuple(one for one in index.records if one.model.owner_key in signers)
    names = {(one.model.tenant, one.model.name) for one in records}
    shares = tuple(one for one in index.shares if one[:2] in names)
    return StoreIndex(generation=index.generation, records=records, shares=shares)


class HandOver:
    """From which release a store may be taken over, and to which it goes.

    Args:
        sealer: this TEE's.
        by: whose store becomes this server's own at its start, if it was handed over.
        to: whose it will be.
        random: source of the indexes' ids.
    """

    def __init__(
        self,
        sealer: MovableSealer,
        *,
        by: SignedRelease | None = None,
        to: SignedRelease | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._sealer = sealer
        self._by, self._to = by, to
        self._random = random

    @property
    def is_to_come(self) -> bool:
        """Whether the store goes to another release."""
        return self._to is not None

    def give(self, folder: Path, index: StoreIndex) -> None:
        """Hand an index over; what was handed over before is gone, and any later change outdates it.

        Args:
            folder: of the store.
            index: of the generation that the TEE's counter says.

        Raises:
            OSError: the disk is full or broken.
            UnsealError: the TEE does not keep the key.
        """
        assert self._to is not None  # noqa: S101  # `is_to_come`; for the type checker
        given, handed = entrusted(index, self._to.signers), _own_folder(folder)
        if handed.exists():
            shutil.rmtree(handed)
        handed.mkdir(mode=_FOLDER_MODE)
        key = self._sealer.give(handed / _KEY, self._to.reference)
        write_whole(handed / _INDEX, seal_index(given, root_key=key, index_id=self._random(ID_BYTES)))
        for one in (handed, folder):
            sync_folder(one)
        words = "handed over to release %s: %d of %d models; those whose owner has not signed end with this release"
        LOG.warning(words, self._to.version, len(given.records), len(index.records))

    def take(self, folder: Path, own: Path) -> None:
        """Make what was handed over this server's own, in place of the index at `own`; nothing if that was done.

        A start that was killed in it is done to its end by the next one, unless that was between the two counters.
        The old one being gone proves nothing, since its owner can remove it too: only what counts on the new one does.

        Raises:
            OSError: the disk is full or broken.
            UnsealError: it was handed over by or to other software, or the store was changed after it.
        """
        handed = _own_folder(folder)
        if self._by is None or not handed.exists():
            return
        if not self._is_own(own):
            if _opened(handed / _OWN_INDEX, self._waiting_key()) is None or not self._sealer.generation():
                self._adopt(handed, self._by)
                self._sealer.retire(handed / _KEY, self._by.reference)  # from here the one before has no store
                self._sealer.advance(_RETIRED)  # and only from here what was adopted, and no copy of it, is of use
            if self._sealer.generation() == _RETIRED:
                self._sealer.advance(_TAKEN)
            (handed / _OWN_INDEX).rename(own)
            sync_folder(folder)
            self._sealer.take_up()
        shutil.rmtree(handed)

    def _is_own(self, own: Path) -> bool:
        """Whether this server has an index already; then what was handed over is used up."""
        if not own.exists():
            return False
        if _opened(own, self._waiting_key()) is not None:
            self._sealer.take_up()
            return True
        try:
            return _opened(own, self._sealer.root_key()) is not None
        except UnsealError:  # the key of the one before
            return False

    def _waiting_key(self) -> bytes | None:
        """None too where the one before has left a key of its own there."""
        try:
            return self._sealer.waiting_key()
        except UnsealError:
            return None

    def _adopt(self, handed: Path, by: SignedRelease) -> None:
        if not (handed / _KEY).exists():
            raise UnsealError("what was handed over has no key", hint=_AGAIN)
        key, counted = self._sealer.take(handed / _KEY, by.reference)
        index = _opened(handed / _INDEX, key)
        if index is None:
            raise UnsealError("what was handed over is not whole, or was changed", hint=_AGAIN)
        if index.generation != counted:
            raise UnsealError(
                f"what was handed over is of generation {index.generation}, and the counter of who gave it says "
                f"{counted}: that store was changed afterwards",
                hint=_AGAIN,
            )
        own = StoreIndex(generation=_TAKEN, records=index.records, shares=index.shares)
        key = self._sealer.fresh_key()
        write_whole(handed / _OWN_INDEX, seal_index(own, root_key=key, index_id=self._random(ID_BYTES)))
        sync_folder(handed)


def read_plan(sealer: MovableSealer, by: str | None, to: str | None, operators: frozenset[bytes]) -> HandOver:
    """The settings' two manifests, read before anything is served: one that will not do is no surprise at the end.

    Raises:
        InvalidManifestError: as in `read_release`; they do not say what the releases measure to; or the next one is
            older than this one.
    """
    before = None if by is None else read_release(Path(by), TEE, operators)
    after = None if to is None else read_release(Path(to), TEE, operators)
    for one in (before, after):
        if one is not None:
            sealer.require_reference(one.reference)
    if after is not None:
        require_not_older(after, __version__)
    return HandOver(sealer, by=before, to=after)


def _own_folder(folder: Path) -> Path:
    """What is written and removed in it must not lie elsewhere."""
    handed = folder / FOLDER
    if handed.is_symlink():
        raise UnsealError(f"{handed} is a symbolic link, and must be a folder")
    return handed


def _opened(path: Path, key: bytes | None) -> StoreIndex | None:
    if key is None or not path.exists():
        return None
    try:
        return open_index(read_own(path, MAX_INDEX_BYTES), root_key=key)
    except UnsealError:
        return None
