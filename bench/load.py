"""The load: one process that keeps requests in the air on N connections and says what came of them.

    python bench/load.py SPEC.json      (started by `measure.py`, pinned to its own core)

Each connection sends its next request when it has the whole answer. Lines on stdin: `prepare CONNECTIONS SECONDS`, then
`go`; on stdout `ready`, then one line of JSON. Sealed requests are sealed before `go` and opened and verified after the
end, so that the server is what is measured; what sealing and opening cost is measured too, and told.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import uvloop

from blindai.attestation.policy import insecure_simulation_policy
from blindai.channel.exchange import MEDIA_TYPE, Exchange
from blindai.channel.heads import REQUEST_ID_BYTES, SALT_BYTES, RequestHead
from blindai.channel.sealed import AnswerReader, RequestWriter
from blindai.client import flows
from blindai.client.attest_flow import attest
from blindai.client.connection import SYSTEM_CLOCK, ClientSettings, Connection
from blindai.client.exchange_flow import SEALED_PATH
from blindai.client.http_sync import SyncTransport
from blindai.client.transport import parse_server_url
from blindai.oip.rest import InferRequest, encode_infer_request
from blindai.oip.tensors import tensor_from
from blindai.receipts import verify_receipt
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.client.transport import HttpRequest, HttpResponse

SEALED_AHEAD = 900  # a session's window is 1024 numbers wide
_MAX_ANSWER_BYTES = 1 << 28


@dataclass(slots=True)
class Sealed:
    """A sealed request, and what opens its answer."""

    data: bytes
    exchange: Exchange
    digest: bytes
    number: int
    answer: bytes = b""


@dataclass(slots=True)
class Window:
    """What all connections of one measurement share."""

    until_s: float
    requests: deque[Any]  # Sealed, or one request's bytes for ever
    endless: bytes | None
    latencies_s: list[float] = field(default_factory=list)

    def next(self) -> Any:
        """The next request, or None when it is over."""
        if time.perf_counter() >= self.until_s:
            return None
        if self.endless is not None:
            return self.endless
        return self.requests.popleft() if self.requests else None


class Sender(asyncio.Protocol):
    """One connection; sends the next request when it has the whole answer."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._missing = -1
        self.failure = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready; `start` sends the first."""
        self._transport: Any = transport

    def start(self, window: Window) -> asyncio.Future[None]:
        """Send the first request; done with the last answer."""
        self._window = window
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next()
        return self.done

    def connection_lost(self, exc: Exception | None) -> None:
        """Before its end that is a failure."""
        self._fail(repr(exc or "the server ended the connection"))

    def data_received(self, data: bytes) -> None:
        """Look for the end of the answer."""
        self._received += data
        if self._missing < 0:
            at = self._received.find(b"\r\n\r\n")
            if at < 0:
                return
            top = bytes(self._received[:at]).lower()
            if b" 200 " not in top[:16]:
                self._fail(repr(bytes(self._received[:400])))
                return
            length = int(top.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._body_at = at + 4
            self._missing = self._body_at + length
        if len(self._received) < self._missing:
            return
        self._window.latencies_s.append(time.perf_counter() - self._sent_s)
        if isinstance(self._request, Sealed):
            self._request.answer = bytes(self._received[self._body_at : self._missing])
        self._received.clear()
        self._missing = -1
        self._next()

    def _next(self) -> None:
        self._request = self._window.next()
        if self._request is None:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._sent_s = time.perf_counter()
        self._transport.write(self._request.data if isinstance(self._request, Sealed) else self._request)

    def _fail(self, why: str) -> None:
        self.failure = why
        done = getattr(self, "done", None)
        if done is not None and not done.done():
            done.set_exception(RuntimeError(why))


def request_bytes(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


def binary_body(inputs: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """The Open Inference Protocol's binary form, asking for binary outputs."""
    tensors = tuple(tensor_from(array, name=name) for name, array in inputs.items())
    buffers, length = encode_infer_request(InferRequest(id="", inputs=tensors, outputs=()))
    fields = {"Inference-Header-Content-Length": str(length), "Content-Type": "application/octet-stream"}
    return b"".join(buffers), fields


