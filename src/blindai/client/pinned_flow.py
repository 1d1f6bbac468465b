"""The other way to ask, without I/O: plain Open Inference Protocol inside TLS with an attested key (CHANNEL §8).

Each request says which keys it may go to, and the transport looks before it writes a byte. Whoever stole that key reads
everything, and it lives as long as the server: so the level is `pinned-tls` at most, and there is no receipt.
Leaves out: the handshake itself (http_sync.py, http_async.py) and what is asked (flows.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.channel.heads import parse_wire_error
from blindai.client.attest_flow import attest
from blindai.client.transport import HttpRequest
from blindai.errors import ConnectionLostError, PeerKeyMismatchError, SealedMessageError, server_error
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blindai.channel.attested import AttestedKeyset
    from blindai.client.attest_flow import Flow
    from blindai.client.connection import Connection
    from blindai.client.exchange_flow import SealedRequest
    from blindai.client.transport import HttpResponse

_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedResult:
    """An answer that came from a holder of the attested TLS key; nothing about it can be proven to others."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    keyset: AttestedKeyset = field(repr=False)

    def header(self, name: str) -> str | None:
        """The value of a header (lower-case name), or None."""
        return self.headers.get(name)


def pinned_exchange(connection: Connection, request: SealedRequest) -> Flow[PinnedResult]:
    """Ask over pinned TLS; attests first when no living keys are held, and once more when the server has another key.

    Raises:
        BlindAIError: see `attest`; and what the server answered (`InferenceError`, `ModelStoreError`).
        PeerKeyMismatchError: the server does not hold the attested key, even after attesting again; nothing was sent.
    """
    keyset = connection.living_keyset() or (yield from attest(connection))
    try:
        response = yield _http_request(connection, keyset, request)
    except PeerKeyMismatchError:  # before a byte was sent, so whatever was asked may be asked again
        connection.forget(keyset)
        keyset = yield from attest(connection)
        response = yield _http_request(connection, keyset, request)
    _raise_error(response)
    return PinnedResult(body=response.body, headers=response.headers, keyset=keyset)


def _http_request(connection: Connection, keyset: AttestedKeyset, request: SealedRequest) -> HttpRequest:
    headers = [(name, value) for name, value in request.headers]
    if request.content_type:
        headers.append(("Content-Type", request.content_type))
    headers.append(("Blindai-Client", base64url_encode(connection.token)))
    if connection.settings.credential:
        headers.append(("Authorization", f"Bearer {connection.settings.credential()}"))
    return HttpRequest(
        method=request.method,
        path=request.path,
        headers=tuple(headers),
        body=None if request.method == "GET" else map(bytes, request.body()),
        max_body_bytes=connection.settings.max_answer_bytes,
        timeout_s=connection.settings.timeout_s,
        pins=keyset.keyset.tls,
    )


def _raise_error(response: HttpResponse) -> None:
    if response.status == _OK:
        return
    try:
        error = parse_wire_error(response.body)
    except SealedMessageError:
        raise ConnectionLostError(
            f"the server answered with status {response.status} and no reason", hint="is it a BlindAI server?"
        ) from None
    raise server_error(error.code, error.message, hint=error.hint)
