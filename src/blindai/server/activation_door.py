"""Lets clients ask the TPM whether it holds both keys that evidence shows (docs/spec/tee/tpm.md §5).

Each credential costs a command of the TPM, which does one thing at a time and slowly: those who ask form one queue, of
which one at a time stands in the queue for the device, so that quotes wait for at most one of them.
Leaves out: the device (attester/tpm.py), and what the client makes of the answer (channel/activation.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.attester.tpm2.endorsement import CredentialRefusedError
from blindai.channel.activation import encode_answer, parse_request
from blindai.errors import (
    ActivationRefusedError,
    DeadlineExceededError,
    InvalidInputError,
    NotSupportedError,
    OverloadedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.tpm2.credential import Credential

MAX_WAITING = 256
MAX_WAITING_PER_SOURCE = 16
PATIENCE_S = 20.0  # clients wait 30 s, and may seal to fresh keys for 100


@dataclass(slots=True, kw_only=True)
class ActivationDoor:
    """Answers credentials, one after the other.

    Attributes:
        activate: opens a credential, and blocks meanwhile; None if this server's attester has no such key.
        device: held by whoever uses the quote device.
        patience_s: after which a client is told that the TPM is too slow.
    """

    activate: Callable[[Credential], bytes] | None
    device: asyncio.Lock
    patience_s: float = PATIENCE_S
    _waiting: int = 0
    _sources: Counter[str] = field(default_factory=Counter)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, request: bytes, *, source: str) -> bytes:
        """What proves that the TPM holds both keys.

        Raises:
            NotSupportedError: nothing here opens credentials.
            InvalidInputError: the request is none.
            OverloadedError: too many wait, in all or from this source.
            ActivationRefusedError: the TPM does not hold both keys for which the credential was made.
            DeadlineExceededError: the TPM has not answered in time.
        """
        if self.activate is None:
            raise NotSupportedError("this server shows no endorsement key of a TPM")
        try:
            credential = parse_request(request)
        except ValueError as error:
            raise InvalidInputError(f"expected a credential for an endorsement key: {error}") from None
        if self._waiting >= MAX_WAITING or self._sources[source] >= MAX_WAITING_PER_SOURCE:
            raise OverloadedError("too many wait for the TPM", hint="try again in a second")
        self._count(source, 1)
        try:
            async with asyncio.timeout(self.patience_s):
                return encode_answer(await self._in_turn(self.activate, credential))
        except TimeoutError:
            raise DeadlineExceededError(
                f"the TPM has not opened the credential within {self.patience_s:g} s", hint="try again in a minute"
            ) from None
        except CredentialRefusedError:
            raise ActivationRefusedError(
                "the TPM does not hold both keys for which the credential was made",
                hint="the endorsement key that was shown is another TPM's, or the attestation key is",
            ) from None
        finally:
            self._count(source, -1)

    def _count(self, source: str, change: int) -> None:
        self._waiting += change
        self._sources[source] += change
        if not self._sources[source]:
            del self._sources[source]

    async def _in_turn(self, activate: Callable[[Credential], bytes], credential: Credential) -> bytes:
        async with self._turn:
            using = asyncio.ensure_future(self._use_device(activate, credential))
            using.add_done_callback(_look_at)
            return await asyncio.shield(using)  # a command that was sent ends, whoever has left; nobody disturbs it

    async def _use_device(self, activate: Callable[[Credential], bytes], credential: Credential) -> bytes:
        async with self.device:
            return await asyncio.to_thread(activate, credential)


def _look_at(using: asyncio.Future[bytes]) -> None:
    """A failure that nobody waits for any more is none to report."""
    if not using.cancelled():
        using.exception()
