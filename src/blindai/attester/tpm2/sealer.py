"""Keeps a store's root key in a TPM: only what booted as now gets it, and old stores are noticed (docs/spec/store.md).

The key is sealed under the PCRs that measure kernel, initrd, command line and Secure Boot; a counter in the TPM, which
the same PCRs guard, tells an old index from the last one. The operator owns the TPM: it can remove key and counter, so
that nothing opens any more, and can neither read the key nor count down. A key that it made itself is known by the PCRs
at that time, and such a counter by its attributes.
Leaves out: the bus between TPM and processor, on which the key travels in clear; a virtual TPM of a guest has none.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING, Any

from blindai.attester.sealing import ROOT_KEY_BYTES, next_to, read_own, sync_folder, take_name, write_whole
from blindai.attester.tpm2 import commands
from blindai.attester.tpm2.device import TpmRefusedError
from blindai.errors import AttesterError, InvalidManifestError, UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

BOOT_PCRS = (4, 7, 11, 12)  # boot loader and kernel, Secure Boot, unified kernel image, what was given to it
KEY_NAME = "root-key.tpm2"
_MAGIC = b"BLDATPM1"
_SECRET = struct.Struct(f">{ROOT_KEY_BYTES}sIQ")  # key, the counter's index, what it said when the key was drawn
_COUNTERS = 0x01A00000  # of the range that owners use (TCG registry of reserved handles §2.2)
_COUNTER_RANGE = 0x00100000
_MAX_KEY_BYTES = 8192
_PCR_BYTES = 32  # of the SHA-256 bank


class TpmSealer:
    """A TPM as `attester.sealing.Sealer`.

    Args:
        folder: where the sealed key lies.
        send: carries a command to the TPM, for example a `TpmFile`.
        pcrs: what must be as it was when the key was drawn; at most eight.
        random: source of the key.
    """

    kind = "tpm"

    def __init__(
        self,
        folder: Path,
        send: Callable[[bytes], bytes],
        *,
        pcrs: tuple[int, ...] = BOOT_PCRS,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._path = folder / KEY_NAME
        self._send = send
        self._pcrs = pcrs
        self._random = random
        self._counter, self._before = 0, 0

    def root_key(self) -> bytes:
        """The key, drawn at the first start.

        Raises:
            UnsealError: something else booted, or made the key; it is another TPM, or the TPM does not answer; or the
                counter is not the one that was made with the key.
        """
        with _as_unseal():
            if not self._path.exists():
                self._draw(self._path)
            return self._key_in(self._path)

    def next_key(self) -> bytes:
        """Another key with the same counter, so that what the old one sealed stays old."""
        waiting = next_to(self._path)
        with _as_unseal():
            self._keep(waiting, self._counter, self._before, self._policy())
            sync_folder(waiting.parent)
            return self._key_in(waiting)

    def waiting_key(self) -> bytes | None:
        """The same checks as for the key in use."""
        waiting = next_to(self._path)
        with _as_unseal():
            return self._key_in(waiting) if waiting.exists() else None

    def take_up(self) -> None:
        """The old file goes; a copy of it still gives the old key to what booted as now, which opens no new index."""
        take_name(self._path)

    def drop_next(self) -> None:
        """It goes; the counter stays."""
        next_to(self._path).unlink(missing_ok=True)

    def require_reference(self, reference: Mapping[str, Any]) -> None:
        """One value of each PCR: another one, too, would be other software."""
        self._values_of(reference)

    def fresh_key(self) -> bytes:
        """Another each time; the counter of one that was drawn and never counted goes, and with it that key's use."""
        waiting = next_to(self._path)
        with contextlib.suppress(UnsealError), _as_unseal():
            if self.waiting_key() is not None and self.generation() == 0:
                commands.undefine_counter(self._send, self._counter)
        with _as_unseal():
            self._draw(waiting)
            sync_folder(waiting.parent)
            return self._key_in(waiting)

    def give(self, path: Path, reference: Mapping[str, Any]) -> bytes:
        """A key under the PCRs of the manifest's table `tee.tpm`; made under those of now, by which it is known."""
        policy = commands.pcr_policy(self._pcrs, self._values_of(reference))
        with _as_unseal():
            return self._keep(path, self._counter, self._before, policy)

    def take(self, path: Path, reference: Mapping[str, Any]) -> tuple[bytes, int]:
        """A key made under the PCRs of the manifest's table, with a counter that they guard."""
        values = self._values_of(reference)
        with _as_unseal():
            key, counter, before = _SECRET.unpack(self._opened(path, values))
            commands.require_counter(self._send, counter, commands.pcr_policy(self._pcrs, values))
            return bytes(key), commands.read_counter(self._send, counter) - before

    def retire(self, path: Path, reference: Mapping[str, Any]) -> None:
        """Its counter is removed; one made in its place begins beyond it."""
        values = self._values_of(reference)
        with _as_unseal():
            _, counter, _ = _SECRET.unpack(self._opened(path, values))
            commands.undefine_counter(self._send, counter)

    def _values_of(self, reference: Mapping[str, Any]) -> tuple[bytes, ...]:
        table = reference.get("pcrs")
        found = [table.get(str(index)) if isinstance(table, dict) else None for index in self._pcrs]
        if not all(isinstance(one, list) and len(one) == 1 and len(one[0]) == 2 * _PCR_BYTES for one in found):
            named = ", ".join(map(str, self._pcrs))
            raise InvalidManifestError(f"the manifest does not say one value of each of the TPM's PCRs {named}")
        return tuple(bytes.fromhex(one[0]) for one in found if one)

    def generation(self) -> int:
        """How often was counted since the key was drawn."""
        with _as_unseal():
            return commands.read_counter(self._send, self._counter) - self._before

    def advance(self, generation: int) -> None:
        """Count up to `generation`; a TPM allows some 10 in a minute for years."""
        if self.generation() == generation - 1:
            with _as_unseal(), commands.pcr_session(self._send, self._pcrs, self._random) as session:
                commands.count_up(self._send, self._counter, session)
        if (found := self.generation()) != generation:
            raise UnsealError(f"the TPM's counter says {found} instead of {generation}: somebody else counts")

    def _key_in(self, path: Path) -> bytes:
        key, self._counter, self._before = _SECRET.unpack(
            self._opened(path, commands.read_pcrs(self._send, self._pcrs))
        )
        commands.require_counter(self._send, self._counter, self._policy())
        return bytes(key)

    def _opened(self, path: Path, made_under: tuple[bytes, ...]) -> bytes:
        sealed = _parse(read_own(path, _MAX_KEY_BYTES))
        try:
            with (
                commands.storage_key(self._send) as parent,
                commands.pcr_session(self._send, self._pcrs, self._random) as session,
            ):
                secret = commands.unseal(self._send, parent, sealed, session)
            commands.require_created_under(sealed, self._pcrs, made_under)
        except TpmRefusedError as error:
            raise UnsealError(f"{path.name} does not open: {self._reason(error)}", hint=_HINT) from None
        except AttesterError as error:
            raise UnsealError(f"{path.name} does not open: {error}", hint=_HINT) from None
        if len(secret) != _SECRET.size:
            raise UnsealError(f"{path.name} holds no key")
        return secret

    def _reason(self, error: TpmRefusedError) -> str:
        if error.is_policy:
            return f"PCRs {', '.join(map(str, self._pcrs))} are not what they were: something else has booted"
        return f"it was changed, or sealed by another TPM ({error})"

    def _policy(self) -> bytes:
        return commands.pcr_policy(self._pcrs, commands.read_pcrs(self._send, self._pcrs))

    def _draw(self, path: Path) -> None:
        """Key and counter, whole or not at all: a counter whose key was never kept is one that nobody reads."""
        policy = self._policy()
        counter = _COUNTERS + int.from_bytes(self._random(4), "big") % _COUNTER_RANGE
        commands.define_counter(self._send, counter, policy)
        with commands.pcr_session(self._send, self._pcrs, self._random) as session:
            commands.count_up(self._send, counter, session)
        before = commands.read_counter(self._send, counter)
        self._keep(path, counter, before, policy)

    def _keep(self, path: Path, counter: int, before: int, policy: bytes) -> bytes:
        """A new key, sealed in a file."""
        key = self._random(ROOT_KEY_BYTES)
        with commands.storage_key(self._send) as parent:
            secret = _SECRET.pack(key, counter, before)
            sealed = commands.seal(self._send, parent, secret, policy=policy, pcrs=self._pcrs)
        parts = (sealed.private, sealed.public, sealed.creation, sealed.ticket)
        write_whole(path, _MAGIC + b"".join(map(commands.sized, parts)))
        return key


_HINT = "boot what sealed it, on the machine that sealed it; nothing was removed"


@contextlib.contextmanager
def _as_unseal() -> Iterator[None]:
    """Whoever keeps models asks for a key; that a TPM is behind it is not its matter."""
    try:
        yield
    except AttesterError as error:
        raise UnsealError(str(error), hint=error.hint) from error


def _parse(stored: bytes) -> commands.SealedData:
    if not stored.startswith(_MAGIC):
        raise UnsealError(f"{KEY_NAME} is none of this format")
    parts, at = [], len(_MAGIC)
    while at < len(stored):
        try:
            part, at = commands.take_sized(stored, at)
        except AttesterError:
            raise UnsealError(f"{KEY_NAME} is cut") from None
        parts.append(part)
    if len(parts) != 4:  # noqa: PLR2004  # those of `SealedData`
        raise UnsealError(f"{KEY_NAME} is longer or shorter than it was written")
    private, public, creation, ticket = parts
    return commands.SealedData(private=private, public=public, creation=creation, ticket=ticket)
