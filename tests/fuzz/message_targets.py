"""Fuzz targets of what client and server send each other: documents, keysets, sealed requests and answers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import msgspec
from channel.sealed_parts import Server, hostile_frame, opened_session, request_head, runtime_policy
from fuzz.target import Target, join_parts, split_parts, vector_inputs

from blindai.attestation.binding import Mode, root_from_path
from blindai.attestation.evidence import (
    AttestationDocument,
    BatchProof,
    EvidenceItem,
    encode_document,
    parse_document,
)
from blindai.attester.simulation import SimulationAttester
from blindai.channel.admission import parse_admission
from blindai.channel.exchange import SESSION_HEADER_BYTES, SESSION_REQUEST_MAGIC, Exchange, session_header_fields
from blindai.channel.frames import FrameOpener, FrameSealer, FrameType
from blindai.channel.heads import (
    ResponseHead,
    Trailer,
    WireError,
    parse_request_head,
    parse_response_head,
    parse_trailer,
    parse_wire_error,
)
from blindai.channel.keyset import parse_keyset
from blindai.channel.runtime_policy import parse_runtime_policy
from blindai.channel.sealed import AnswerReader, RequestReader
from blindai.wire import base64url_decode, base64url_encode, compact_json, strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYS = bytes(range(44))
_MAX_JSON_BYTES = 1 << 16
_MOST_FRAMES = 8


@functools.cache
def _server() -> Server:
    return Server()


# --- the attestation document, and the keys that it vouches for


def _document(data: bytes) -> None:
    document = parse_document(data)
    assert parse_document(encode_document(document)) == document


def documents() -> Iterator[bytes]:
    """A published document, and one for a nonce in a batch, with devices."""
    item = SimulationAttester(bytes, bytes(32)).attest(bytes(64))
    device = EvidenceItem(tee="nvidia_gpu", evidence=b"x", endorsements=(("device_chain", b"y"),))
    batch = BatchProof(index=1, count=3, path=(bytes(32), bytes(32)))
    keyset = _server().held.keyset.encode()
    for document in (
        AttestationDocument(keyset=keyset, mode=Mode.CACHED, evidence=(item,)),
        AttestationDocument(keyset=keyset, mode=Mode.FRESH, evidence=(item, device, device), batch=batch),
    ):
        yield encode_document(document)


def _base64url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert base64url_encode(base64url_decode(text)) == text


def _keyset(data: bytes) -> None:
    keyset = parse_keyset(data)
    assert parse_keyset(keyset.encode()) == keyset


def _admissions() -> Iterator[bytes]:
    key, signature = base64url_encode(bytes(32)), base64url_encode(bytes(64))
    yield compact_json({"public_key": key, "not_after": 9, "signature": signature})


def _batch_path(data: bytes) -> None:
    index, count, nodes = data[:4], data[4:8], data[8:]
    root_from_path(
        nonce=bytes(32),
        index=int.from_bytes(index, "big"),
        count=int.from_bytes(count, "big"),
        path=[nodes[at : at + 32] for at in range(0, len(nodes), 32)],
    )


def _batch_paths() -> Iterator[bytes]:
    for index, count, nodes in ((0, 1, 0), (1, 2, 1), (4, 5, 1), (2, 7, 3), (2**31, 2**32 - 1, 32)):
        yield index.to_bytes(4, "big") + count.to_bytes(4, "big") + bytes(32 * nodes)


# --- sealed messages, from outside and from a peer who has the keys


def _frames(data: bytes) -> None:
    cut = data[0] if data else 0
    opener = FrameOpener(_KEYS)
    opener.feed(data[1:cut])
    opener.feed(data[max(1, cut) :])
    opener.end()


def _sealed_frames() -> Iterator[bytes]:
    sealer = FrameSealer(_KEYS)
    yield b"\x07" + sealer.seal_head(b"head") + sealer.seal(FrameType.LAST, b"data")


@functools.cache
def _exchange() -> Exchange:
    """One for all inputs: to make one takes longer than to read what is sent in it."""
    return msgspec.structs.replace(_server().seal().exchange, request_keys=_KEYS)


def _authentic_frames(data: bytes, keys: bytes) -> bytes:
    """Each part is a frame: its type in the first byte, then the plaintext, whatever it holds."""
    parts = [part for part in split_parts(data, _MOST_FRAMES) if part]
    return b"".join(hostile_frame(keys, index, part[0], part[1:]) for index, part in enumerate(parts))


def _request_frames(data: bytes) -> None:
    reader = RequestReader(_exchange())
    reader.feed(_authentic_frames(data, _KEYS))
    reader.end()


def _answer_frames(data: bytes) -> None:
    header = _exchange().answer_prefix + bytes(32)
    reader = AnswerReader(_exchange(), max_body_bytes=_MAX_JSON_BYTES)
    reader.feed(header + _authentic_frames(data, _exchange().answer_keys(header)))
    reader.finish(bytes(32))


def _frame(kind: FrameType, data: bytes, *, block: int = 1024) -> bytes:
    plaintext = len(data).to_bytes(4, "big") + data
    return bytes([kind]) + plaintext + bytes(-len(plaintext) % block)


def _good_requests() -> Iterator[bytes]:
    head = _frame(FrameType.MORE, request_head().encode())
    yield join_parts(head, _frame(FrameType.LAST, b"body"))
    yield join_parts(head, _frame(FrameType.LAST, b"", block=1))


def _good_answers() -> Iterator[bytes]:
    ok = ResponseHead(status=200, headers=(("retry-after", "1"), ("content-type", "application/json")))
    trailer = Trailer(request_digest=bytes(32), receipt="a.b.c")
    failed = Trailer(request_digest=None, error=WireError(code="internal", message="m", hint="h"))
    for head, last in ((ok, trailer), (msgspec.structs.replace(ok, status=500), failed)):
        frames = (_frame(FrameType.MORE, head.encode()), _frame(FrameType.MORE, b"body", block=1))
        yield join_parts(*frames, _frame(FrameType.LAST, last.encode()))


def _session_header(data: bytes) -> None:
    if len(data) == SESSION_HEADER_BYTES and data.startswith(SESSION_REQUEST_MAGIC):  # what the server checks before
        session_header_fields(data)
        opened_session(_server()).exchange(data, route="cm91dGU")


TARGETS = (
    Target(name="attestation_document", run=_document, seeds=documents),
    Target(
        name="strict_json",
        run=lambda data: strict_json(data, max_bytes=_MAX_JSON_BYTES),
        seeds=lambda: vector_inputs("keyset", "strict_json", "json"),
        refuses=(ValueError,),
    ),
    Target(name="base64url", run=_base64url, seeds=lambda: (b"", b"AA", b"_-8"), refuses=(ValueError,)),
    Target(name="keyset", run=_keyset, seeds=lambda: vector_inputs("keyset", "keyset", "keyset")),
    Target(
        name="admission",
        run=lambda data: parse_admission(strict_json(data, max_bytes=_MAX_JSON_BYTES)),
        seeds=_admissions,
        refuses=(ValueError,),
    ),
    Target(
        name="runtime_policy",
        run=lambda data: parse_runtime_policy(strict_json(data, max_bytes=_MAX_JSON_BYTES)),
        seeds=lambda: (compact_json(runtime_policy().members()),),
        refuses=(ValueError,),
    ),
    Target(name="batch_path", run=_batch_path, seeds=_batch_paths),
    Target(name="sealed_request", run=lambda data: _server().read(data), seeds=lambda: (_server().seal().message,)),
    Target(name="frames", run=_frames, seeds=_sealed_frames),
    Target(name="request_frames", run=_request_frames, seeds=_good_requests),
    Target(name="answer_frames", run=_answer_frames, seeds=_good_answers),
    Target(name="request_head", run=parse_request_head, seeds=lambda: vector_inputs("sealed", "request_head", "head")),
    Target(
        name="response_head", run=parse_response_head, seeds=lambda: vector_inputs("sealed", "response_head", "head")
    ),
    Target(name="trailer", run=parse_trailer, seeds=lambda: vector_inputs("sealed", "trailer", "trailer")),
    Target(name="wire_error", run=parse_wire_error, seeds=lambda: (b'{"error":"x","code":"y","hint":"z"}',)),
    Target(
        name="session_header",
        run=_session_header,
        seeds=lambda: vector_inputs("session", "session_header", "header"),
    ),
)
