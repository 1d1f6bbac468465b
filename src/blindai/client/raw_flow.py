"""One request of the Open Inference Protocol as it stands, sealed, and its answer as it came: for the local proxy.

The enclave's own refusals are answers here, with their status and headers, and not errors as for the SDK.
Leaves out: what is asked (`flows` knows the SDK's requests), and everything about sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blindai.client.exchange_flow import SealedRequest, exchange
from blindai.errors import InferenceError, ModelStoreError

if TYPE_CHECKING:
    from blindai.channel.attested import AttestedKeyset
    from blindai.channel.sealed import Answer
    from blindai.client.attest_flow import Flow
    from blindai.client.connection import Connection
    from blindai.errors import ServerError


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """An answer that the attested keys vouch for.

    Attributes:
        status: HTTP's.
        headers: (lower-case name, value) pairs.
        receipt: the enclave's signed word on it, as a compact JWS (docs/spec/receipt.md); empty for a refusal.
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
        BlindAIError: as `exchange`, but for what the enclave itself refuses.
    """
    refused: list[tuple[ServerError, Answer, AttestedKeyset]] = []
    try:
        result = yield from exchange(connection, replace(request, on_refusal=lambda *found: refused.append(found)))
    except (InferenceError, ModelStoreError) as error:
        if not refused or refused[-1][0] is not error:  # our own, before anything was sent
            raise
        _, answer, keyset = refused[-1]
        return _raw(answer, keyset, receipt="")
    return _raw(result.answer, result.keyset, receipt=result.token)


def _raw(answer: Answer, keyset: AttestedKeyset, *, receipt: str) -> RawAnswer:
    return RawAnswer(
        status=answer.head.status,
        headers=answer.head.headers,
        body=answer.body,
        receipt=receipt,
        level=keyset.level.text,
    )
