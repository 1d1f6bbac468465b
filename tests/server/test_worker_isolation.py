"""What lies between the server and a model's process: a hostile process, and what stays in shared memory."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from server.model_parts import add_model, floats, stored

from blindai.errors import BlindAIError, InvalidInputError, ModelNotReadyError
from blindai.oip.rest import MAX_BYTES_ELEMENTS
from blindai.oip.tensors import Datatype, Tensor, TensorSpec
from blindai.server import worker_protocol as protocol
from blindai.server.arena import MAX_HEADER_BYTES, Arena, create_arena, place, read_only
from blindai.server.forking import ForkServer, ForkServers, ModelProcess
from blindai.server.model_store import ModelStore
from blindai.server.request_queue import Batch, Outcome, queued_request
from blindai.server.statistics import ModelStatistics
from blindai.server.worker_launch import Launched, WorkerLimits, launch_worker
from blindai.server.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blindai.oip.metadata import Precision
    from blindai.server.runner import Runner

SOON_S = 20.0
KIB = 1024
LIMITS = WorkerLimits(
    threads=1,
    max_request_bytes=64 * KIB,
    max_answer_bytes=64 * KIB,
    max_address_space_bytes=2**40,
    rows_wanted=False,
)
Y = protocol.SpecEntry("y", "FP32", (-1,))
TEXT = protocol.SpecEntry("y", "BYTES", (-1,))


class Ends:
    """What a `WorkerProcess` tells."""

    def __init__(self) -> None:
        self.finished: asyncio.Queue[Outcome] = asyncio.Queue()
        self.has_ended = asyncio.Event()

    def on_finished(self, _runner: Runner, _batch: Batch, outcome: Outcome) -> None:
        self.finished.put_nowait(outcome)

    def on_ended(self, _runner: Runner) -> None:
        self.has_ended.set()


class Impostor:
    """A process that was taken over: the test speaks for it, on its ends of what joins it with the server."""

    def __init__(self) -> None:
        ours, self.doorbell = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control, self.control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, control):
            end.setblocking(False)  # noqa: FBT003  # the standard library's signature
        requests, answers = (create_arena("arena", 64 * KIB) for _ in range(2))
        self.requests, self.answers = Arena(requests, writable=False), Arena(answers, writable=True)
        self.process = subprocess.Popen(["sleep", "600"])
        life, self.life = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.forked_by = ForkServer(process=self.process, control=socket.socket(), children=1)
        load = protocol.Load(
            files=(),
            graph_optimization="all",
            providers=("cpu",),
            threads=1,
            max_answer_bytes=64 * KIB,
            max_address_space_bytes=2**40,
            rows_wanted=False,
        )
        process = ModelProcess(
            server=self.forked_by, pid=self.process.pid, pidfd=os.pidfd_open(self.process.pid), life=life
        )
        launched = Launched(
            process=process, doorbell=ours, control=control, requests=requests, answers=answers, load=load
        )
        self.ends = Ends()
        self.worker = WorkerProcess(
            launched, max_answer_bytes=64 * KIB, on_finished=self.ends.on_finished, on_ended=self.ends.on_ended
        )

    def say(self, kind: int, header: bytes, run_id: int) -> None:
        self.answers.write_header(header)
        self.doorbell.send(protocol.DOORBELL.pack(kind, len(header), run_id))

    async def loaded(
        self, output: protocol.SpecEntry = Y, precision: Precision = "fp32", providers: tuple[str, ...] = ("cpu",)
    ) -> None:
        loading = asyncio.create_task(self.worker.load())
        await asyncio.sleep(0)
        loaded = protocol.Loaded(
            inputs=(protocol.SpecEntry("x", "FP32", (-1,)),),
            outputs=(output,),
            rows_independent=False,
            precision=precision,
            providers=providers,
        )
        self.say(protocol.LOADED, protocol.encode_header(loaded), 0)
        await loading

    def asked(self) -> None:
        """The server sends it a request."""
        request = queued_request(floats(1, 2), (), ModelStatistics())
        self.worker.run(Batch(requests=(request,), rows=1, size=request.size))

    async def end(self) -> None:
        self.life.close()
        await self.worker.end()
        self.process.wait()
        self.forked_by.control.close()
        self.doorbell.close()
        self.control.close()
        self.requests.close()
        self.answers.close()


def result(*entries: protocol.OutputEntry) -> bytes:
    return protocol.encode_header(protocol.Result(entries, 0, 0, 0))


def right() -> bytes:
    return result(protocol.OutputEntry((2,), 8))


NONSENSE: dict[str, Callable[[Impostor], object]] = {
    "a doorbell too short": lambda it: it.doorbell.send(bytes(3)),
    "a doorbell too long": lambda it: it.doorbell.send(bytes(99)),
    "an unknown kind": lambda it: it.say(77, right(), 1),
    "a request": lambda it: it.say(protocol.RUN, right(), 1),
    "loaded again": lambda it: it.say(
        protocol.LOADED,
        protocol.encode_header(
            protocol.Loaded(inputs=(), outputs=(), rows_independent=True, precision="fp32", providers=())
        ),
        1,
    ),
    "another run": lambda it: it.say(protocol.RESULT, right(), 2),
    "a header too long": lambda it: it.doorbell.send(protocol.DOORBELL.pack(protocol.RESULT, 2**32 - 1, 1)),
    "an empty header": lambda it: it.say(protocol.RESULT, b"", 1),
    "a header of noise": lambda it: it.say(protocol.RESULT, os.urandom(200), 1),
    "a failure that is none": lambda it: it.say(protocol.FAILED, right(), 1),
    "no outputs": lambda it: it.say(protocol.RESULT, result(), 1),
    "too many outputs": lambda it: it.say(protocol.RESULT, result(*[protocol.OutputEntry((2,), 8)] * 2), 1),
    "a size that does not fit": lambda it: it.say(protocol.RESULT, result(protocol.OutputEntry((2,), 9)), 1),
    "a size below zero": lambda it: it.say(protocol.RESULT, result(protocol.OutputEntry((2,), -8)), 1),
    "an axis below zero": lambda it: it.say(protocol.RESULT, result(protocol.OutputEntry((-2,), -8)), 1),
    "axes that overflow": lambda it: it.say(protocol.RESULT, result(protocol.OutputEntry((2**62, 4), 0)), 1),
    "an axis beyond all integers": lambda it: it.say(protocol.RESULT, result(protocol.OutputEntry((2**64 - 1,), 8)), 1),
    "more than it may answer": lambda it: it.say(protocol.RESULT, result(protocol.OutputEntry((2**28,), 2**30)), 1),
    "too many axes": lambda it: it.say(protocol.RESULT, result(protocol.OutputEntry((1,) * 17, 4)), 1),
    "the end": lambda it: it.doorbell.close(),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_ends_the_process_and_fails_what_it_ran(nonsense: Callable[[Impostor], object]) -> None:
    impostor = Impostor()
    try:
        await impostor.loaded()
        impostor.asked()
        nonsense(impostor)
        async with asyncio.timeout(SOON_S):
            outcome = await impostor.ends.finished.get()
            await impostor.ends.has_ended.wait()
        assert isinstance(outcome.error, ModelNotReadyError)
        assert impostor.ends.finished.empty()
    finally:
        await impostor.end()
    assert impostor.process.returncode == -9
    assert impostor.forked_by.is_retired
    assert impostor.forked_by.children == 0


TEXTS: dict[str, tuple[protocol.OutputEntry, bytes]] = {
    "too many elements": (protocol.OutputEntry((MAX_BYTES_ELEMENTS + 1,), 4), b""),
    "an element past the end": (protocol.OutputEntry((1,), 8), b"\xff\xff\xff\xff\0\0\0\0"),
    "bytes left over": (protocol.OutputEntry((1,), 8), bytes(8)),
}


@pytest.mark.parametrize(("entry", "data"), TEXTS.values(), ids=TEXTS)
async def test_text_that_is_none_ends_the_process(entry: protocol.OutputEntry, data: bytes) -> None:
    impostor = Impostor()
    try:
        await impostor.loaded(TEXT)
        impostor.asked()
        impostor.answers.write(MAX_HEADER_BYTES, data)
        impostor.say(protocol.RESULT, result(entry), 1)
        async with asyncio.timeout(SOON_S):
            assert isinstance((await impostor.ends.finished.get()).error, ModelNotReadyError)
            await impostor.ends.has_ended.wait()
    finally:
        await impostor.end()


async def test_an_answer_that_nobody_asked_for_ends_the_process() -> None:
    impostor = Impostor()
    try:
        await impostor.loaded()
        impostor.say(protocol.RESULT, right(), 0)
        async with asyncio.timeout(SOON_S):
            await impostor.ends.has_ended.wait()
    finally:
        await impostor.end()


async def test_what_was_read_is_not_changed_afterwards() -> None:
    impostor = Impostor()
    try:
        await impostor.loaded()
        impostor.asked()
        impostor.answers.write(MAX_HEADER_BYTES, np.array([1, 2], dtype=np.float32).tobytes())
        impostor.say(protocol.RESULT, right(), 1)
        async with asyncio.timeout(SOON_S):
            outcome = await impostor.ends.finished.get()
        impostor.answers.write(MAX_HEADER_BYTES, np.array([7, 8], dtype=np.float32).tobytes())
        assert outcome.outputs[0].data.tolist() == [1, 2]
    finally:
        await impostor.end()


async def test_a_boolean_is_one_whatever_its_byte_says() -> None:
    impostor = Impostor()
    try:
        await impostor.loaded(protocol.SpecEntry("y", "BOOL", (-1,)))
        impostor.asked()
        impostor.answers.write(MAX_HEADER_BYTES, b"\x02\x00")
        impostor.say(protocol.RESULT, result(protocol.OutputEntry((2,), 2)), 1)
        async with asyncio.timeout(SOON_S):
            outcome = await impostor.ends.finished.get()
        assert outcome.outputs[0].data.view(np.uint8).tolist() == [1, 0]
    finally:
        await impostor.end()


@pytest.mark.parametrize("spec", [protocol.SpecEntry("y", "NONE", (1,)), protocol.SpecEntry("y", "FP32", (-2,))])
async def test_a_model_that_is_described_by_nonsense_is_not_ready(spec: protocol.SpecEntry) -> None:
    impostor = Impostor()
    try:
        with pytest.raises(ModelNotReadyError):
            await impostor.loaded(spec)
    finally:
        await impostor.end()


async def test_a_model_of_a_precision_that_there_is_not_is_not_ready() -> None:
    impostor = Impostor()
    unknown: Any = "int4"
    try:
        with pytest.raises(ModelNotReadyError):
            await impostor.loaded(precision=unknown)
    finally:
        await impostor.end()


async def test_a_model_that_says_it_runs_on_a_provider_that_it_was_not_given_is_not_ready() -> None:
    impostor = Impostor()
    try:
        with pytest.raises(ModelNotReadyError):
            await impostor.loaded(providers=("cpu", "openvino"))
    finally:
        await impostor.end()


async def test_a_request_that_cannot_be_sent_fails_alone() -> None:
    impostor = Impostor()
    try:
        await impostor.loaded()
        large = np.zeros(40 * KIB, dtype=np.float32)
        for inputs, outputs in (
            (floats(1), ("x" * 2**20,)),
            ((Tensor(name="x", datatype=Datatype.FP32, shape=large.shape, data=large),), ()),
        ):
            request = queued_request(inputs, outputs, ModelStatistics())
            impostor.worker.run(Batch(requests=(request,), rows=1, size=request.size))
            outcome = await impostor.ends.finished.get()
            assert isinstance(outcome.error, BlindAIError)
            assert not isinstance(outcome.error, ModelNotReadyError)
        assert impostor.worker.batch is None
    finally:
        await impostor.end()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    opened = ModelStore(tmp_path / "store")
    yield opened
    opened.close()


def content(descriptor: int) -> bytes:
    """Everything that is in an arena, of which most was never written."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)  # unlike a mapping, it makes no pages


