"""What each vector's operation means, by this project's own code: decoded inputs in, outputs out.

`tests/second_operations.py` says the same with the second implementation; both must agree with `expected.json`.
A failure is a `BlindAIError`; its `code` is the failure kind that a case names.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from credential_operations import CREDENTIAL_OPERATIONS
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server_operations import SERVER_OPERATIONS

from blindai.attestation import binding
from blindai.attestation.manifest import sign_manifest, verify_manifest
from blindai.bundle import BundleFile, ModelManifest, SessionOptions, parse_manifest
from blindai.channel.admission import Admission, admit, verify_admission
from blindai.channel.exchange import REQUEST_HEADER_BYTES as ONE_SHOT_BYTES
from blindai.channel.exchange import (
    SESSION_HEADER_BYTES,
    SESSION_REQUEST_MAGIC,
    Exchange,
    SessionSecret,
    key_id,
    open_exchange,
    outer_digest,
    replay_digest,
    request_key_id,
    session_header_fields,
)
from blindai.channel.frames import Frame, FrameOpener, FrameType, PaddingBounds, cut_body, padded_size
from blindai.channel.heads import Trailer, parse_request_head, parse_response_head, parse_trailer, parse_wire_error
from blindai.channel.hpke import CEK_BYTES, KEM_ID, WRAPPED_BYTES, HpkeKeyPair
from blindai.channel.keyset import keyset_id, parse_keyset
from blindai.channel.sealed import AnswerReader, AnswerWriter, RequestReader, RequestWriter
from blindai.channel.sessions import ReplayWindow
from blindai.errors import MalformedEvidenceError
from blindai.receipts import BodyCommitment, ModelIdentity, Receipt, receipt_key_id, sign_receipt, verify_receipt
from blindai.wire import base64url_decode, compact_json, label, strict_json

if TYPE_CHECKING:
    from collections.abc import Callable

Inputs = dict[str, Any]
Outputs = dict[str, Any]


def fixed_random(*pieces: bytes) -> Callable[[int], bytes]:
    """Randomness that is a list: each call takes the next piece, which must have the size asked for."""
    remaining = list(pieces)

    def draw(size: int) -> bytes:
        piece = remaining.pop(0)
        assert len(piece) == size
        return piece

    return draw


def key_pair(inputs: Inputs) -> HpkeKeyPair:
    return HpkeKeyPair(fixed_random(inputs["mlkem_seed"], inputs["x25519_seed"]))


def request_info(kid: bytes, keyset: bytes, route: str) -> bytes:
    """HPKE's `info` of a one-shot request."""
    return label("request") + KEM_ID.to_bytes(2, "big") + kid + keyset + outer_digest(route)


def _report_data(inputs: Inputs) -> Outputs:
    bound = binding.report_data(**{**inputs, "mode": binding.Mode(inputs["mode"])})
    return {"bound": bound, "bound_32": binding.report_data_32(bound)}


def _device(inputs: Inputs) -> Outputs:
    about = {
        "mode": binding.Mode(inputs["mode"]),
        "keyset_id": inputs["keyset_id"],
        "challenge": inputs["challenge"],
    }
    digest = binding.device_digest(inputs["evidence"])
    return {
        "device_digest": digest,
        "device_nonce": binding.device_nonce(**about),
        "bound": binding.Binding(**about, device_digest=digest).bound(),
    }


def _batch(inputs: Inputs) -> Outputs:
    tree = binding.BatchTree(inputs["nonces"])
    return {"root": tree.root, "paths": [list(tree.path(index)) for index in range(len(inputs["nonces"]))]}


def _root_from_path(inputs: Inputs) -> Outputs:
    return {"root": binding.root_from_path(**inputs)}


def _keyset(inputs: Inputs) -> Outputs:
    encoded = inputs["keyset"] + b" " * inputs.get("trailing_spaces", 0)
    keyset = parse_keyset(encoded)
    return {
        "keyset_id": keyset_id(encoded),
        "key_id": key_id(keyset.hpke_public_key),
        "kind": keyset.kind,
        "service": keyset.service,
        "instance": keyset.instance,
        "challenge": keyset.challenge,
        "not_after": keyset.not_after,
        "runtime_policy": keyset.runtime.digest,
    }


def _strict_json(inputs: Inputs) -> Outputs:
    try:
        return {"compact": compact_json(strict_json(inputs["json"], max_bytes=1024))}
    except ValueError as error:
        raise MalformedEvidenceError(str(error), finding_code="keyset.malformed") from None


def _base64url(inputs: Inputs) -> Outputs:
    try:
        return {"data": base64url_decode(inputs["text"])}
    except ValueError as error:
        raise MalformedEvidenceError(str(error), finding_code="keyset.malformed") from None


def _admit(inputs: Inputs) -> Outputs:
    rest = {name: value for name, value in inputs.items() if name != "key_seed"}
    admission = admit(Ed25519PrivateKey.from_private_bytes(inputs["key_seed"]), **rest)
    return {"public_key": admission.public_key, "signature": admission.signature}


