"""Requests that are a little wrong, drawn from a seed: what a fuzzer of HTTP sends (Z6), without waiting for luck.

A valid request is taken apart into method, path, headers and body; up to three mutations change it, some of them on its
bytes. Leaves out: sending (the test), the sealed door (tests/attacks/test_attacks_on_requests.py flips every byte).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attacks.serving_site import infer_json

if TYPE_CHECKING:
    from collections.abc import Callable

_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "G\0T", "PRI")
_BITS = (
    "",
    "..",
    "%00",
    "%2f",
    "%",
    "%zz",
    "\xff",
    "é",
    "a" * 300,
    "a" * 70_000,
    "{model}",
    "@last",
    "*",
    "?x=1",
    "//",
)
_HEADERS = (
    "content-length: 0", "content-length: -1", "content-length: 99999999999999999999", "content-length: 1e3",
    "transfer-encoding: chunked", "transfer-encoding: gzip, chunked", "transfer-encoding: chunked, chunked",
    "expect: 100-continue", "expect: 200-ok", "upgrade: h2c", "connection: upgrade, x", "connection: close",
    "content-encoding: gzip", "content-encoding: br", "content-encoding: gzip, gzip", "content-type: text/plain",
    "inference-header-content-length: 3", "inference-header-content-length: -1", "authorization: Bearer x",
    "inference-header-content-length: 99999999999", "inference-header-content-length: 0x10", "if-match: *",
    "blindai-client: x", "blindai-client: " + "A" * 3000, "host: ", "host: a\r\nhost: b", "x:" + "y" * 30_000,
    " folded: x",
    "no colon at all", ": empty", "nul\0: x", "x: \0", "x: \r y", "x-deadline-ms: 0", "range: bytes=0-1",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, -1, 2**63, 2**64, 1e308, -0.0, "", "x", "\ud800", "\0", [], {}, [[]], [None], {"a": []}, "9" * 400,
    [1] * 500, {"": ""}, "FP64", "BYTES", 0, [0], [2**62, 2**62], [-1], 1.5,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request before it is bytes."""

    method: str
    path: str
    headers: tuple[str, ...] = ()
    body: bytes = b""

    def encode(self, authorization: str) -> bytes:
        """As it goes on the wire; the length is the body's unless a header says otherwise."""
        names = [header.partition(":")[0] for header in self.headers]
        length = () if {"content-length", "transfer-encoding"} & set(names) else (f"content-length: {len(self.body)}",)
        lines = (
            f"{self.method} {self.path} HTTP/1.1",
            "host: x",
            f"authorization: {authorization}",
            *length,
            *self.headers,
        )
        return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogatepass") + self.body


def _post(path: str, body: Any, *headers: str) -> Wanted:
    return Wanted(method="POST", path=path, headers=headers, body=json.dumps(body).encode())


def _binary() -> Wanted:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}
    header = json.dumps({"id": "1", "inputs": [tensor], "outputs": [{"name": "y"}]}).encode()
    length = f"inference-header-content-length: {len(header)}"
    return Wanted(method="POST", path="/v2/models/model/infer", headers=(length,), body=header + bytes(12))


_GET = (
    "/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/model", "/v2/models/model/ready",
    "/v2/models/model/config", "/v2/models/model/stats", "/v2/models/stats", "/v2/models/model/versions/1",
    "/v2/logging",
    "/v2/repository/models", "/v2/repository/models/model/sharing", "/v2/access/keys", "/v2/access/revocations",
    "/v2/trace/setting", "/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status", "/v1/attestation", "/",
)  # fmt: skip
SEEDS: tuple[Wanted, ...] = (
    *(Wanted(method="GET", path=path) for path in _GET),
    *(_post("/v2/models/model/infer", infer_json()) for _ in range(6)),
    *(_binary() for _ in range(6)),
    _post("/v2/models/model/versions/1/infer", {**infer_json(), "outputs": [{"name": "y", "parameters": {}}]}),
    _post("/v2/repository/index", {"ready": True}),
    _post("/v2/repository/models/none/load", {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}),
    _post("/v2/repository/models/none/unload", {"parameters": {"unload_dependents": True}}),
    _post("/v2/repository/models/none/sharing", {"run": ["beta"], "visible": []}),
    _post("/v2/access/revocations", {"sub": "nobody"}),
    Wanted(method="POST", path="/v2/repository/models/none/upload", body=b"\0\0\0\x10" + bytes(64)),
    Wanted(method="POST", path="/v1/sealed", headers=("content-type: application/octet-stream",), body=bytes(200)),
    Wanted(method="DELETE", path="/v2/repository/models/none"),
    Wanted(method="DELETE", path="/v2/access/keys/none"),
)


