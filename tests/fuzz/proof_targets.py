"""Fuzz targets of what a client keeps or meets: receipts, proofs, bundles, and answers before they are proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.intel_pki import ROOT_MADE
from fuzz.message_targets import documents
from fuzz.target import Target, join_parts, split_parts, vector_inputs

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import BatchProof, parse_document
from blindai.bundle import (
    UploadHeader,
    UploadResult,
    digest_text,
    encode_upload_header,
    manifest_digest,
    parse_manifest,
    parse_upload_header,
)
from blindai.channel.heads import parse_wire_error
from blindai.client.http_message import AnswerBody
from blindai.client.model_reference import parse_reference
from blindai.client.proof import Opening, Proof, opened_outputs, parse_opening, parse_proof
from blindai.client.saved_response import SavedRun, SavedUpload, read_any_proof, read_saved
from blindai.client.transport import HttpRequest, check_pins, parse_server_url, spki_digest
from blindai.oip.answers import InferResponse, encode_infer_response
from blindai.oip.rest import decode_infer_request
from blindai.oip.tensor_entries import header_length
from blindai.oip.tensors import Datatype, decode_tensor
from blindai.receipts import ModelIdentity, Receipt, sign_receipt, verify_receipt
from blindai.wire import base64url_decode, base64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
_PUBLIC = _SIGNER.public_key().public_bytes_raw()


def _receipt(data: bytes) -> None:
    verify_receipt(data.decode("utf-8", "replace"), public_key=_PUBLIC, keyset_id=bytes(32))


def _signed_receipt(data: bytes) -> None:
    """Header and payload are anything, and the signature is right."""
    signed = ".".join(base64url_encode(part) for part in split_parts(data, 2))
    token = f"{signed}.{base64url_encode(_SIGNER.sign(signed.encode()))}"
    verify_receipt(token, public_key=_PUBLIC, keyset_id=bytes(32))


def _receipts() -> Iterator[str]:
    identity = ModelIdentity(
        name="m", version="1", digest="sha256:" + "a" * 64, engine="onnxruntime 1.22.0", precision="fp32"
    )
    for model in (None, identity):
        receipt = Receipt(
            keyset_id=bytes(32),
            request_id=bytes(16),
            door="sealed",
            method="POST",
            path="/v2/models/m/infer",
            status=200,
            complete=True,
            model=model,
            runtime_policy=bytes(32),
            padded=False,
            start_ms=1,
            end_ms=2,
            request=bytes(32),
            response=bytes(32),
        )
        yield sign_receipt(receipt, _SIGNER, public_key=_PUBLIC)


def _signed_parts() -> Iterator[bytes]:
    for token in _receipts():
        header, payload, _ = token.split(".")
        yield join_parts(base64url_decode(header), base64url_decode(payload))


def _proofs() -> Iterator[bytes]:
    for encoded in documents():
        document = parse_document(encoded)
        if document.mode is Mode.CACHED:
            yield Proof(receipt=next(_receipts()), document=document).encode()


def _openings() -> Iterator[bytes]:
    tensor = decode_tensor(bytes(8), name="y", datatype=Datatype.FP32, shape=(2, 1))
    buffers, length = encode_infer_response(InferResponse(model_name="m", model_version="1", id="", outputs=(tensor,)))
    for nonce, batch in ((None, None), (bytes(32), BatchProof(index=0, count=2, path=(bytes(32),)))):
        yield Opening(
            salt=bytes(32),
            request_body=b"patient",
            response_body=b"".join(bytes(piece) for piece in buffers),
            response_header_length=length or 0,
            nonce=nonce,
            batch=batch,
        ).encode()


def _saved_response(data: bytes) -> None:
    saved = read_saved(data)
    assert read_saved(saved.encode()) == saved
    assert read_any_proof(saved.encode())[0] == saved.proof


def _saved_responses() -> Iterator[bytes]:
    proof = parse_proof(next(_proofs()))
    for opening in _openings():
        yield SavedRun(proof=proof, opening=parse_opening(opening)).encode()
    yield SavedUpload(proof=proof, salt=bytes(32), answer=next(_upload_results())).encode()


def _kept_request(data: bytes) -> None:
    """A request's body alone, as an opening holds it: where its JSON ends is found in it."""
    decode_infer_request(data, header_length(data))


