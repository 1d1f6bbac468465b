"""The queue before the TPM: one credential at a time, few from one source, and an end to patience."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from blindai.attestation.tpm2.credential import Credential
from blindai.attester.tpm2.endorsement import CredentialRefusedError
from blindai.channel.activation import encode_request, parse_answer
from blindai.errors import (
    ActivationRefusedError,
    AttesterError,
    DeadlineExceededError,
    InvalidInputError,
    NotSupportedError,
    OverloadedError,
)
from blindai.server.activation_door import MAX_WAITING, MAX_WAITING_PER_SOURCE, ActivationDoor

REQUEST = encode_request(Credential(blob=bytes(68), encrypted_seed=bytes(256)))
HERE = "192.0.2.1"


@dataclass(slots=True)
class SlowTpm:
    """Takes its time, and says how many use it at once."""

    takes_s: float = 0.01
    error: Exception | None = None
    opened: int = 0
    most_at_once: int = 0
    _inside: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def activate(self, _: Credential) -> bytes:
        with self._lock:
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
        time.sleep(self.takes_s)
        with self._lock:
            self._inside -= 1
        self.opened += 1
        if self.error:
            raise self.error
        return bytes(32)


def door_of(tpm: SlowTpm, **options: Any) -> ActivationDoor:
    return ActivationDoor(activate=tpm.activate, device=asyncio.Lock(), **options)


async def test_many_who_ask_at_once_are_answered_one_after_the_other() -> None:
    tpm = SlowTpm()
    door = door_of(tpm)
    answers = await asyncio.gather(*(door.answer(REQUEST, source=f"192.0.2.{number}") for number in range(40)))
    assert {parse_answer(answer) for answer in answers} == {bytes(32)}
    assert (tpm.opened, tpm.most_at_once) == (40, 1)


async def test_a_quote_waits_for_one_credential_and_not_for_the_queue() -> None:
    tpm = SlowTpm()
    door = door_of(tpm)
    asking = [asyncio.create_task(door.answer(REQUEST, source=f"192.0.2.{number}")) for number in range(40)]
    await asyncio.sleep(0)
    async with door.device:
        assert tpm.opened <= 2
    await asyncio.gather(*asking)


async def test_too_many_from_one_source_or_in_all_are_turned_away_and_the_others_are_not() -> None:
    tpm = SlowTpm(takes_s=0.0)
    door = door_of(tpm)
    async with door.device:
        mine = [asyncio.create_task(door.answer(REQUEST, source=HERE)) for _ in range(MAX_WAITING_PER_SOURCE)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="too many wait for the TPM"):
            await door.answer(REQUEST, source=HERE)
        rest = range(MAX_WAITING - MAX_WAITING_PER_SOURCE)
        others = [asyncio.create_task(door.answer(REQUEST, source=f"198.51.100.{number}")) for number in rest]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await door.answer(REQUEST, source="203.0.113.1")
    await asyncio.gather(*mine, *others)
    await door.answer(REQUEST, source=HERE)  # there is room again
    assert tpm.opened == MAX_WAITING + 1


async def test_a_slow_tpm_ends_patience_and_is_not_disturbed() -> None:
    tpm = SlowTpm(takes_s=0.3)
    door = door_of(tpm, patience_s=0.05)
    with pytest.raises(DeadlineExceededError, match=r"the TPM has not opened the credential within 0\.05 s"):
        await door.answer(REQUEST, source=HERE)
    assert door.device.locked()  # the command that was sent goes on, and nobody else sends one meanwhile
    async with door.device:
        assert (tpm.opened, tpm.most_at_once) == (1, 1)


async def test_who_leaves_while_it_waits_takes_no_turn() -> None:
    tpm = SlowTpm()
    door = door_of(tpm)
    async with door.device:
        first, second = (asyncio.create_task(door.answer(REQUEST, source=HERE)) for _ in range(2))
        await asyncio.sleep(0)
        second.cancel()
    await first
    await asyncio.sleep(0.05)
    assert tpm.opened == 1


@pytest.mark.parametrize(
    ("error", "raised"),
    [(CredentialRefusedError("0x1df"), ActivationRefusedError), (AttesterError("it does not answer"), AttesterError)],
    ids=["refused", "failed"],
)
async def test_what_the_tpm_says_no_to_is_told_from_what_it_cannot_do(
    error: Exception, raised: type[Exception]
) -> None:
    tpm = SlowTpm(error=error)
    door = door_of(tpm)
    for _ in range(2):  # and the queue goes on
        with pytest.raises(raised):
            await door.answer(REQUEST, source=HERE)
    assert tpm.opened == 2


async def test_what_is_no_credential_does_not_reach_the_tpm() -> None:
    tpm = SlowTpm()
    for request in (b"", b"{}", REQUEST + b" x", encode_request(Credential(blob=bytes(67), encrypted_seed=bytes(256)))):
        with pytest.raises(InvalidInputError, match="expected a credential for an endorsement key"):
            await door_of(tpm).answer(request, source=HERE)
    assert tpm.opened == 0


async def test_where_no_ek_is_shown_it_says_so() -> None:
    with pytest.raises(NotSupportedError, match="shows no endorsement key"):
        await ActivationDoor(activate=None, device=asyncio.Lock()).answer(REQUEST, source=HERE)