@pytest.mark.parametrize("count", [3, 400_000, 4_000_000], ids=["small", "in a thread", "given back"])
async def test_nothing_of_a_request_or_its_answer_is_left_in_shared_memory(
    store: ModelStore, tmp_path: Path, count: int, tell: Callable[[str], None]
) -> None:
    limits = WorkerLimits(
        threads=1,
        max_request_bytes=4 * count,
        max_answer_bytes=4 * count,
        max_address_space_bytes=2**40,
        rows_wanted=False,
    )
    forks = ForkServers(str(tmp_path), idle_s=60)
    fork_server = forks.of("public")
    await fork_server.until_ready()
    launched = launch_worker(store, stored(store, add_model()), fork_server, limits)
    ends = Ends()
    worker = WorkerProcess(launched, max_answer_bytes=4 * count, on_finished=ends.on_finished, on_ended=ends.on_ended)
    arenas = [os.dup(launched.requests), os.dup(launched.answers)]
    try:
        await worker.load()
        assert not any(any(content(arena)) for arena in arenas)
        data = np.full(count, 1.5, dtype=np.float32)
        request = queued_request(
            (Tensor(name="x", datatype=Datatype.FP32, shape=data.shape, data=data),), (), ModelStatistics()
        )
        worker.run(Batch(requests=(request,), rows=1, size=request.size))
        async with asyncio.timeout(SOON_S):
            outcome = await ends.finished.get()
        assert float(outcome.outputs[0].data.min()) == float(outcome.outputs[0].data.max()) == 2.5
        for arena in arenas:
            assert not any(content(arena))
        held = [os.fstat(arena).st_blocks * 512 for arena in arenas]
        tell(f"{8 * count} bytes went through, {sum(held)} are held")
        wrong = queued_request(floats(1), ("absent",), ModelStatistics())
        worker.run(Batch(requests=(wrong,), rows=1, size=wrong.size))
        async with asyncio.timeout(SOON_S):
            assert isinstance((await ends.finished.get()).error, InvalidInputError)
        assert not any(any(content(arena)) for arena in arenas)
    finally:
        await worker.end()
        await forks.close()
        for arena in arenas:
            os.close(arena)


def test_a_model_cannot_write_requests_or_shrink_shared_memory() -> None:
    descriptor = create_arena("arena", 4 * KIB)
    reading = read_only(descriptor)
    try:
        with pytest.raises(PermissionError):
            mmap.mmap(reading, 4 * KIB)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 2**30)
    finally:
        os.close(reading)
        os.close(descriptor)


def test_places_are_aligned_and_never_overlap() -> None:
    sizes = [1, 0, 64, 65, 3]
    offsets, end = place(sizes)
    assert offsets[0] == MAX_HEADER_BYTES
    assert all(offset % 64 == 0 for offset in offsets)
    for start, size, after in zip(offsets, sizes, [*offsets[1:], end], strict=True):
        assert start + size <= after
    assert end == offsets[-1] + 3
    with pytest.raises(ValueError, match="below zero"):
        place([1, -1])


def test_specs_come_back_as_they_went() -> None:
    specs = (TensorSpec(name="x", datatype=Datatype.BF16, shape=(-1, 3)),)
    assert protocol.unpack_specs(protocol.pack_specs(specs)) == specs
