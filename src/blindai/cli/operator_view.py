"""What the operator sees: a relay that ends TLS, as a CDN does, and a search for the user's bytes in all it can reach.

Used by the demo and by the canary test. The relay holds no key of the enclave; it reads what any machine on the path,
or the server's own host outside the enclave, could read.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from blindai.client.transport import ServerUrl, make_tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

_READ_BYTES = 64 * 1024
_WINDOW_BYTES = 16


class RecordingRelay:
    """Listens on loopback with its own certificate, passes every byte on, and keeps a copy in clear.

    Attributes:
        recording: each direction's bytes, after TLS was taken off.
        url: where clients connect.
    """

    def __init__(self, upstream: ServerUrl, tls: ssl.SSLContext) -> None:
        self.recording = bytearray()
        self._upstream = upstream
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=10)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"https://{host}:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._relay, "127.0.0.1", 0, ssl=self._tls)

    async def _stop(self) -> None:
        assert self._server is not None  # noqa: S101  # __enter__ came first
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a callback of start_server runs in a task
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        up_reader, up_writer = await asyncio.open_connection(
            self._upstream.host, self._upstream.port, ssl=make_tls_context()
        )
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the relay stops: nobody waits for this task
                await asyncio.gather(self._pass(reader, up_writer), self._pass(up_reader, writer))
        finally:
            for stream in (up_writer, writer):
                stream.close()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await stream.wait_closed()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(_READ_BYTES):
                self.recording += piece
                sink.write(piece)
                await sink.drain()
            sink.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What is searched for: 16-byte pieces of everything that is to stay private."""

    pieces: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, values: Iterable[bytes]) -> Secrets:
        """Cut values into pieces; one that is shorter than a piece is searched for whole."""
        pieces = set()
        for value in values:
            for start in range(0, max(1, len(value) - _WINDOW_BYTES + 1), _WINDOW_BYTES):
                piece = value[start : start + _WINDOW_BYTES]
                if len(set(piece)) > 1:  # a run of one byte, such as zeros, stands everywhere
                    pieces.add(piece)
        return cls(pieces=tuple(pieces))

    def found_in(self, data: bytes | bytearray) -> int:
        """How many of the pieces stand in `data`."""
        return sum(piece in data for piece in self.pieces)

    def found_under(self, folder: Path) -> int:
        """How many stand in any file under `folder`, or in its name."""
        names = "\n".join(str(path) for path in folder.rglob("*")).encode()
        contents = (path.read_bytes() for path in folder.rglob("*") if path.is_file())
        return self.found_in(names) + sum(map(self.found_in, contents))


def hex_view(data: bytes | bytearray, *, start: int, rows: int) -> str:
    """A few rows of a hex dump."""
    lines = []
    for offset in range(start, min(len(data), start + 16 * rows), 16):
        row = bytes(data[offset : offset + 16])
        text = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in row)  # noqa: PLR2004  # printable ASCII
        lines.append(f"  {offset:08x}  {row.hex(' '):<47}  {text}")
    return "\n".join(lines)
