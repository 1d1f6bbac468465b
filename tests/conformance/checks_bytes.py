"""The binary tensor extension: elements bit by bit, raw requests, compressed and chunked bodies (B18 to B41)."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import numpy as np
from conformance.checks import (
    LENGTH,
    ROW,
    binary_body,
    binary_outputs,
    check,
    data_of,
    entry,
    infer_binary,
    raw_simple,
    refused,
    require_alive,
    simple_inputs,
    succeeded,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conformance.server_under_test import Answer, ServerUnderTest

_SUM = [value + 1 for value in ROW]
_INFER = "/v2/models/simple/infer"
_ALL = {"binary_data_output": True}
_QUIET_NAN_WITH_PAYLOAD, _SUBNORMAL = 0x7E55, 0x0001


def _text(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def _run(server: ServerUnderTest, datatype: str, shape: Sequence[int], raw: bytes) -> bytes | None:
    model = f"id_{datatype.lower()}"
    answer = infer_binary(server, model, [(entry("INPUT0", datatype, shape), raw)], parameters=_ALL)
    return binary_outputs(answer)[0][1]


def _compressed(server: ServerUnderTest, encoding: str, body: bytes, **headers: str) -> Answer:
    return server.ask("POST", _INFER, body, content_encoding=encoding, **headers)


@check("B18")
def _fp16(server: ServerUnderTest) -> None:
    """FP16 to the bit."""
    raw = np.array([_QUIET_NAN_WITH_PAYLOAD, _SUBNORMAL, 0x8000, 0x7C00, 0xFC00], "<u2").tobytes()
    assert _run(server, "FP16", [1, 5], raw) == raw


@check("B19")
def _fp16_json(server: ServerUnderTest) -> None:
    """FP16 out as JSON is numbers, where JSON has them."""
    raw = np.array([0.5, -2], "<f2").tobytes()
    assert data_of(infer_binary(server, "id_fp16", [(entry("INPUT0", "FP16", [1, 2]), raw)])) == [0.5, -2.0]


@check("B20")
def _bf16(server: ServerUnderTest) -> None:
    """BF16 to the bit."""
    raw = np.array([0x7FC5, _SUBNORMAL, 0x8000, 0x7F80, 0x3F81], "<u2").tobytes()
    assert _run(server, "BF16", [5], raw) == raw


@check("B21")
def _bytes(server: ServerUnderTest) -> None:
    """BYTES with their lengths; this engine's text is UTF-8, and other bytes are refused in words."""
    raw = _text("œuf".encode(), b"a\0b")
    assert _run(server, "BYTES", [2], raw) == raw
    foreign = infer_binary(server, "id_bytes", [(entry("INPUT0", "BYTES", [1]), _text(b"\xff\0"))], parameters=_ALL)
    refused(foreign, 400, "UTF-8")


@check("B22")
def _not_utf_8(server: ServerUnderTest) -> None:
    """What is not UTF-8 never becomes JSON."""
    answer = infer_binary(server, "id_bytes", [(entry("INPUT0", "BYTES", [1]), _text(b"\xff\xfe"))])
    refused(answer, 400, "UTF-8")


@check("B23")
def _long_element(server: ServerUnderTest) -> None:
    """An element that is longer than the rest."""
    raw = (200).to_bytes(4, "little") + b"ab"
    refused(infer_binary(server, "id_bytes", [(entry("INPUT0", "BYTES", [1]), raw)]), 400)


@check("B24")
def _element_count(server: ServerUnderTest) -> None:
    """Another number of elements than the shape's."""
    for elements in ([b"a"], [b"a"] * 4):
        refused(infer_binary(server, "id_bytes", [(entry("INPUT0", "BYTES", [3]), _text(*elements))]), 400, "3")


@check("B25")
def _empty_element(server: ServerUnderTest) -> None:
    """An empty element."""
    assert _run(server, "BYTES", [2], _text(b"", b"x")) == _text(b"", b"x")


@check("B26")
def _bool(server: ServerUnderTest) -> None:
    """Any byte but 0 is true."""
    assert _run(server, "BOOL", [4], b"\x02\x00\xff\x01") == b"\1\0\1\1"


