"""The RPCs as handlers for grpc.aio: who asks is settled before a message is read, and every failure is a status.

    service() → admit → message → memory → to_rest → answer → from_rest → message

Messages come and go as bytes here: grpc itself would log what it cannot decode.
In a stream requests run side by side, and their answers keep the requests' order.
Leaves out: sockets and TLS, and who answers REST (the server's door, the proxy): `Door`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

from blindai.errors import InvalidInputError
from blindai.oip.grpc.failures import Code, RpcError
from blindai.oip.grpc.schema import HEALTH_SERVICE, SERVICE, Message, Method, decode, message_type, methods
from blindai.oip.grpc.translate import (
    SUPPORTED,
    RestAnswer,
    RestRequest,
    from_rest,
    stream_failure,
    stream_response,
    to_rest,
    unsupported,
    with_deadline,
)
from blindai.oip.grpc.weight import memory_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractContextManager

    Answerer = Callable[[RestRequest], Awaitable[RestAnswer]]

STREAM_IN_FLIGHT = 16
_IN_A_THREAD_BYTES = 256 * 1024  # smaller messages are opened faster than handed over
_WATCH_EVERY_S = 1.0
_GRPC_ERROR_WISH = "triton_grpc_error"
_METHODS = {f"/{SERVICE}/{method.name}": method for method in methods(SERVICE)}
_OPEN = {"ServerLive", "ServerReady"}  # asked by load balancers, who have no credential

_ModelInferRequest = message_type("inference.ModelInferRequest")
_HealthRequest = message_type("grpc.health.v1.HealthCheckRequest")
_HealthResponse = message_type("grpc.health.v1.HealthCheckResponse")
_CHECK, _WATCH = f"/{HEALTH_SERVICE}/Check", f"/{HEALTH_SERVICE}/Watch"
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3


class Door(Protocol):
    """Whoever serves these RPCs."""

    def admit(self, authorization: str | None) -> Answerer:
        """Who asks, by the `authorization` metadata: what answers this principal's requests.

        Raises:
            RpcError: nobody known.
        """

    def hold(self, size: int) -> AbstractContextManager[object]:
        """Memory for one message while it is worked on.

        Raises:
            RpcError: there is none left.
        """

    async def ready(self) -> bool:
        """Whether requests can be answered now."""

    def failed(self, error: Exception) -> None:
        """Take note of a mistake of ours; the caller learns only that there was one."""


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """The inference service and grpc.health.v1; `close` ends the watches that would outlast everything."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Tell who watches the health that it ends."""
        self._closing.set()

    def service(self, call: Any) -> Any:
        """The handler of one RPC; chosen, and its caller admitted, before its message is read."""
        if call.method == _CHECK:
            return grpc.unary_unary_rpc_method_handler(self._check)
        if call.method == _WATCH:
            return grpc.unary_stream_rpc_method_handler(self._watch)
        method = _METHODS.get(call.method)
        if method is None:
            return None
        if method.name in _OPEN:
            return grpc.unary_unary_rpc_method_handler(partial(self._status, method.name))
        return self._admitted(method, call)

    def _admitted(self, method: Method, call: Any) -> Any:
        try:
            if method.name not in SUPPORTED and not method.streams_request:
                raise unsupported(method.name)
            answer = self._door.admit(_metadata(call.invocation_metadata, "authorization"))
        except RpcError as error:
            return grpc.stream_stream_rpc_method_handler(partial(_refuse, error))
        if method.streams_request:
            return grpc.stream_stream_rpc_method_handler(partial(self._stream, answer))
        return grpc.unary_unary_rpc_method_handler(partial(self._unary, method.name, answer))

    # ---- One request, one answer

    async def _unary(self, rpc: str, answer: Answerer, raw: bytes, context: Any) -> bytes:
        try:
            return _encoded(await self._answered(rpc, answer, raw, context))
        except RpcError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # grpc would log its traceback, which can hold values
            failure = self._mistake(error)
        await _abort(failure, context)
        raise failure  # not reached: abort raises

    async def _answered(self, rpc: str, answer: Answerer, raw: bytes, context: Any) -> Message:
        """Any RPC but streams.

        Raises:
            RpcError: its failure.
        """
        with self._door.hold(memory_of(rpc, raw)):
            if len(raw) > _IN_A_THREAD_BYTES:
                request = await asyncio.to_thread(_opened, rpc, raw)
            else:
                request = _opened(rpc, raw)
            return from_rest(rpc, await answer(with_deadline(request, context.time_remaining())))

    def _mistake(self, error: Exception) -> RpcError:
        self._door.failed(error)
        return RpcError(Code.INTERNAL, "the server failed on this request")

    # ---- ModelStreamInfer

    async def _stream(self, answer: Answerer, requests: AsyncIterator[bytes], context: Any) -> None:
        """One answer for each request, in order; a failure is an answer too, or ends the stream if so wished."""
        strict = _metadata(context.invocation_metadata(), _GRPC_ERROR_WISH) == "true"
        one = partial(self._stream_answer, answer, context, strict=strict)
        waiting: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(STREAM_IN_FLIGHT)
        running: set[asyncio.Task[Any]] = set()
        feeder = asyncio.create_task(_feed(requests, one, waiting, running))
        failure: RpcError | None = None
        try:
            while (task := await waiting.get()) is not None:
                await context.write(await task)
                running.discard(task)
        except RpcError as error:
            failure = error
        finally:
            feeder.cancel()
            for task in running:
                task.cancel()
            await asyncio.gather(feeder, *running, return_exceptions=True)
        if failure is not None:
            await _abort(failure, context)

    async def _stream_answer(self, answer: Answerer, context: Any, raw: bytes, *, strict: bool) -> bytes:
        try:
            response = stream_response(await self._answered("ModelInfer", answer, raw, context))
            return response.SerializeToString()
        except RpcError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # as in `_unary`
            failure = self._mistake(error)
        if strict:
            raise failure
        return stream_failure(failure, _request_id(raw)).SerializeToString()

    # ---- Health, asked before anybody is known

    async def _status(self, rpc: str, _raw: bytes, _context: Any) -> bytes:
        if rpc == "ServerLive":
            return _encoded(message_type("inference.ServerLiveResponse")(live=True))
        return _encoded(message_type("inference.ServerReadyResponse")(ready=await self._door.ready()))

    async def _check(self, raw: bytes, context: Any) -> bytes:
        status = await self._health_of(raw)
        if status == _SERVICE_UNKNOWN:
            await _abort(RpcError(Code.NOT_FOUND, "no such service"), context)
        return _encoded(_HealthResponse(status=status))

    async def _watch(self, raw: bytes, context: Any) -> None:
        """The status now, and each time that it changes."""
        told = None
        while not self._closing.is_set():
            status = await self._health_of(raw)
            if status != told:
                await context.write(_encoded(_HealthResponse(status=status)))
                told = status
            try:
                await asyncio.wait_for(self._closing.wait(), _WATCH_EVERY_S)
            except TimeoutError:
                continue
        if told != _NOT_SERVING:
            await context.write(_encoded(_HealthResponse(status=_NOT_SERVING)))

    async def _health_of(self, raw: bytes) -> int:
        try:
            service = decode(_HealthRequest, raw).service
        except InvalidInputError:
            return _SERVICE_UNKNOWN
        if service not in {"", SERVICE, HEALTH_SERVICE}:
            return _SERVICE_UNKNOWN
        return _SERVING if await self._door.ready() else _NOT_SERVING


