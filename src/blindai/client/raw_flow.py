"""One request of the Open Inference Protocol as it stands, sealed, and its answer as it came: for the local proxy.

Leaves out: what is asked (`flows` knows the SDK's requests), and everything about sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.client.exchange_flow import SealedRequest, exchange

if TYPE_CHECKING:
    from blindai.client.attest_flow import Flow
    from blindai.client.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """A verified answer.

    Attributes:
        status: below 400; a failure is raised.
        headers: (lower-case name, value) pairs.
        receipt: the enclave's signed word on it, as a compact JWS (docs/spec/receipt.md).
        level: `fresh`, `cached` or `simulated`, of the keys that it was asked with.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    receipt: str = field(repr=False)
    level: str


def send_raw(connection: Connection, request: SealedRequest) -> Flow[RawAnswer]:
    """Seal a request, and verify its answer and receipt.

    Raises:
        BlindAIError: as `exchange`.
    """
    result = yield from exchange(connection, request)
    return RawAnswer(
        status=result.answer.head.status,
        headers=result.answer.head.headers,
        body=result.answer.body,
        receipt=result.token,
        level=result.keyset.level.text,
    )