class Plain:
    """Requests that are always the same bytes."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._bytes = request_bytes(spec["path"], base64.b64decode(spec["body"]), spec["headers"])

    def window(self, seconds: float) -> Window:
        """Until the time is over."""
        return Window(time.perf_counter() + seconds, deque(), self._bytes)

    def close(self, _window: Window) -> dict[str, float]:
        """Nothing to open."""
        return {}


class SealedSession:
    """Requests in one session, each sealed by itself."""

    def __init__(self, spec: dict[str, Any]) -> None:
        settings = ClientSettings(policy=insecure_simulation_policy())
        self._connection = Connection(settings, clock=SYSTEM_CLOCK, random=os.urandom)
        self._url, self._model, self._receipts = spec["url"], spec["model"], spec["receipts"]
        self._inputs = dict(np.load(spec["inputs"]))
        self._body, fields = binary_body(self._inputs)
        self._headers = (("inference-header-content-length", fields["Inference-Header-Content-Length"]),)
        self._left: list[Sealed] = []
        self._seal_us = 0.0

    def _open_session(self) -> None:
        transport = SyncTransport(parse_server_url(self._url))
        self.open_session(transport.send)
        transport.close()

    def open_session(self, send: Callable[[HttpRequest], HttpResponse]) -> None:
        """Attest, and infer once by the SDK's own flows."""
        for flow in (
            attest(self._connection),
            flows.infer(self._connection, self._model, self._inputs, version=None, outputs=()),
        ):
            _drive(flow, send)

    def window(self, seconds: float) -> Window:
        """As many as a session allows to be ahead."""
        if self._connection.attested is None:
            self._open_session()
        count = min(SEALED_AHEAD, max(16, int(seconds * 6000)))
        begun_s = time.process_time()
        made = [self._seal() for _ in range(count - len(self._left))]
        if made:
            self._seal_us = (time.process_time() - begun_s) / len(made) * 1e6
        self._all = self._left + made  # numbers must not run away from the server's window: none is left out
        return Window(time.perf_counter() + seconds, deque(self._all), None)

    def _seal(self) -> Sealed:
        connection, keyset = self._connection, self._connection.attested
        assert keyset is not None
        taken = connection.take_session(keyset)
        assert taken is not None
        session, number = taken
        self._session = session
        route = base64url_encode(keyset.keyset.instance)
        exchange = session.secret.exchange(session.secret.header(number, connection.random), route=route)
        head = RequestHead(
            request_id=os.urandom(REQUEST_ID_BYTES),
            method="POST",
            path=f"/v2/models/{self._model}/infer",
            headers=(*self._headers, ("blindai-client", base64url_encode(connection.token))),
            content_type="application/octet-stream",
            wants_receipt=self._receipts,
            salt=os.urandom(SALT_BYTES),
            at_ms=session.at_ms(connection.clock.steady()),
        )
        writer = RequestWriter(exchange)
        body = b"".join(writer.write(head, (self._body,)))
        data = request_bytes(SEALED_PATH, body, {"Content-Type": MEDIA_TYPE, "Blindai-Route": route})
        return Sealed(data, exchange, writer.digest, number)

    def close(self, _window: Window) -> dict[str, float]:
        """Open and verify every answer, and release the session's numbers."""
        answered = [sealed for sealed in self._all if sealed.answer]
        keyset = self._connection.attested
        assert keyset is not None
        begun_s = time.process_time()
        for sealed in answered:
            reader = AnswerReader(sealed.exchange, max_body_bytes=_MAX_ANSWER_BYTES)
            reader.feed(sealed.answer)
            answer = reader.finish(sealed.digest)
            if answer.head.status != 200:
                raise RuntimeError(f"sealed status {answer.head.status}: {answer.body!r}")
            if self._receipts:
                verify_receipt(
                    answer.trailer.receipt, public_key=keyset.keyset.receipt_public_key, keyset_id=keyset.keyset_id
                )
        open_us = (time.process_time() - begun_s) / max(1, len(answered)) * 1e6
        self.release()
        return {"seal_us": self._seal_us, "open_us": open_us}

    def release(self) -> None:
        """Numbers of answered requests are free; the others are sent in the next window."""
        for sealed in self._all:
            if sealed.answer:
                self._session.answered(sealed.number)
        self._left = [sealed for sealed in self._all if not sealed.answer]