async def _feed(
    requests: AsyncIterator[bytes],
    one: Callable[[bytes], Awaitable[bytes]],
    waiting: asyncio.Queue[asyncio.Task[bytes] | None],
    running: set[asyncio.Task[Any]],
) -> None:
    """Start requests as they arrive, at most so many at a time as `waiting` holds; `None` ends them.

    Whoever takes them out of `waiting` takes them out of `running`; what is left there at the end is cancelled.
    """
    async for raw in requests:
        task = asyncio.ensure_future(one(raw))
        running.add(task)
        await waiting.put(task)
    await waiting.put(None)


def _opened(rpc: str, raw: bytes) -> RestRequest:
    kind = _METHODS[f"/{SERVICE}/{rpc}"].request
    try:
        message = decode(kind, raw)
    except InvalidInputError as error:
        raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
    return to_rest(rpc, message)


def _encoded(message: Message) -> bytes:
    return message.SerializeToString()


def _request_id(raw: bytes) -> str:
    """Of a request that failed, as far as it can be read."""
    try:
        found: str = decode(_ModelInferRequest, raw).id
    except InvalidInputError:
        return ""
    return found


def _metadata(metadata: Any, name: str) -> str | None:
    return next((value for key, value in metadata or () if key == name and isinstance(value, str)), None)


async def _abort(failure: RpcError, context: Any) -> None:
    await context.abort(grpc.StatusCode[failure.code], failure.details)


async def _refuse(failure: RpcError, _requests: AsyncIterator[bytes], context: Any) -> None:
    """Without reading anything."""
    await _abort(failure, context)