def mutated(seed: int, authorization: str) -> bytes:
    """The request of a number; the same each time."""
    draw = random.Random(seed)  # noqa: S311  # repeatable on purpose
    wanted = draw.choice(SEEDS)
    for _ in range(draw.randint(0, 2)):
        wanted = draw.choice(_OF_PARTS)(draw, wanted)
    raw = wanted.encode(authorization)
    return raw if draw.random() < 0.5 else draw.choice(_OF_BYTES)(draw, raw)


def _other_method(draw: random.Random, wanted: Wanted) -> Wanted:
    return replace(wanted, method=draw.choice(_METHODS))


def _other_path(draw: random.Random, wanted: Wanted) -> Wanted:
    parts = wanted.path.split("/")
    parts[draw.randrange(len(parts))] = draw.choice(_BITS)
    return replace(wanted, path="/".join(parts))


def _another_header(draw: random.Random, wanted: Wanted) -> Wanted:
    return replace(wanted, headers=(*wanted.headers, draw.choice(_HEADERS)))


def _a_header_twice(draw: random.Random, wanted: Wanted) -> Wanted:
    return replace(
        wanted, headers=wanted.headers + (draw.choice(wanted.headers),) * 2 if wanted.headers else ("a: b",) * 300
    )


def _other_json(draw: random.Random, wanted: Wanted) -> Wanted:
    try:
        value = json.loads(wanted.body)
    except ValueError:
        return replace(wanted, body=draw.randbytes(draw.choice((1, 50, 5000))))
    return replace(wanted, body=json.dumps(_changed(draw, value)).encode())


def _changed(draw: random.Random, value: Any) -> Any:
    """One place of a JSON value, however deep, is another value, gone, or there under another name."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key, way = draw.choice(sorted(value)), draw.random()
        rest = {name: inner for name, inner in value.items() if name != key}
        if way < 0.1:
            return rest
        return {**rest, (draw.choice(("x", "", "é", key.upper())) if way < 0.2 else key): _changed(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        return [*value[:at], _changed(draw, value[at]), *value[at + 1 :]]
    return draw.choice(_VALUES)


def _wrong_length(draw: random.Random, wanted: Wanted) -> Wanted:
    length = max(0, len(wanted.body) + draw.choice((-5, -1, 1, 1000)))
    return replace(wanted, headers=(*wanted.headers, f"content-length: {length}"))


def _chunked(draw: random.Random, wanted: Wanted) -> Wanted:
    end = draw.choice(
        (b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"-1\r\n\r\n", b"fffffffffffffffff\r\n", b"0;x\r\n\r\n", b"0\n\n", b"")
    )
    body = b"%x\r\n%b\r\n" % (len(wanted.body) + draw.choice((0, 0, 0, 1, -1)), wanted.body) if wanted.body else b""
    return replace(wanted, headers=(*wanted.headers, "transfer-encoding: chunked"), body=body + end)


_OF_PARTS: tuple[Callable[[random.Random, Wanted], Wanted], ...] = (
    _other_method, _other_path, _another_header, _a_header_twice, _other_json, _other_json, _wrong_length, _chunked,
)  # fmt: skip


def _flip(draw: random.Random, raw: bytes) -> bytes:
    at = draw.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :]


def _cut(draw: random.Random, raw: bytes) -> bytes:
    return raw[: draw.randrange(1, len(raw))]


def _drop(draw: random.Random, raw: bytes) -> bytes:
    start = draw.randrange(len(raw))
    return raw[:start] + raw[start + draw.randrange(1, 20) :]


def _double(draw: random.Random, raw: bytes) -> bytes:
    start = draw.randrange(len(raw))
    return raw[:start] + raw[start : start + draw.randrange(1, 200)] * 2 + raw[start:]


def _insert(draw: random.Random, raw: bytes) -> bytes:
    at = draw.randrange(len(raw))
    return raw[:at] + draw.randbytes(draw.choice((1, 4, 300))) + raw[at:]


def _newlines(draw: random.Random, raw: bytes) -> bytes:
    return raw.replace(b"\r\n", draw.choice((b"\n", b"\r", b"\r\r\n", b"\n\r")), draw.choice((1, -1)))


_OF_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _drop,
    _double,
    _insert,
    _newlines,
)