def _drive(flow: Any, send: Callable[[HttpRequest], HttpResponse]) -> None:
    with contextlib.suppress(StopIteration):
        request = next(flow)
        while True:
            request = flow.send(send(request))


async def _http_window(senders: list[Sender], window: Window) -> None:
    await asyncio.gather(*(sender.start(window) for sender in senders))


async def _connect(senders: list[Sender], spec: dict[str, Any], connections: int) -> None:
    """As many as are missing; they stay open."""
    url = parse_server_url(spec["url"])
    context = None
    if spec["url"].startswith("https"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    senders[:] = [sender for sender in senders if not sender.failure]
    while len(senders) < connections:
        _, sender = await asyncio.get_running_loop().create_connection(Sender, url.host, url.port, ssl=context)
        senders.append(sender)


class Grpc:
    """Calls of one method with the same bytes, over one channel for each connection."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec, self._body = spec, base64.b64decode(spec["body"])
        self._calls: list[Any] = []

    def window(self, seconds: float) -> Window:
        """Until the time is over."""
        return Window(time.perf_counter() + seconds, deque(), self._body)

    def close(self, _window: Window) -> dict[str, float]:
        """Nothing to open."""
        return {}

    async def connect(self, connections: int) -> None:
        """One channel each, as separate clients have."""
        import grpc

        host, _, port = self._spec["url"].rpartition(":")
        options = [("grpc.use_local_subchannel_pool", 1)]
        while len(self._calls) < connections:
            if self._spec["secure"]:
                certificate = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
                credentials = grpc.ssl_channel_credentials(certificate.encode())
                channel = grpc.aio.secure_channel(self._spec["url"], credentials, options=options)
            else:
                channel = grpc.aio.insecure_channel(self._spec["url"], options=options)
            self._calls.append(channel.unary_unary("/inference.GRPCInferenceService/ModelInfer"))

    async def run(self, connections: int, window: Window) -> None:
        """All of them at a time."""

        async def ask(call: Any) -> None:
            while (request := window.next()) is not None:
                sent_s = time.perf_counter()
                await call(request)
                window.latencies_s.append(time.perf_counter() - sent_s)

        await asyncio.gather(*(ask(call) for call in self._calls[:connections]))


def raw_windows(spec: dict[str, Any]) -> None:
    """ONNX Runtime without a server, one request after the other."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(spec["model_file"], options, providers=["CPUExecutionProvider"])
    inputs = dict(np.load(spec["inputs"]))
    session.run(None, inputs)
    for line in sys.stdin:
        seconds = float(line.split()[2])
        print("ready", flush=True)
        sys.stdin.readline()
        window = Window(time.perf_counter() + seconds, deque(), b"")
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        while window.next() is not None:
            sent_s = time.perf_counter()
            session.run(None, inputs)
            window.latencies_s.append(time.perf_counter() - sent_s)
        tell(window, time.perf_counter() - begun_s, time.process_time() - cpu_s, {})


def tell(window: Window, took_s: float, cpu_s: float, more: dict[str, float]) -> None:
    """One line of JSON."""
    latencies = np.array(window.latencies_s) * 1e3
    count = len(latencies)
    found = {
        "count": count,
        "took_s": took_s,
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "client_us": cpu_s / count * 1e6,
        **more,
    }
    print(json.dumps(found), flush=True)


async def windows(spec: dict[str, Any]) -> None:
    """Answer the lines of stdin until it ends."""
    kinds: dict[str, type[Plain | SealedSession | Grpc]] = {"http": Plain, "sealed": SealedSession, "grpc": Grpc}
    source = kinds[spec["kind"]](spec)
    senders: list[Sender] = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        _, connections, seconds = line.split()
        window = await asyncio.to_thread(source.window, float(seconds))
        if isinstance(source, Grpc):
            await source.connect(int(connections))
        else:
            await _connect(senders, spec, int(connections))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        window.until_s = begun_s + float(seconds)
        if isinstance(source, Grpc):
            await source.run(int(connections), window)
        else:
            await _http_window(senders[: int(connections)], window)
        took_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
        tell(window, took_s, cpu_s, source.close(window))


if __name__ == "__main__":
    the_spec = json.loads(Path(sys.argv[1]).read_text())
    if the_spec["kind"] == "raw":
        raw_windows(the_spec)
    else:
        uvloop.run(windows(the_spec))