def _upload_headers() -> Iterator[bytes]:
    files = (("m.onnx", 3), ("weights.bin", 9))
    for version, shape in ((None, None), ("2", (-1, 3))):
        header = UploadHeader(version=version, files=files, default_shape=shape, load=True)
        yield encode_upload_header(header)[4:]


def _upload_results() -> Iterator[bytes]:
    for manifest in vector_inputs("bundle", "manifest", "manifest"):
        digest = digest_text(manifest_digest(manifest))
        yield UploadResult(name="m", version="1", digest=digest, manifest=manifest).encode()


def _unproven_answer(data: bytes) -> None:
    """Status (two bytes), Content-Length, Transfer-Encoding and body, as anybody on the path can write them."""
    status, length, coding, body = split_parts(data, 4)
    headers = (("content-length", length.decode("latin-1")), ("Transfer-Encoding", coding.decode("latin-1")))
    request = HttpRequest(method="POST", path="/", max_body_bytes=1000, timeout_s=1.0)
    answer = AnswerBody(request, int.from_bytes(status[:2], "big"), [header for header in headers if header[1]])
    answer.feed(body)
    parse_wire_error(answer.response().body)


def _unproven_answers() -> Iterator[bytes]:
    error = b'{"error":"x","code":"y","hint":"z"}'
    yield join_parts(b"\x01\x90", str(len(error)).encode(), b"", error)
    yield join_parts(b"\0\xc8", b"", b"chunked", error)


def _pinned_certificate(data: bytes) -> None:
    """What a server shows in TLS, while a request waits for the pinned key."""
    pinned = spki_digest(ROOT_MADE.public_bytes(Encoding.DER)) or b""
    request = HttpRequest(method="GET", path="/", max_body_bytes=1, timeout_s=1.0, pins=(pinned,))
    check_pins(parse_server_url("host"), request, spki_digest(data))


TARGETS = (
    Target(name="receipt", run=_receipt, seeds=lambda: (token.encode() for token in _receipts())),
    Target(name="signed_receipt", run=_signed_receipt, seeds=_signed_parts),
    Target(name="proof", run=parse_proof, seeds=_proofs),
    Target(name="opening", run=lambda data: opened_outputs(parse_opening(data)), seeds=_openings),
    Target(name="saved_response", run=_saved_response, seeds=_saved_responses),
    Target(
        name="kept_request",
        run=_kept_request,
        seeds=lambda: (
            b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1.5]}]}    ',
            b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":1}}]}     ' + b"\1",
        ),
    ),
    Target(name="bundle_manifest", run=parse_manifest, seeds=lambda: vector_inputs("bundle", "manifest", "manifest")),
    Target(name="upload_header", run=parse_upload_header, seeds=_upload_headers),
    Target(name="upload_result", run=UploadResult.decode, seeds=_upload_results),
    Target(name="unproven_answer", run=_unproven_answer, seeds=_unproven_answers),
    Target(name="pinned_certificate", run=_pinned_certificate, seeds=lambda: (ROOT_MADE.public_bytes(Encoding.DER),)),
    Target(
        name="server_url",
        run=lambda data: parse_server_url(data.decode("utf-8", "replace")),
        seeds=lambda: (b"https://[::1]:50051/", b"host:1"),
    ),
    Target(
        name="model_reference",
        run=lambda data: parse_reference(data.decode("utf-8", "replace")),
        seeds=lambda: (b"alpha:model@sha256:" + b"a" * 64, b"m"),
    ),
)
