"""The protocol's formulas, written a second time from its text: an oracle that shares no code with `blindai`.

Only hashes, JSON, base64 and `cryptography`'s primitives; HKDF and HPKE are done by hand (second_hpke.py).
Names follow the formulas; a refusal is `Refused` with the failure kind. Leaves out: streaming, and speed.
"""

from __future__ import annotations

import base64
import hashlib
import struct

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from second_hpke import expand, extract
from second_json import Refused, require, strict_json, unbase64url

labels_used: set[str] = set()  # what the last vector evaluated; the test clears and compares it
MIB = 1 << 20


def L(text: str) -> bytes:  # noqa: N802  # named as in the specification
    labels_used.add(text)
    return b"blindai/1 " + text.encode() + b"\0"


def LP(data: bytes) -> bytes:  # noqa: N802  # likewise
    return struct.pack(">I", len(data)) + data


def H(*parts: bytes) -> bytes:  # noqa: N802  # likewise
    return hashlib.sha256(b"".join(parts)).digest()


# --- keyset, binding
def KSID(keyset: bytes) -> bytes:  # noqa: N802  # likewise
    return H(L("keyset"), LP(keyset))


def kid(public_key: bytes) -> bytes:
    return H(L("kid"), struct.pack(">H", 25722), LP(public_key))[:8]


def admission(service: str, instance: bytes, ak_name: bytes, not_after: int) -> bytes:
    return L("admission") + LP(service.encode()) + LP(instance) + LP(ak_name) + struct.pack(">Q", not_after)


def bound(mode: int, ksid: bytes, device: bytes, challenge: bytes) -> bytes:
    require(len(challenge) == 32 * mode, "stale_evidence")
    return hashlib.sha512(L("report-data") + bytes([mode]) + LP(ksid) + LP(device) + LP(challenge)).digest()


def rd32(bound_64: bytes) -> bytes:
    return H(L("rd32"), bound_64)


def device(evidence: list[bytes]) -> bytes:
    return H(L("device"), *map(LP, evidence)) if evidence else bytes(32)


def device_nonce(mode: int, ksid: bytes, challenge: bytes) -> bytes:
    require(len(challenge) == 32 * mode, "stale_evidence")
    return H(L("device-nonce"), bytes([mode]), LP(ksid), LP(challenge))


def leaf(nonce: bytes) -> bytes:
    return H(L("batch-leaf"), nonce)


def node(left: bytes, right: bytes) -> bytes:
    return H(L("batch-node"), left, right)


def root(count: int, top: bytes) -> bytes:
    return H(L("batch-root"), struct.pack(">I", count), top)


def _left(count: int) -> int:
    """RFC 6962 splits at the largest power of two below `count`; that gives the same tree as pairing row by row."""
    return 1 << (count - 1).bit_length() - 1


def top(nonces: list[bytes]) -> bytes:
    if len(nonces) == 1:
        return leaf(nonces[0])
    left = _left(len(nonces))
    return node(top(nonces[:left]), top(nonces[left:]))


def path(nonces: list[bytes], index: int) -> list[bytes]:
    if len(nonces) == 1:
        return []
    left = _left(len(nonces))
    if index < left:
        return [*path(nonces[:left], index), top(nonces[left:])]
    return [*path(nonces[left:], index - left), top(nonces[:left])]


def climb(below: bytes, index: int, count: int, siblings: list[bytes]) -> bytes:
    require(0 <= index < count and (len(siblings) > 0) == (count > 1), "stale_evidence")
    if count == 1:
        return below
    require(len(siblings[-1]) == 32, "stale_evidence")
    left = _left(count)
    if index < left:
        return node(climb(below, index, left, siblings[:-1]), siblings[-1])
    return node(siblings[-1], climb(below, index - left, count - left, siblings[:-1]))


# --- keys of messages (one-shot, answers, sessions)
ONE_SHOT_BYTES, SESSION_BYTES = 4 + 8 + 2 + 2 + 1168, 4 + 16 + 8 + 16


def outer(route: str) -> bytes:
    return H(L("outer"), *map(LP, (b"POST", b"application/vnd.blindai.sealed", route.encode("ascii"))))


def info(key_id: bytes, ksid: bytes, route: str) -> bytes:
    return L("request") + struct.pack(">H", 25722) + key_id + ksid + outer(route)


def header_kid(header: bytes) -> bytes:
    suite = struct.pack(">HH", 25722, 1168)
    require(len(header) == ONE_SHOT_BYTES and header[:4] == b"BSQ1" and header[12:16] == suite, "sealed_message")
    return header[4:12]


def request_keys(header: bytes, cek: bytes) -> bytes:
    return expand(extract(H(L("request-salt"), header), cek), L("request-key"), 44)