def _verify_admission(inputs: Inputs) -> Outputs:
    admission = Admission(**{name: inputs[name] for name in ("public_key", "not_after", "signature")})
    names = ("service", "instance", "now", "attestation_key_name")
    return {"operator": verify_admission(admission, **{name: inputs[name] for name in names})}


def _sign_release(inputs: Inputs) -> Outputs:
    made = sign_manifest(inputs["manifest"], Ed25519PrivateKey.from_private_bytes(inputs["key_seed"]))
    return {"line": made.line(), "public_key": made.public_key}


def _verify_release(inputs: Inputs) -> Outputs:
    keys = tuple(inputs["public_keys"])
    return {"signer": verify_manifest(inputs["manifest"], inputs["signatures"], public_keys=keys, source="m")[1]}


def _exchange(inputs: Inputs, header: bytes) -> Exchange:
    if "prk" in inputs:
        return SessionSecret(prk=inputs["prk"], session_id=inputs["session_id"]).exchange(header, route=inputs["route"])
    return open_exchange(header, keys=key_pair(inputs), keyset_id=inputs["keyset_id"], route=inputs["route"])


def _one_shot_keys(inputs: Inputs) -> Outputs:
    header, keys = inputs["header"], key_pair(inputs)
    exchange = _exchange(inputs, header)
    info = request_info(request_key_id(header), inputs["keyset_id"], inputs["route"])
    content_key = keys.open(header[-WRAPPED_BYTES:], info=info)
    assert content_key == exchange.secret
    assert len(content_key) == CEK_BYTES
    return {
        "key_id": key_id(keys.public_key),
        "outer_digest": outer_digest(inputs["route"]),
        "info": info,
        "content_key": content_key,
        "request_keys": exchange.request_keys,
        "transcript": exchange.transcript,
        "replay_digest": replay_digest(header),
    }


def _answer_keys(inputs: Inputs) -> Outputs:
    return {"answer_keys": _exchange(inputs, inputs["header"]).answer_keys(inputs["answer_header"])}


def _read_frames(inputs: Inputs) -> Outputs:
    opener, bounds = FrameOpener(inputs["keys"]), PaddingBounds()
    frames: list[Outputs] = []
    for frame in opener.feed(inputs["stream"]):
        if frames:
            bounds.check(frame)
        frames.append({"type": int(frame.type), "data": bytes(frame.data), "zeros": frame.zeros})
    opener.end()
    return {"frames": frames}


def _seal_request(inputs: Inputs) -> Outputs:
    writer = RequestWriter(_exchange(inputs, inputs["header"]))
    message = b"".join(writer.write(parse_request_head(inputs["head"]), [inputs["body"]]))
    return {"message": message, "request_digest": writer.digest}


def _read_request(inputs: Inputs) -> Outputs:
    message = inputs["message"]
    size = SESSION_HEADER_BYTES if message[:4] == SESSION_REQUEST_MAGIC else ONE_SHOT_BYTES
    reader = RequestReader(_exchange(inputs, message[:size]))
    body = b"".join(reader.feed(message[size:]))
    digest = reader.end()
    assert reader.head is not None
    return {"head": reader.head.encode(), "body": body, "request_digest": digest}


def _seal_answer(inputs: Inputs) -> Outputs:
    writer = AnswerWriter(_exchange(inputs, inputs["header"]), fixed_random(inputs["nonce"]))
    trailer = Trailer(
        request_digest=inputs.get("request_digest"),
        receipt=inputs.get("receipt", ""),
        error=parse_wire_error(inputs["error"]) if "error" in inputs else None,
    )
    start = writer.start(parse_response_head(inputs["head"]))
    body = b"".join(writer.body([inputs["body"]], padded=inputs["padded"]))
    return {"message": start + body + writer.end(trailer)}


def _read_answer(inputs: Inputs) -> Outputs:
    reader = AnswerReader(_exchange(inputs, inputs["header"]), max_body_bytes=inputs["max_body_bytes"])
    reader.feed(inputs["message"])
    answer = reader.finish(inputs["request_digest"])
    return {"head": answer.head.encode(), "body": answer.body, "complete": answer.trailer.complete}


def _trailer(inputs: Inputs) -> Outputs:
    trailer = parse_trailer(inputs["trailer"])
    error = trailer.error.encode() if trailer.error else b""
    return {
        "complete": trailer.complete,
        "request_digest": trailer.request_digest or b"",
        "receipt": trailer.receipt,
        "error": error,
    }


def _session_secret(inputs: Inputs) -> Outputs:
    opening = _exchange(inputs, inputs["header"])
    secret = SessionSecret.after(opening, keyset_id=inputs["keyset_id"], answer_header=inputs["answer_header"])
    return {"prk": secret.prk, "session_id": secret.session_id}


