"""What each vector's operation means, by the second implementation: decoded inputs in, outputs out.

The mirror of `vectors/vector_operations.py`; nothing of `blindai` is used. A failure is `Refused`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import second_hpke as hpke
import second_implementation as second
import second_json as forms
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from second_credential import CREDENTIAL_OPERATIONS
from second_json import Refused, require
from second_server import SERVER_OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

Inputs = dict[str, Any]
Outputs = dict[str, Any]


def check_padding(sizes: list[tuple[int, int]]) -> None:
    padding, total, ended = 0, sum(size for size, _ in sizes), False
    for size, zeros in sizes:
        require(not (ended and size), "sealed_message")
        padding, ended = padding + zeros, ended or size == 0 or zeros > 0
    require(not padding or total + padding <= second.padme(total), "sealed_message")


def cut(size: int, *, padded: bool) -> list[tuple[int, int]]:
    room, zeros = second.MIB - 4, second.padme(size) - size if padded else 0
    cuts = [(room, 0)] * (size // room) + ([(size % room, 0)] if size % room or not size else [])
    first = min(zeros, room - cuts[-1][0])
    cuts[-1], zeros = (cuts[-1][0], first), zeros - first
    return cuts + [(0, room)] * (zeros // room) + ([(0, zeros % room)] if zeros % room else [])


def _report_data(i: Inputs) -> Outputs:
    bound = second.bound(i["mode"], i["keyset_id"], i.get("device_digest", bytes(32)), i["challenge"])
    return {"bound": bound, "bound_32": second.rd32(bound)}


def _device(i: Inputs) -> Outputs:
    digest = second.device(i["evidence"])
    return {
        "device_digest": digest,
        "device_nonce": second.device_nonce(i["mode"], i["keyset_id"], i["challenge"]),
        "bound": second.bound(i["mode"], i["keyset_id"], digest, i["challenge"]),
    }


def _batch(i: Inputs) -> Outputs:
    nonces = i["nonces"]
    paths = [second.path(nonces, index) for index in range(len(nonces))]
    return {"root": second.root(len(nonces), second.top(nonces)), "paths": paths}


def _root_from_path(i: Inputs) -> Outputs:
    top = second.climb(second.leaf(i["nonce"]), i["index"], i["count"], i["path"])
    return {"root": second.root(i["count"], top)}


def _keyset(i: Inputs) -> Outputs:
    encoded = i["keyset"] + b" " * i.get("trailing_spaces", 0)
    keyset = forms.read(encoded, 16 * 1024, forms.KEYSET, "malformed_evidence")
    fresh, lifetime_s = keyset["kind"] == "fresh", keyset["not_after"] - keyset["not_before"]
    challenge = forms.unbase64url(keyset["challenge"])
    require(0 < lifetime_s <= (900 if fresh else 86400), "malformed_evidence")
    require(len(challenge) == 32 * fresh and not (fresh and keyset["tls"]), "malformed_evidence")
    return {
        "keyset_id": second.KSID(encoded),
        "key_id": second.kid(forms.unbase64url(keyset["hpke"][0]["public_key"])),
        "kind": keyset["kind"],
        "service": keyset["service"],
        "instance": forms.unbase64url(keyset["instance"]),
        "challenge": challenge,
        "not_after": keyset["not_after"],
        "runtime_policy": second.runtime_policy(forms.compact(keyset["runtime"])),
    }


def _strict_json(i: Inputs) -> Outputs:
    try:
        return {"compact": forms.compact(forms.strict_json(i["json"], 1024))}
    except ValueError:
        raise Refused("malformed_evidence") from None


def _base64url(i: Inputs) -> Outputs:
    try:
        return {"data": forms.unbase64url(i["text"])}
    except ValueError:
        raise Refused("malformed_evidence") from None


def _admission(i: Inputs) -> bytes:
    return second.admission(i["service"], i["instance"], i["attestation_key_name"], i["not_after"])


def _release(manifest: bytes) -> bytes:
    return second.L("manifest") + manifest


def _sign_release(i: Inputs) -> Outputs:
    key = Ed25519PrivateKey.from_private_bytes(i["key_seed"])
    public = key.public_key().public_bytes_raw()
    parts = (public, key.sign(_release(i["manifest"])))
    return {"line": " ".join(("ed25519", *map(second.base64url, parts))), "public_key": public}


def _verify_release(i: Inputs) -> Outputs:
    lines = i["signatures"].decode().split("\n")
    require(lines.pop() == "" and len(lines) in range(1, 17), "invalid_manifest")
    signed = []
    for line in lines:
        parts = line.split(" ")
        try:
            require(len(parts) == 3 and parts[0] == "ed25519", "invalid_manifest")
            key, signature = map(forms.unbase64url, parts[1:])
        except ValueError:
            raise Refused("invalid_manifest") from None
        require((len(key), len(signature)) == (32, 64), "invalid_manifest")
        signed += [key] if _is_signed(key, signature, _release(i["manifest"])) else []
    signers = [key for key in signed if key in i["public_keys"]]
    require(signers, "invalid_manifest")
    return {"signer": signers[0]}


def _is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _admit(i: Inputs) -> Outputs:
    key = Ed25519PrivateKey.from_private_bytes(i["key_seed"])
    return {"public_key": key.public_key().public_bytes_raw(), "signature": key.sign(_admission(i))}


def _verify_admission(i: Inputs) -> Outputs:
    try:
        Ed25519PublicKey.from_public_bytes(i["public_key"]).verify(i["signature"], _admission(i))
    except InvalidSignature:
        raise Refused("wrong_operator") from None
    require(i["now"] < i["not_after"], "wrong_operator")
    return {"operator": i["public_key"]}


def _open(i: Inputs, header: bytes) -> tuple[bytes, bytes]:
    """Content key and HPKE `info` of a one-shot header."""
    info = second.info(second.header_kid(header), i["keyset_id"], i["route"])
    return hpke.hpke_open(header[16:], i["mlkem_seed"], i["x25519_seed"], info), info


def _request_keys(i: Inputs, header: bytes) -> bytes:
    if "prk" in i:
        return second.session_request_keys(i["prk"], header, i["route"])
    return second.request_keys(header, _open(i, header)[0])


def _keys_of_answer(i: Inputs, answer_header: bytes) -> bytes:
    if "prk" in i:
        return second.session_answer_keys(i["prk"], i["header"], answer_header)
    return second.answer_keys(i["header"], _open(i, i["header"])[0], answer_header)


def _one_shot_keys(i: Inputs) -> Outputs:
    header = i["header"]
    content_key, info = _open(i, header)
    return {
        "key_id": second.kid(hpke.public_key(i["mlkem_seed"], i["x25519_seed"])),
        "outer_digest": second.outer(i["route"]),
        "info": info,
        "content_key": content_key,
        "request_keys": second.request_keys(header, content_key),
        "transcript": second.transcript(header),
        "replay_digest": second.replay_entry(header),
    }


def _read_frames(i: Inputs) -> Outputs:
    frames = second.read_frames(i["keys"], i["stream"])
    check_padding([(len(data), zeros) for _, data, zeros in frames[1:]])
    return {"frames": [{"type": kind, "data": data, "zeros": zeros} for kind, data, zeros in frames]}


def _read_request_head(data: bytes) -> bytes:
    extra = {"at_ms": forms.number}
    return forms.compact(forms.read(data, 65536, forms.REQUEST_HEAD, "sealed_message", extra=extra))


def _read_response_head(data: bytes) -> bytes:
    extra = {"session": forms.SESSION_GRANT}
    return forms.compact(forms.read(data, 65536, forms.RESPONSE_HEAD, "sealed_message", extra=extra))


def _head_frame(head: bytes) -> tuple[int, bytes, int]:
    return 0, head, -(4 + len(head)) % 1024


def _seal_request(i: Inputs) -> Outputs:
    cuts, frames, at = cut(len(i["body"]), padded=json.loads(i["head"])["padding"] == "padme"), [], 0
    for index, (size, zeros) in enumerate(cuts):
        frames.append((int(index == len(cuts) - 1), i["body"][at : at + size], zeros))
        at += size
    sent = second.write_frames(_request_keys(i, i["header"]), [_head_frame(i["head"]), *frames])
    return {"message": i["header"] + sent, "request_digest": second.request_full(i["header"], sent)}


def _read_request(i: Inputs) -> Outputs:
    size = second.SESSION_BYTES if i["message"][:4] == b"BSS1" else second.ONE_SHOT_BYTES
    header, sent = i["message"][:size], i["message"][size:]
    (_, head, _), *body = second.read_frames(_request_keys(i, header), sent)
    check_padding([(len(data), zeros) for _, data, zeros in body])
    return {
        "head": _read_request_head(head),
        "body": b"".join(data for _, data, _ in body),
        "request_digest": second.request_full(header, sent),
    }


def _seal_answer(i: Inputs) -> Outputs:
    prefix = b"BST1" + i["header"][20:28] if "prk" in i else b"BSR1" + i["header"][4:12]
    digest = i.get("request_digest", b"")
    trailer = bytes([len(digest) // 32]) + digest.ljust(32, b"\0")
    trailer += second.LP(i.get("receipt", "").encode()) + second.LP(i.get("error", b""))
    body = [(0, i["body"], zeros) for _, zeros in cut(len(i["body"]), padded=i["padded"]) if i["body"] or zeros]
    frames = [_head_frame(i["head"]), *body, (1, trailer, -(4 + len(trailer)) % 1024)]
    answer_header = prefix + i["nonce"]
    return {"message": answer_header + second.write_frames(_keys_of_answer(i, answer_header), frames)}


def _trailer(i: Inputs) -> Outputs:
    data = i["trailer"]
    sizes, at = [], 33
    for _ in range(2):
        require(len(data) >= at + 4, "sealed_message")
        sizes.append(int.from_bytes(data[at : at + 4], "big"))
        at += 4 + sizes[-1]
    receipt, error = data[37 : 37 + sizes[0]], data[41 + sizes[0] : at]
    require(len(data) == at and data[0] in {0, 1} and receipt.isascii(), "sealed_message")
    require(data[0] or not any(data[1:33]), "sealed_message")
    if error:
        forms.read(error, 65536, forms.WIRE_ERROR, "sealed_message")
    digest = data[1:33] if data[0] else b""
    return {"complete": data[0] == 1, "request_digest": digest, "receipt": receipt.decode(), "error": error}


def _read_answer(i: Inputs) -> Outputs:
    require(len(i["message"]) >= 44, "truncated_message")
    keys = _keys_of_answer(i, i["message"][:44])
    (_, head, _), *body, (_, last, zeros) = second.read_frames(keys, i["message"][44:])
    require(zeros < 1024, "sealed_message")
    check_padding([(len(data), zeros) for _, data, zeros in body])
    canonical, trailer = _read_response_head(head), _trailer({"trailer": last})
    require(trailer["request_digest"] == i["request_digest"] or json.loads(head)["status"] >= 400, "sealed_message")
    text = b"".join(data for _, data, _ in body)
    require(len(text) <= i["max_body_bytes"], "sealed_message")
    return {"head": canonical, "body": text, "complete": trailer["complete"]}


def _session_secret(i: Inputs) -> Outputs:
    prk, session_id = second.session(i["keyset_id"], i["header"], _open(i, i["header"])[0], i["answer_header"])
    return {"prk": prk, "session_id": session_id}


def _session_keys(i: Inputs) -> Outputs:
    number = i["number"].to_bytes(8, "big")
    header = b"BSS1" + i["session_id"] + number + i["rnd"]
    answer_header = b"BST1" + number + i["nonce"]
    return {
        "header": header,
        "request_keys": second.session_request_keys(i["prk"], header, i["route"]),
        "transcript": second.transcript(header),
        "answer_header": answer_header,
        "answer_keys": second.session_answer_keys(i["prk"], header, answer_header),
    }


def _session_header(i: Inputs) -> Outputs:
    header = i["header"]
    require(len(header) == second.SESSION_BYTES and header[:4] == b"BSS1", "sealed_message")
    return {"session_id": header[4:20], "number": int.from_bytes(header[20:28], "big")}


def _replay_window(i: Inputs) -> Outputs:
    highest, spent = -1, set()
    for q in i["numbers"]:
        require(q < 2**32 and highest - 1024 < q <= highest + 1024 and q not in spent, "replayed_message")
        spent.add(q)
        highest = max(highest, q)
    return {"spent": len(i["numbers"])}


def _commitments(i: Inputs) -> Outputs:
    return {name: second.commitment(name, i["salt"], i[f"{name}_body"]) for name in ("request", "response")}


def _sign_receipt(i: Inputs) -> Outputs:
    key = Ed25519PrivateKey.from_private_bytes(i["key_seed"])
    public_key = key.public_key().public_bytes_raw()
    header = {"alg": "Ed25519", "typ": "blindai-receipt+jws", "kid": second.receipt_kid(public_key)}
    ordered = json.dumps(header, separators=(",", ":")).encode()
    signed = f"{second.base64url(ordered)}.{second.base64url(i['payload'])}"
    token = f"{signed}.{second.base64url(key.sign(signed.encode()))}"
    return {"key_id": header["kid"], "public_key": public_key, "token": token}


def _verify_receipt(i: Inputs) -> Outputs:
    payload = second.receipt_payload(i["token"], i["public_key"])
    receipt = forms.read(payload, 16384, forms.RECEIPT, "invalid_receipt")
    require(forms.unbase64url(receipt["keyset_id"]) == i["keyset_id"], "invalid_receipt")
    return {
        "request_id": forms.unbase64url(receipt["request_id"]),
        "status": receipt["status"],
        "model": receipt["model"]["digest"] if receipt["model"] else "",
        "request": forms.unbase64url(receipt["request"]),
        "response": forms.unbase64url(receipt["response"]),
    }


def _padding_bounds(i: Inputs) -> Outputs:
    check_padding([(size, zeros) for size, zeros in i["frames"]])
    return {"accepted": len(i["frames"])}


def _encode_manifest(i: Inputs) -> Outputs:
    files = [{**file, "sha256": file["sha256"].hex()} for file in i["files"]]
    manifest = forms.compact({"files": files, "session": i["session"]})
    return {"manifest": manifest, "digest": _manifest({"manifest": manifest})["digest"]}


def _manifest(i: Inputs) -> Outputs:
    members = forms.read(i["manifest"], 256 * 1024, forms.MANIFEST, "invalid_model")
    paths = [file["path"] for file in members["files"]]
    models = [path for path in paths if path.endswith(".onnx")]
    require(
        forms.compact(members) == i["manifest"] and paths == sorted(set(paths)) and len(models) == 1, "invalid_model"
    )
    return {"digest": second.model_digest(i["manifest"]), "model_path": models[0]}


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
    "answer_keys": lambda i: {"answer_keys": _keys_of_answer(i, i["answer_header"])},
    "read_frames": _read_frames,
    "request_head": lambda i: {"head": _read_request_head(i["head"])},
    "response_head": lambda i: {"head": _read_response_head(i["head"])},
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
    "padded_size": lambda i: {"padded": [second.padme(size) for size in i["sizes"]]},
    "cut_body": lambda i: {"frames": [list(pair) for pair in cut(i["size"], padded=i["padded"])]},
    "padding_bounds": _padding_bounds,
    "encode_manifest": _encode_manifest,
    "manifest": _manifest,
    **SERVER_OPERATIONS,
    **CREDENTIAL_OPERATIONS,
}