def replay_entry(header: bytes) -> bytes:
    return H(L("replay"), header[4:12], header[16:])[:16]


def transcript(header: bytes) -> bytes:
    return H(L("transcript"), header)


def answer_keys(header: bytes, cek: bytes, answer_header: bytes) -> bytes:
    prefix, nonce = answer_header[:12], answer_header[12:]
    require(len(answer_header) == 44 and prefix == b"BSR1" + header[4:12], "sealed_message")
    return expand(extract(H(L("response-salt"), header[4:12], nonce, transcript(header)), cek), L("response-key"), 44)


def request_full(header: bytes, frames: bytes) -> bytes:
    return H(L("request-full"), header, frames)


def session(ksid: bytes, header: bytes, cek: bytes, answer_header: bytes) -> tuple[bytes, bytes]:
    salt = H(L("session-salt"), ksid, header[4:12], answer_header[12:], transcript(header))
    prk = extract(salt, cek)
    return prk, expand(prk, L("session-id"), 16)


def session_request_keys(prk: bytes, h_q: bytes, route: str) -> bytes:
    return expand(prk, L("session-request") + h_q + outer(route), 44)


def session_answer_keys(prk: bytes, h_q: bytes, a_q: bytes) -> bytes:
    require(len(a_q) == 44 and a_q[:12] == b"BST1" + h_q[20:28], "sealed_message")
    return expand(prk, L("session-response") + transcript(h_q) + a_q, 44)


# --- frames
def _nonce(keys: bytes, index: int) -> bytes:
    return bytes(a ^ b for a, b in zip(keys[32:], index.to_bytes(12, "big"), strict=True))


def write_frames(keys: bytes, frames: list[tuple[int, bytes, int]]) -> bytes:
    out = b""
    for index, (kind, data, zeros) in enumerate(frames):
        aad = L("frame") + bytes([kind])
        sealed = AESGCM(keys[:32]).encrypt(_nonce(keys, index), LP(data) + bytes(zeros), aad)
        out += LP(bytes([kind]) + sealed)
    return out


def read_frames(keys: bytes, stream: bytes) -> list[tuple[int, bytes, int]]:
    frames: list[tuple[int, bytes, int]] = []
    while stream:
        require(not frames or frames[-1][0] == 0, "sealed_message")
        require(len(stream) >= 4, "truncated_message")
        size = int.from_bytes(stream[:4], "big")
        require(21 <= size <= 17 + MIB, "sealed_message")
        require(len(stream) >= 4 + size, "truncated_message")
        kind, sealed, stream = stream[4], stream[5 : 4 + size], stream[4 + size :]
        try:
            plain = AESGCM(keys[:32]).decrypt(_nonce(keys, len(frames)), sealed, L("frame") + bytes([kind]))
        except InvalidTag:
            raise Refused("sealed_message") from None
        n = int.from_bytes(plain[:4], "big")
        require(kind in (0, 1) and 4 + n <= len(plain) and not any(plain[4 + n :]), "sealed_message")
        require(frames or (kind == 0 and n <= 65536 and len(plain) % 1024 == 0), "sealed_message")
        frames.append((kind, plain[4 : 4 + n], len(plain) - 4 - n))
    require(frames and frames[-1][0] == 1, "truncated_message")
    return frames


def padme(size: int) -> int:
    """1, 2, 4, 8, 16 KiB; above, the paper's text: keep the top ⌊log₂⌊log₂ L⌋⌋ + 1 mantissa bits, round up."""
    for kib in (1, 2, 4, 8, 16):
        if size <= kib * 1024:
            return kib * 1024
    exponent = len(f"{size:b}") - 1
    unit = 1 << exponent - len(f"{exponent:b}")
    return -(-size // unit) * unit


# --- receipts
def commitment(which: str, salt: bytes, body: bytes) -> bytes:
    return H(L(f"receipt-{which}"), expand(salt, L(f"salt-{which}"), 32), body)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def receipt_kid(key: bytes) -> str:
    return base64url(H(L("receipt-key"), LP(key)))


def receipt_payload(token: str, key: bytes) -> bytes:
    try:
        header, payload, signature = map(unbase64url, token.split("."))
        expected = {"alg": "Ed25519", "typ": "blindai-receipt+jws", "kid": receipt_kid(key)}
        require(strict_json(header, 1024) == expected, "invalid_receipt")
        Ed25519PublicKey.from_public_bytes(key).verify(signature, token.rpartition(".")[0].encode())
    except (InvalidSignature, ValueError):
        raise Refused("invalid_receipt") from None
    return payload


def model_digest(manifest: bytes) -> bytes:
    return H(L("model"), LP(manifest))


def runtime_policy(members: bytes) -> bytes:
    return H(L("runtime-policy"), LP(members))