@check("B27")
def _raw(server: ServerUnderTest) -> None:
    """A body without JSON: one row of the one input, everything back in binary."""
    raw = np.array([1, 2, 3], "<f4").tobytes()
    answer = server.ask("POST", "/v2/models/id_fp32/infer", raw, **{LENGTH: "0"})
    ((output, found),) = binary_outputs(answer)
    assert (output["shape"], found) == ([1, 3], raw)


@check("B28")
def _raw_two_inputs(server: ServerUnderTest) -> None:
    """It needs a model of one input."""
    refused(server.ask("POST", _INFER, bytes(64), **{LENGTH: "0"}), 400, "Raw request must only have 1 input", "2")


@check("B29")
def _raw_two_axes(server: ServerUnderTest) -> None:
    """With at most one open axis."""
    refused(server.ask("POST", "/v2/models/id_fp16/infer", bytes(4), **{LENGTH: "0"}), 400, "can not be deduced")


@check("B30")
def _raw_size(server: ServerUnderTest) -> None:
    """Of whole elements."""
    answer = server.ask("POST", "/v2/models/id_fp32/infer", bytes(6), **{LENGTH: "0"})
    refused(answer, 400, "input byte size mismatch", "raw_input", "got 6")


@check("B31")
def _nan(server: ServerUnderTest) -> None:
    """NaN and infinities leave in binary, and never as JSON."""
    for value in (np.nan, np.inf, -np.inf):
        raw = np.array([value], "<f4").tobytes()
        assert _run(server, "FP32", [1, 1], raw) == raw
        refused(infer_binary(server, "id_fp32", [(entry("INPUT0", "FP32", [1, 1]), raw)]), 400, "binary")


@check("B32")
def _gzip(server: ServerUnderTest) -> None:
    """A body in gzip; the header counts the JSON that is inflated."""
    body, headers = binary_body(raw_simple())
    assert data_of(_compressed(server, "gzip", gzip.compress(body), **headers)) == _SUM
    assert data_of(_compressed(server, "gzip", gzip.compress(json.dumps({"inputs": simple_inputs()}).encode()))) == _SUM


@check("B33")
def _deflate(server: ServerUnderTest) -> None:
    """A body in deflate."""
    body, headers = binary_body(raw_simple())
    assert data_of(_compressed(server, "deflate", zlib.compress(body), **headers)) == _SUM


@check("B34")
def _unknown_encoding(server: ServerUnderTest) -> None:
    """Another compression; the answer says which there are."""
    for encoding in ("br", "zstd", "gzip, gzip"):
        answer = _compressed(server, encoding, json.dumps({"inputs": simple_inputs()}).encode())
        refused(answer, 415)
        assert answer.headers["accept-encoding"] == "gzip, deflate"


@check("B35")
def _no_gzip(server: ServerUnderTest) -> None:
    """No gzip though it says so, only half of it, or something after it."""
    whole = gzip.compress(json.dumps({"inputs": simple_inputs()}).encode())
    for body in (json.dumps({"inputs": simple_inputs()}).encode(), whole[:-5], whole + b"x", b""):
        refused(_compressed(server, "gzip", body), 400)


@check("B36")
def _plain_answers(server: ServerUnderTest) -> None:
    """Answers are not compressed: their length would tell what is in them."""
    answer = server.ask("POST", _INFER, {"inputs": simple_inputs()}, accept_encoding="gzip, deflate")
    succeeded(answer)
    assert "content-encoding" not in answer.headers


@check("B37")
def _chunked(server: ServerUnderTest) -> None:
    """A body in chunks."""
    body, headers = binary_body(raw_simple())
    assert data_of(server.ask_chunked(_INFER, body, **headers)) == _SUM


@check("B38")
def _bomb(server: ServerUnderTest) -> None:
    """A body that inflates without end."""
    inflate = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = b"".join([*(inflate.compress(bytes(1 << 20)) for _ in range(400)), inflate.flush()])
    refused(_compressed(server, "gzip", bomb), 413)
    require_alive(server)
