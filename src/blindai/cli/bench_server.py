"""`blindai bench MODEL --server URL`: how much a running server answers, as its clients see it.

Each request is attested, sealed and checked as by `blindai infer`, so what is measured holds the network, both ends'
cryptography and the model. Whoever measures needs a key that may run the model, and the server's own refusals stand.
Leaves out: which settings would be better (`bench`), and what a request costs the server (its operator's metrics).
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from blindai.errors import OverloadedError
from blindai.oip.random_tensors import random_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blindai.cli.options import Server
    from blindai.oip.metadata import ModelMetadata
    from blindai.oip.tensors import Tensor

_MIN_ROUNDS = 3

Ask = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWish:
    """What is to be measured.

    Attributes:
        model: its name, or `None` for the one uploaded last.
        sample: inputs by name; random numbers if `None`.
        shapes: of random inputs, by name.
        most_in_flight: requests at a time, at most.
        budget_s: no measurement is begun after so much time, but the first.
        window_s: of each measurement.
    """

    model: str | None
    sample: Mapping[str, Any] | None
    shapes: Mapping[str, tuple[int, ...]]
    most_in_flight: int
    budget_s: float
    window_s: float

    @property
    def levels(self) -> tuple[int, ...]:
        """1, 2, 4 … and the most."""
        powers = takewhile(lambda level: level < self.most_in_flight, (1 << bits for bits in count()))
        return (*powers, self.most_in_flight)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLevel:
    """How a server did with so many requests at a time.

    Attributes:
        rate: answers in a second.
        p50_ms: median time of an answer.
        p99_ms: 99 of 100 answers took at most this.
        client_cpu_ms: of the thread that asks, for each answer: sealing, opening and checking.
    """

    in_flight: int
    rate: float
    p50_ms: float
    p99_ms: float
    client_cpu_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLoad:
    """Everything that was found out.

    Attributes:
        model: its name.
        digest: of the version that answered all.
        level: of the evidence.
        measured: in rising order.
        complete: whether everything was tried that should have been.
        refusal: the server's words, if it took no more requests at a time.
    """

    model: str
    digest: str
    level: str
    measured: tuple[LoadLevel, ...]
    complete: bool
    refusal: str


async def measure(server: Server, wish: LoadWish, *, on_measured: Callable[[LoadLevel], None]) -> ServerLoad:
    """Ask a server, ever more at a time.

    Args:
        server: which, and what is accepted as proof.
        wish: what to measure.
        on_measured: called after each level.

    Raises:
        BlindAIError: whatever attestation or the first request raises.
    """
    async with server.connect_async() as client:
        metadata = await client.metadata(wish.model)
        name = (wish.model or metadata.name).partition("@")[0]
        inputs = _made_up(metadata, wish) if wish.sample is None else wish.sample
        ask = functools.partial(client.infer, f"{name}@{metadata.digest}", inputs)
        await ask()
        found, refusal = await climb(ask, wish, on_measured)
        return ServerLoad(
            model=metadata.name,
            digest=metadata.digest,
            level=client.attestation.level,
            measured=found,
            complete=len(found) == len(wish.levels),
            refusal=refusal,
        )


def _made_up(metadata: ModelMetadata, wish: LoadWish) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in random_tensors(metadata.inputs, rows=1, shapes=wish.shapes)}


async def climb(
    ask: Ask, wish: LoadWish, on_measured: Callable[[LoadLevel], None]
) -> tuple[tuple[LoadLevel, ...], str]:
    """As far as time and the server allow, and the server's words if it is the one who does not.

    Raises:
        BlindAIError: what `ask` raises, unless the server only takes no more requests at a time.
    """
    found: list[LoadLevel] = []
    ends_s = time.monotonic() + wish.budget_s
    for in_flight in wish.levels:
        if found and time.monotonic() >= ends_s:
            break
        try:
            found.append(await _level(ask, in_flight, wish.window_s))
        except OverloadedError as error:
            if not found:
                raise
            return tuple(found), str(error)
        on_measured(found[-1])
    return tuple(found), ""


async def _level(ask: Ask, in_flight: int, window_s: float) -> LoadLevel:
    await _together([ask() for _ in range(in_flight)])  # connections open, processes warm
    latencies: list[float] = []
    begun_s, begun_cpu_s = time.perf_counter(), time.thread_time()

    async def ask_on() -> None:
        rounds = 0
        while rounds < _MIN_ROUNDS or time.perf_counter() < begun_s + window_s:
            sent_s = time.perf_counter()
            await ask()
            latencies.append(time.perf_counter() - sent_s)
            rounds += 1

    await _together([ask_on() for _ in range(in_flight)])
    took_s, cpu_s = time.perf_counter() - begun_s, time.thread_time() - begun_cpu_s
    latencies.sort()
    return LoadLevel(
        in_flight=in_flight,
        rate=len(latencies) / took_s,
        p50_ms=1000 * statistics.median(latencies),
        p99_ms=1000 * latencies[int(0.99 * (len(latencies) - 1))],
        client_cpu_ms=1000 * cpu_s / len(latencies),
    )


async def _together(asks: Sequence[Coroutine[Any, Any, Any]]) -> None:
    """All of them; the first failure is everybody's, and none goes on behind it."""
    running = [asyncio.create_task(ask) for ask in asks]
    try:
        await asyncio.gather(*running)
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
