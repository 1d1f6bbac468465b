"""What the cases of sealed messages are made of: one key pair, encapsulations, heads, and frames of any kind.

Frames are encrypted here by the text alone, whatever they hold, so that malformed ones can be shown.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from vector_format import KSID, Case, base64url, compact, fixed
from vector_operations import key_pair, request_info

from blindai.channel.exchange import REQUEST_MAGIC, key_id
from blindai.channel.hpke import KEM_ID, WRAPPED_BYTES

MLKEM_SEED, X25519_SEED = fixed("ML-KEM-768 seed", 64), fixed("X25519 seed", 32)
ROUTE = base64url(fixed("instance", 32))
OPENER: dict[str, Any] = {"mlkem_seed": MLKEM_SEED, "x25519_seed": X25519_SEED, "keyset_id": KSID, "route": ROUTE}
NONCE = fixed("answer nonce", 32)
KEYS = fixed("frame keys", 44)
SESSION: dict[str, Any] = {"prk": fixed("PRK", 32), "session_id": fixed("sid", 16), "route": ROUTE}
SESSION_HEADER = b"BSS1" + SESSION["session_id"] + (7).to_bytes(8, "big") + fixed("rnd", 16)
ERROR = b'{"code":"invalid_input","error":"no such input","hint":""}'


def encapsulated(name: str) -> tuple[bytes, str, bytes]:
    """Content key, route and HPKE `info` of one of the stored encapsulations."""
    route = "" if name == "no-route" else ROUTE
    kid = key_id(key_pair(OPENER).public_key)
    return fixed(f"content key {name}", 32), route, request_info(kid, KSID, route)


def one_shot_header(wrapped: bytes) -> bytes:
    kid = key_id(key_pair(OPENER).public_key)
    return REQUEST_MAGIC + kid + KEM_ID.to_bytes(2, "big") + WRAPPED_BYTES.to_bytes(2, "big") + wrapped


def request_head(**change: Any) -> bytes:
    members = {
        "id": base64url(fixed("request id", 16)),
        "method": "POST",
        "path": "/v2/models/m/infer",
        "headers": {"authorization": "Bearer example"},
        "content_type": "application/octet-stream",
        "padding": "none",
        "receipt": True,
        "salt": base64url(fixed("salt", 32)),
        "session": False,
    }
    return compact({name: value for name, value in {**members, **change}.items() if value is not None})


def make_case(topic: str, slug: str, title: str, operation: str, *covers: str, **inputs: Any) -> Case:
    """A case that succeeds, or one that fails if its inputs say how (`failure`)."""
    failure = inputs.pop("failure", None)
    return Case(
        topic=topic,
        slug=slug,
        title=title,
        spec="docs/spec/sealed.md §5" if topic == "session" else "docs/spec/sealed.md §3, §4",
        operation=operation,
        covers=tuple(sorted(covers)),
        inputs=inputs,
        failure=failure,
    )


RESPONSE_HEAD = compact({"status": 200, "headers": {"content-type": "application/octet-stream"}})


def frame(index: int, kind: int, plaintext: bytes, *, keys: bytes = KEYS) -> bytes:
    """A frame as sent, whatever its plaintext says."""
    nonce = (int.from_bytes(keys[32:], "big") ^ index).to_bytes(12, "big")
    sealed = bytes([kind]) + AESGCM(keys[:32]).encrypt(nonce, plaintext, b"blindai/1 frame\0" + bytes([kind]))
    return len(sealed).to_bytes(4, "big") + sealed


def plain(data: bytes, zeros: int = 0, *, size: int | None = None) -> bytes:
    """A frame's plaintext; `size` is what it claims to hold."""
    return (len(data) if size is None else size).to_bytes(4, "big") + data + bytes(zeros)