def _session_keys(inputs: Inputs) -> Outputs:
    secret = SessionSecret(prk=inputs["prk"], session_id=inputs["session_id"])
    header = secret.header(inputs["number"], fixed_random(inputs["rnd"]))
    exchange = secret.exchange(header, route=inputs["route"])
    answer_header = exchange.answer_prefix + inputs["nonce"]
    return {
        "header": header,
        "request_keys": exchange.request_keys,
        "transcript": exchange.transcript,
        "answer_header": answer_header,
        "answer_keys": exchange.answer_keys(answer_header),
    }


def _session_header(inputs: Inputs) -> Outputs:
    session_id, number = session_header_fields(inputs["header"])
    return {"session_id": session_id, "number": number}


def _replay_window(inputs: Inputs) -> Outputs:
    window = ReplayWindow()
    for number in inputs["numbers"]:
        window.spend(number)
    return {"spent": len(inputs["numbers"])}


def _commitments(inputs: Inputs) -> Outputs:
    outputs = {}
    for name, start in (("request", BodyCommitment.to_request), ("response", BodyCommitment.to_response)):
        commitment = start(inputs["salt"])
        commitment.update(inputs[f"{name}_body"])
        outputs[name] = commitment.digest()
    return outputs


def _sign_receipt(inputs: Inputs) -> Outputs:
    key = Ed25519PrivateKey.from_private_bytes(inputs["key_seed"])
    members: dict[str, Any] = json.loads(inputs["payload"])
    for name in ("keyset_id", "request_id", "runtime_policy", "request", "response"):
        members[name] = base64url_decode(members[name])
    assert members.pop("version") == 1
    members["padded"] = members.pop("padding") == "padme"
    members["model"] = ModelIdentity(**members["model"]) if members["model"] else None
    public_key = key.public_key().public_bytes_raw()
    token = sign_receipt(Receipt(**members), key, public_key=public_key)
    return {"key_id": receipt_key_id(public_key), "public_key": public_key, "token": token}


def _verify_receipt(inputs: Inputs) -> Outputs:
    receipt = verify_receipt(inputs["token"], public_key=inputs["public_key"], keyset_id=inputs["keyset_id"])
    return {
        "request_id": receipt.request_id,
        "status": receipt.status,
        "model": receipt.model.digest if receipt.model else "",
        "request": receipt.request,
        "response": receipt.response,
    }


def _padded_size(inputs: Inputs) -> Outputs:
    return {"padded": [padded_size(size) for size in inputs["sizes"]]}


def _cut_body(inputs: Inputs) -> Outputs:
    cuts = cut_body([bytes(inputs["size"])], padded=inputs["padded"])
    return {"frames": [[len(data), zeros] for data, zeros in cuts]}


def _padding_bounds(inputs: Inputs) -> Outputs:
    bounds = PaddingBounds()
    for size, zeros in inputs["frames"]:
        bounds.check(Frame(type=FrameType.MORE, data=memoryview(bytes(size)), zeros=zeros))
    return {"accepted": len(inputs["frames"])}


def _encode_manifest(inputs: Inputs) -> Outputs:
    files = tuple(BundleFile(**file) for file in inputs["files"])
    manifest = ModelManifest(files=files, session=SessionOptions(**inputs["session"]))
    return {"manifest": manifest.encode(), "digest": manifest.digest}


def _manifest(inputs: Inputs) -> Outputs:
    manifest = parse_manifest(inputs["manifest"])
    return {"digest": manifest.digest, "model_path": manifest.model_path}


OPERATIONS: dict[str, Callable[[Inputs], Outputs]] = {
    "report_data": _report_data,
    "device": _device,
    "batch": _batch,
    "root_from_path": _root_from_path,
    "keyset": _keyset,
    "strict_json": _strict_json,
    "base64url": _base64url,
    "admit": _admit,
    "verify_admission": _verify_admission,
    "sign_release": _sign_release,
    "verify_release": _verify_release,
    "one_shot_keys": _one_shot_keys,
    "answer_keys": _answer_keys,
    "read_frames": _read_frames,
    "request_head": lambda inputs: {"head": parse_request_head(inputs["head"]).encode()},
    "response_head": lambda inputs: {"head": parse_response_head(inputs["head"]).encode()},
    "seal_request": _seal_request,
    "read_request": _read_request,
    "seal_answer": _seal_answer,
    "read_answer": _read_answer,
    "trailer": _trailer,
    "session_secret": _session_secret,
    "session_keys": _session_keys,
    "session_header": _session_header,
    "replay_window": _replay_window,
    "commitments": _commitments,
    "sign_receipt": _sign_receipt,
    "verify_receipt": _verify_receipt,
    "padded_size": _padded_size,
    "cut_body": _cut_body,
    "padding_bounds": _padding_bounds,
    "encode_manifest": _encode_manifest,
    "manifest": _manifest,
    **SERVER_OPERATIONS,
    **CREDENTIAL_OPERATIONS,
}
