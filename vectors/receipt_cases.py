"""The cases of the topic `receipt`: commitments, whole receipts, and tokens to refuse, signed ones too."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from vector_format import KSID, ROOT, Case, base64url, compact, fixed
from vector_operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

RECEIPT_SEED = fixed("receipt key", 32)


def _receipt_payload() -> dict[str, Any]:
    digest = "sha256:" + fixed("model", 32).hex()
    model = {"name": "m", "version": "1", "digest": digest, "engine": "onnxruntime 1.22.0", "precision": "as-stored"}
    return {
        "version": 1,
        "keyset_id": base64url(KSID),
        "request_id": base64url(fixed("request id", 16)),
        "door": "sealed",
        "method": "POST",
        "path": "/v2/models/m/infer",
        "status": 200,
        "complete": True,
        "model": model,
        "runtime_policy": base64url(fixed("runtime policy", 32)),
        "padding": "padme",
        "start_ms": 1_800_000_001_000,
        "end_ms": 1_800_000_001_250,
        "request": base64url(fixed("request commitment", 32)),
        "response": base64url(fixed("response commitment", 32)),
    }


def _token(payload: bytes, *, header: bytes | None = None) -> str:
    """A receipt signed by the right key, whatever its header and payload say."""
    good = str(OPERATIONS["sign_receipt"]({"key_seed": RECEIPT_SEED, "payload": compact(_receipt_payload())})["token"])
    first = base64url(header) if header is not None else good.split(".", maxsplit=1)[0]
    signed = first + "." + base64url(payload)
    return signed + "." + base64url(Ed25519PrivateKey.from_private_bytes(RECEIPT_SEED).sign(signed.encode()))


def receipt_cases() -> Iterator[Case]:
    """Every case of the topic."""
    members = _receipt_payload()
    payload = compact(members)
    common: dict[str, Any] = {"topic": "receipt", "spec": "docs/spec/receipt.md"}
    commits = ("receipt-request", "receipt-response", "salt-request", "salt-response")
    bodies = {"salt": fixed("salt", 32), "request_body": b"an input", "response_body": b"an output"}
    common["covers"] = commits
    yield Case(slug="commitments", title="to both bodies", operation="commitments", inputs=bodies, **common)
    empty = {**bodies, "request_body": b"", "response_body": b""}
    yield Case(slug="commitments-empty", title="to empty bodies", operation="commitments", inputs=empty, **common)
    common["covers"] = ("receipt-key",)
    signs: dict[str, Any] = {"operation": "sign_receipt", **common}
    none = {"key_seed": RECEIPT_SEED, "payload": compact({**members, "model": None, "padding": "none", "status": 404})}
    yield Case(slug="sign", title="a whole receipt", inputs={"key_seed": RECEIPT_SEED, "payload": payload}, **signs)
    yield Case(slug="sign-no-model", title="a request that ran no model, unpadded", inputs=none, **signs)
    public_key = Ed25519PrivateKey.from_private_bytes(RECEIPT_SEED).public_key().public_bytes_raw()
    good: dict[str, Any] = {"token": _token(payload), "public_key": public_key, "keyset_id": KSID}
    reads: dict[str, Any] = {"operation": "verify_receipt", **common}
    yield Case(slug="verify", title="a client verifies it", inputs=good, **reads)
    reads = {**reads, "covers": (), "failure": "invalid_receipt"}
    other = Ed25519PrivateKey.from_private_bytes(ROOT).public_key().public_bytes_raw()
    yield Case(slug="other-key", title="another keyset's receipt key", inputs={**good, "public_key": other}, **reads)
    yield Case(slug="other-keyset", title="a KSID that is not ours", inputs={**good, "keyset_id": ROOT}, **reads)
    for slug, title, token in _bad_tokens(members, good["token"]):
        yield Case(slug=slug, title=title, inputs={**good, "token": token}, **reads)


def _bad_tokens(members: dict[str, Any], good: str) -> Iterator[tuple[str, str, str]]:
    payload = compact(members)
    first, second, third = good.split(".")
    header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    yield (
        "algorithm-eddsa",
        "the older name of the algorithm",
        _token(payload, header=compact({**header, "alg": "EdDSA"})),
    )
    yield "algorithm-none", "no algorithm, no signature", base64url(compact({**header, "alg": "none"})) + f".{second}."
    yield "header-extra", "a header member more", _token(payload, header=compact({**header, "jku": "https://x"}))
    yield "header-no-type", "no `typ`", _token(payload, header=compact({"alg": "Ed25519", "kid": header["kid"]}))
    yield (
        "header-other-kid",
        "the kid of another key",
        _token(payload, header=compact({**header, "kid": header["kid"][::-1]})),
    )
    twice = b'{"alg":"none",' + compact(header)[1:]
    yield "header-duplicate", "`alg` twice", _token(payload, header=twice)
    changed = base64url(compact({**members, "status": 500}))
    yield "changed-payload", "another status under the old signature", f"{first}.{changed}.{third}"
    yield "changed-signature", "one bit", f"{first}.{second}.{'B' if third[0] == 'A' else 'A'}{third[1:]}"
    spare = third[:-1] + chr(ord(third[-1]) + 1)
    yield "signature-spare-bits", "the same signature in a second spelling", f"{first}.{second}.{spare}"
    yield "padded", "base64url with `=`", good + "=="
    yield "four-parts", "a fourth part", good + ".AA"
    yield "detached-payload", "an empty payload", f"{first}..{third}"
    yield "unknown-member", "signed, with a member more", _token(compact({**members, "counter": 1}))
    yield (
        "missing-member",
        "signed, without `complete`",
        _token(compact({k: members[k] for k in members if k != "complete"})),
    )
    yield "duplicate-member", "signed, `status` twice", _token(b'{"status":500,' + payload[1:])
    yield "float", "signed, status 200.0", _token(payload.replace(b'"status":200', b'"status":200.0'))
    yield "unknown-door", "signed, door `window`", _token(compact({**members, "door": "window"}))
    yield "trailing-bytes", "signed, a second object follows", _token(payload + b"{}")
