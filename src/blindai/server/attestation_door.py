"""The attestation endpoint: evidence about our keys, cached or made for the caller's nonce (docs/spec/evidence.md).

Fresh: nonces that arrive while the quote device is busy share the next quote; the batch closes first, **then** the key
is made, so that it cannot have leaked before. Batches close at most every 50 ms: a flood of requests makes few keys.
Cached: all who ask at the same time wait for the same quote.
Leaves out: what the client makes of it (channel/attested.py).
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.attestation.binding import BatchTree, Mode, report_data
from blindai.attestation.evidence import AttestationDocument, BatchProof, encode_document
from blindai.errors import InvalidInputError, OverloadedError
from blindai.wire import exact_bytes, require_members, strict_json

if TYPE_CHECKING:
    from blindai.attestation.evidence import EvidenceItem
    from blindai.attester import Attester
    from blindai.channel.keyring import HeldKey, KeyRing
    from blindai.server.stapling import Stapler

PATH = "/.well-known/blindai/attestation"
NONCE_BYTES = 32
MAX_REQUEST_BYTES = 1024
MAX_WAITING = 4096
MAX_WAITING_PER_SOURCE = 16
BATCH_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    nonce: bytes
    source: str
    answer: asyncio.Future[bytes]


@dataclass(slots=True, kw_only=True)
class AttestationDoor:
    """Serves documents; one quote is made at a time.

    Attributes:
        keys: what the documents are about.
        attester: the quote device.
        device: held by whoever uses it.
        stapler: puts vendors' documents beside its evidence; None leaves it as the attester made it.
        batch_interval_s: shortest time from the close of one batch of nonces to that of the next.
    """

    keys: KeyRing
    attester: Attester
    device: asyncio.Lock = field(default_factory=asyncio.Lock)
    stapler: Stapler | None = None
    batch_interval_s: float = BATCH_INTERVAL_S
    _waiting: list[_Waiting] = field(default_factory=list)
    _sources: Counter[str] = field(default_factory=Counter)
    _quoting: asyncio.Task[None] | None = None
    _closed_s: float = -math.inf
    _cached: tuple[tuple[bytes, int], asyncio.Task[bytes]] | None = None  # of which keyset, with which endorsements

    async def cached(self) -> bytes:
        """The document about the current epoch key; anyone may keep and serve it."""
        held = self.keys.epoch()
        stapled = held.keyset_id, self.stapler.generation if self.stapler else 0  # no document keeps an ended key alive
        if self._cached is None or self._cached[0] != stapled:
            quoting = asyncio.create_task(self._attest_cached(held))
            quoting.add_done_callback(self._forget_failed)
            self._cached = stapled, quoting
        return await asyncio.shield(self._cached[1])

    async def fresh(self, request: bytes, *, source: str) -> bytes:
        """A document about a key made after this request's nonce was known.

        Raises:
            InvalidInputError: the request is not exactly `{"nonce": base64url of 32 bytes}`.
            OverloadedError: too many wait, in all or from this source.
        """
        nonce = _parse_nonce(request)
        if len(self._waiting) >= MAX_WAITING or self._sources[source] >= MAX_WAITING_PER_SOURCE:
            raise OverloadedError("too many attestations wait", hint="try again in a second")
        waiting = _Waiting(nonce=nonce, source=source, answer=asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._sources[source] += 1
        if self._quoting is None or self._quoting.done():
            self._quoting = asyncio.create_task(self._quote_batches())
        return await waiting.answer

    async def _attest_cached(self, held: HeldKey) -> bytes:
        evidence = await self._quote(held, Mode.CACHED, b"")
        return encode_document(AttestationDocument(keyset=held.encoded, mode=Mode.CACHED, evidence=evidence))

    def _forget_failed(self, quoting: asyncio.Task[bytes]) -> None:
        """Whoever waits learns of it, and the next one asks the device again."""
        failed = quoting.cancelled() or quoting.exception() is not None
        if failed and self._cached is not None and self._cached[1] is quoting:
            self._cached = None

    async def _quote_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(self._closed_s + self.batch_interval_s - loop.time())
            self._closed_s = loop.time()
            batch, self._waiting = self._waiting, []
            self._sources.clear()
            try:
                documents = await self._attest([waiting.nonce for waiting in batch])
            except Exception as error:  # noqa: BLE001  # whatever it was, nobody may be left waiting
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, document in zip(batch, documents, strict=True):
                if not waiting.answer.done():  # its client may have left
                    waiting.answer.set_result(document)

    async def _attest(self, nonces: list[bytes]) -> list[bytes]:
        tree = BatchTree(nonces)
        held = self.keys.fresh(tree.root)
        evidence = await self._quote(held, Mode.FRESH, tree.root)
        return [
            encode_document(
                AttestationDocument(
                    keyset=held.encoded,
                    mode=Mode.FRESH,
                    evidence=evidence,
                    batch=BatchProof(index=index, count=len(nonces), path=tree.path(index)),
                )
            )
            for index in range(len(nonces))
        ]

    async def _quote(self, held: HeldKey, mode: Mode, challenge: bytes) -> tuple[EvidenceItem, ...]:
        bound = report_data(mode=mode, keyset_id=held.keyset_id, challenge=challenge)
        async with self.device:
            return (await asyncio.to_thread(self._evidence, bound),)

    def _evidence(self, bound: bytes) -> EvidenceItem:
        item = self.attester.attest(bound)
        return item if self.stapler is None else self.stapler.staple(item)


def _parse_nonce(request: bytes) -> bytes:
    try:
        members = require_members(strict_json(request, max_bytes=MAX_REQUEST_BYTES), frozenset({"nonce"}))
        return exact_bytes(members["nonce"], NONCE_BYTES)
    except ValueError as error:
        raise InvalidInputError(f"expected a JSON object with a nonce of {NONCE_BYTES} bytes: {error}") from None
