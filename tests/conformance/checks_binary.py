"""The binary tensor extension: forms of inputs and outputs, sizes, header (B1 to B17, B39)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from conformance.checks import (
    LENGTH,
    ONES,
    ROW,
    binary_body,
    binary_outputs,
    check,
    data_of,
    infer,
    infer_binary,
    raw_simple,
    refused,
    require_alive,
    simple_inputs,
    tensor,
)

if TYPE_CHECKING:
    from conformance.server_under_test import Answer, ServerUnderTest

_SUM = [value + 1 for value in ROW]
_RAW_SUM = np.array(_SUM, "<i4").tobytes()
_INFER = "/v2/models/simple/infer"
_BINARY, _JSON = {"binary_data": True}, {"binary_data": False}


def _with_length(server: ServerUnderTest, length: str) -> Answer:
    body, _ = binary_body(raw_simple())
    return server.ask("POST", _INFER, body, **{LENGTH: length})


@check("B1")
def _in(server: ServerUnderTest) -> None:
    """Binary in, JSON out."""
    assert data_of(infer_binary(server, "simple", raw_simple())) == _SUM


@check("B2")
def _out(server: ServerUnderTest) -> None:
    """One output in binary: its header, its size, its bytes."""
    wished = [{"name": "OUTPUT0", "parameters": _BINARY}]
    ((output, raw),) = binary_outputs(infer_binary(server, "simple", raw_simple(), outputs=wished))
    assert raw == _RAW_SUM
    assert output["parameters"] == {"binary_data_size": 64}
    assert "data" not in output


@check("B3")
def _all_out(server: ServerUnderTest) -> None:
    """All outputs in binary, in order."""
    answer = infer_binary(server, "simple", raw_simple(), parameters={"binary_data_output": True})
    found = binary_outputs(answer)
    assert [output["name"] for output, _ in found] == ["OUTPUT0", "OUTPUT1"]
    assert [np.frombuffer(raw or b"", "<i4").tolist() for _, raw in found] == [_SUM, [value - 1 for value in ROW]]


@check("B4")
def _override(server: ServerUnderTest) -> None:
    """An output's own word counts more than the request's."""
    wished = [{"name": "OUTPUT0"}, {"name": "OUTPUT1", "parameters": _JSON}]
    answer = infer_binary(server, "simple", raw_simple(), outputs=wished, parameters={"binary_data_output": True})
    (_, raw), (second, none) = binary_outputs(answer)
    assert (raw, none) == (_RAW_SUM, None)
    assert second["data"] == [value - 1 for value in ROW]


@check("B5")
def _json_in(server: ServerUnderTest) -> None:
    """JSON in, binary out."""
    answer = infer(server, "simple", simple_inputs(), outputs=[{"name": "OUTPUT0", "parameters": _BINARY}])
    assert binary_outputs(answer)[0][1] == _RAW_SUM


@check("B6")
def _mixed(server: ServerUnderTest) -> None:
    """One input in each form."""
    first, raw = raw_simple()[0]
    header = json.dumps(
        {"inputs": [tensor("INPUT1", "INT32", [1, 16], ONES), {**first, "parameters": {"binary_data_size": 64}}]}
    ).encode()
    assert data_of(server.ask("POST", _INFER, header + raw, **{LENGTH: str(len(header))})) == _SUM


@check("B7")
def _short(server: ServerUnderTest) -> None:
    """A body that ends too early."""
    body, headers = binary_body(raw_simple())
    refused(server.ask("POST", _INFER, body[:-4], **headers), 400, "expecting 4 additional bytes")


@check("B8")
def _long(server: ServerUnderTest) -> None:
    """A body that goes on."""
    body, headers = binary_body(raw_simple())
    refused(server.ask("POST", _INFER, body + b"\0\0\0\0", **headers), 400, "unexpected additional input data")


@check("B9")
def _both(server: ServerUnderTest) -> None:
    """Data in both forms."""
    (first, raw), second = raw_simple()
    body, headers = binary_body([({**first, "data": ROW}, raw), second])
    refused(server.ask("POST", _INFER, body, **headers), 400, "must set only one of")


@check("B10")
def _other_size(server: ServerUnderTest) -> None:
    """A size that is not the shape's."""
    (first, raw), second = raw_simple()
    answer = infer_binary(server, "simple", [(first, raw[:60]), second])
    refused(answer, 400, "input byte size mismatch", "Expected 64, got 60")


@check("B11")
def _no_header(server: ServerUnderTest) -> None:
    """Without the header the whole body is JSON."""
    body, headers = binary_body(raw_simple())
    refused(server.ask("POST", _INFER, body), 400)
    refused(server.ask("POST", _INFER, body[: int(headers[LENGTH])]), 400, "expecting 64 additional bytes")


@check("B12")
def _letters(server: ServerUnderTest) -> None:
    """A header that is no number."""
    for length in ("abc", "1e2", "0x10", "1 2", ""):
        refused(_with_length(server, length), 400)


@check("B13")
def _negative(server: ServerUnderTest) -> None:
    """A negative one."""
    refused(_with_length(server, "-1"), 400)


@check("B14")
def _beyond(server: ServerUnderTest) -> None:
    """One beyond the body."""
    refused(_with_length(server, "99999"), 400)


@check("B15")
def _cut(server: ServerUnderTest) -> None:
    """One that cuts the JSON."""
    for length in ("1", "10", "100"):
        refused(_with_length(server, length), 400)


@check("B16")
def _negative_size(server: ServerUnderTest) -> None:
    """A negative size."""
    refused(infer(server, "simple", simple_inputs(parameters={"binary_data_size": -64})), 400)


@check("B17")
def _size_text(server: ServerUnderTest) -> None:
    """A size that is no number."""
    sizes: tuple[Any, ...] = ("64", 64.0, True, None, [])
    for size in sizes:
        refused(infer(server, "simple", simple_inputs(parameters={"binary_data_size": size})), 400)


@check("B39")
def _huge_header(server: ServerUnderTest) -> None:
    """A header of eleven digits, and one of a thousand."""
    for length in ("99999999999", "9" * 1000, str(2**63), str(2**64)):
        refused(_with_length(server, length), 400)
    require_alive(server)
