"""What one connection may take of the server before anybody has proved anything: numbers only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one connection may take.

    Attributes:
        max_connections: twice as many are accepted, so that those above it can be told; the rest is cut.
        max_head_bytes: of a request's head, and of what stands between two pieces of a body or after it.
        max_headers: in a request's head.
        head_timeout_s: from the connection, or the first byte of a later request, to the end of its head.
        idle_timeout_s: in which `min_progress_bytes` of a body arrive, and an answer that waits is read on.
        min_progress_bytes: so that a byte now and then does not hold a connection for ever.
        keep_alive_s: between an answer and the first byte of the next request.
        spare_chunks: that a chunked body may have beyond one for each `chunk_bytes` of it.
        chunk_bytes: see `spare_chunks`; a body of a million tiny chunks costs far more than its size says.
        max_buffered_bytes: of a body that its handler has not taken; then reading pauses.
    """

    max_connections: int = 1024
    max_head_bytes: int = 64 * 1024
    max_headers: int = 256
    head_timeout_s: float = 30.0
    idle_timeout_s: float = 60.0
    min_progress_bytes: int = 8 * 1024
    keep_alive_s: float = 75.0
    spare_chunks: int = 10_000
    chunk_bytes: int = 128
    max_buffered_bytes: int = 64 * 1024

    @property
    def tick_s(self) -> float:
        """How often deadlines are looked at."""
        return min(1.0, self.head_timeout_s / 4, self.idle_timeout_s / 4, self.keep_alive_s / 4)
