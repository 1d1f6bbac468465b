"""One model's process as the server sees it: requests go out, answers come back and are parsed as hostile.

A model may have taken its process over: sizes are compared before anything is read, and nonsense ends the process.
Leaves out: when processes start and stop (`worker_pool`), and how they are started (`worker_launch`).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError, DeadlineExceededError, ModelNotReadyError
from blindai.oip.datatypes import Datatype, element_count
from blindai.oip.rest import MAX_BYTES_ELEMENTS
from blindai.server.log import LOG
from blindai.server.worker_protocol import (
    LENGTH_BYTES,
    LOAD_ID,
    MAX_HEADER_BYTES,
    Failed,
    Loaded,
    Result,
    Run,
    decode_from_worker,
    encode_message,
    error_of,
    pack_tensors,
    unpack_specs,
    unpack_tensors,
)

if TYPE_CHECKING:
    import socket
    import subprocess

    from blindai.oip.tensors import Tensor, TensorSpec
    from blindai.server.worker_protocol import Buffer, FromWorker, Load, TensorEntry

_STREAM_LIMIT = 1024 * 1024


class WorkerProcess:
    """One process and the requests that wait for it; belongs to one event loop.

    Args:
        process: just started.
        run_timeout_s: longest run of a model; the process ends with it.
        max_answer_bytes: largest sum of a request's outputs.

    Attributes:
        inputs: of the model, once it is loaded.
        outputs: likewise.
        alive: until the process has ended or must end.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, run_timeout_s: float, max_answer_bytes: int) -> None:
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.alive = True
        self._process = process
        self._run_timeout_s = run_timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._waiting: dict[int, asyncio.Future[tuple[Tensor, ...]]] = {}
        self._next_id = LOAD_ID + 1
        self._deadline: asyncio.TimerHandle | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._reaping: asyncio.Task[int] | None = None

    @property
    def process_id(self) -> int:
        """The system's number of it."""
        return self._process.pid

    async def connect(self, channel: socket.socket, load: Load) -> None:
        """Load the model, then start to read answers.

        Raises:
            InvalidModelError: the model cannot be run.
            ModelNotReadyError: the process died, or talks nonsense.
        """
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=channel, limit=_STREAM_LIMIT)
        except BaseException:
            channel.close()
            raise
        try:
            self._writer.write(encode_message(load))
            message = await _read_message(reader)
            if isinstance(message, Failed):
                raise error_of(message)
            if not isinstance(message, Loaded):
                raise _died()
            self.inputs, self.outputs = unpack_specs(message.inputs), unpack_specs(message.outputs)
        except (OSError, EOFError, ValueError):
            raise _died() from None
        self._reading = asyncio.create_task(self._read_answers(reader))

    async def infer(self, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Run the model, as `WorkerPool.infer`."""
        entries, buffers = await _packed(inputs)
        if not self.alive or self._writer is None:
            raise _died()
        request_id, self._next_id = self._next_id, self._next_id + 1
        head = encode_message(Run(id=request_id, tensors=entries, outputs=outputs))
        answer: asyncio.Future[tuple[Tensor, ...]] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        if self._deadline is None:
            self._watch()
        self._writer.writelines([head, *buffers])
        try:
            with contextlib.suppress(ConnectionError):  # the answer's failure says it better
                await self._writer.drain()
            return await answer
        finally:
            answer.cancel()  # the client may have gone away

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        self._fail_all()
        if self._reading is not None:
            self._reading.cancel()
        await self._gone()

    async def _read_answers(self, reader: asyncio.StreamReader) -> None:
        """Hand each answer to its request until the process is gone or talks nonsense."""
        with contextlib.suppress(OSError, EOFError, ValueError, BlindAIError):
            while True:
                message = await _read_message(reader)
                if isinstance(message, Loaded) or message.id not in self._waiting:
                    break
                answer = error_of(message) if isinstance(message, Failed) else await self._read_tensors(reader, message)
                if message.id in self._waiting:  # it may have run out of time while its tensors came
                    _settle(self._waiting.pop(message.id), answer)
                    self._watch()
        self._fail_all()
        status = await self._gone()
        LOG.warning("a model's process ended, exit status %d", status)

    async def _read_tensors(self, reader: asyncio.StreamReader, message: Result) -> tuple[Tensor, ...]:
        sizes = [entry.size for entry in message.tensors]
        if min(sizes, default=0) < 0 or sum(sizes) > self._max_answer_bytes:
            raise ValueError("a worker's answer is too long")
        buffers = [await reader.readexactly(size) for size in sizes]
        texts = [entry for entry in message.tensors if entry.datatype == Datatype.BYTES.value]
        if not texts:
            return unpack_tensors(message.tensors, buffers)
        if sum(element_count(entry.shape) for entry in texts) > MAX_BYTES_ELEMENTS:
            raise ValueError("a worker's answer has too many BYTES elements")
        return await asyncio.to_thread(unpack_tensors, message.tensors, buffers)

    def _watch(self) -> None:
        """Give the request that the process works on its time; it works on one, the oldest."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._run_timeout_s, self._run_out_of_time)

    def _run_out_of_time(self) -> None:
        """Only the end of the process stops a run; what else waits may try again."""
        oldest = next(iter(self._waiting))
        _settle(
            self._waiting.pop(oldest), DeadlineExceededError(f"the model ran longer than {self._run_timeout_s:g} s")
        )
        self._fail_all()

    def _fail_all(self) -> None:
        """Nothing more comes from this process."""
        if self.alive:
            self.alive = False
            self._process.kill()
        waiting, self._waiting = tuple(self._waiting.values()), {}
        for answer in waiting:
            _settle(answer, _died())
        self._watch()

    async def _gone(self) -> int:
        """The exit status, once the socket is closed and the process reaped; whoever waits may be cancelled."""
        if self._reaping is None:
            self._reaping = asyncio.create_task(self._reap())
        return await asyncio.shield(self._reaping)

    async def _reap(self) -> int:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        return await asyncio.to_thread(self._process.wait)


async def _packed(tensors: tuple[Tensor, ...]) -> tuple[tuple[TensorEntry, ...], list[Buffer]]:
    """Numbers are sent from where they lie; text is put together in a thread, since the event loop is everybody's."""
    if any(tensor.datatype is Datatype.BYTES for tensor in tensors):
        return await asyncio.to_thread(pack_tensors, tensors)
    return pack_tensors(tensors)


async def _read_message(reader: asyncio.StreamReader) -> FromWorker:
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > MAX_HEADER_BYTES:
        raise ValueError("a worker's header is too long")
    return decode_from_worker(await reader.readexactly(length))


def _settle(answer: asyncio.Future[tuple[Tensor, ...]], value: tuple[Tensor, ...] | BlindAIError) -> None:
    """Answer a request, unless its client has gone away."""
    if answer.done():
        return
    if isinstance(value, BlindAIError):
        answer.set_exception(value)
    else:
        answer.set_result(value)


def _died() -> ModelNotReadyError:
    return ModelNotReadyError("the model's process has ended", hint="Try again; the next request starts another.")
