"""Inference in JSON: elements of every datatype, exactly, and hostile JSON (I41 to I60)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from conformance.checks import (
    ROW,
    check,
    data_of,
    infer,
    infer_raw_json,
    infer_simple,
    refused,
    require_alive,
    simple_inputs,
    succeeded,
    tensor,
)

if TYPE_CHECKING:
    from conformance.server_under_test import ServerUnderTest

_MAX_DEPTH = 100


@check("I41")
def _nan(server: ServerUnderTest) -> None:
    """NaN is no JSON, neither in a request nor in an answer: stricter than the list, which would accept it."""
    for literal in ("NaN", "Infinity", "-Infinity"):
        text = f'{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[1,1],"data":[{literal}]}}]}}'
        refused(infer_raw_json(server, "id_fp32", text), 400, "in binary")


@check("I42")
def _infinite(server: ServerUnderTest) -> None:
    """A number beyond every float."""
    text = '{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,1],"data":[1e400]}]}'
    refused(infer_raw_json(server, "id_fp32", text), 400)


@check("I43")
def _deep(server: ServerUnderTest) -> None:
    """Nesting deeper than 100."""
    for depth in (_MAX_DEPTH + 1, 250_000):
        text = '{"inputs":[],"x":' + "[" * depth + "]" * depth + "}"
        refused(infer_raw_json(server, "simple", text), 400, "JSON nesting depth exceeds maximum allowed limit (100)")
    require_alive(server)


@check("I44")
def _content_type(server: ServerUnderTest) -> None:
    """The content type is not looked at."""
    for kind in ("application/octet-stream", "application/x-www-form-urlencoded", "text/plain"):
        answer = server.ask("POST", "/v2/models/simple/infer", {"inputs": simple_inputs()}, content_type=kind)
        succeeded(answer)


@check("I45")
def _empty_tensor(server: ServerUnderTest) -> None:
    """A tensor without elements."""
    found = succeeded(infer(server, "id_fp32", [tensor("INPUT0", "FP32", [1, 0], [])]))["outputs"][0]
    assert (found["shape"], found["data"]) == ([1, 0], [])


@check("I46")
def _int64(server: ServerUnderTest) -> None:
    """INT64 beyond 2^53, and at its ends."""
    values = [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
    assert data_of(infer(server, "id_i64nb", [tensor("INPUT0", "INT64", [4], values)])) == values


@check("I47")
def _uint64(server: ServerUnderTest) -> None:
    """UINT64's largest."""
    assert data_of(infer(server, "id_u64", [tensor("INPUT0", "UINT64", [2], [2**64 - 1, 0])])) == [2**64 - 1, 0]


@check("I48")
def _bool(server: ServerUnderTest) -> None:
    """BOOL as true and false."""
    found = data_of(infer(server, "id_bool", [tensor("INPUT0", "BOOL", [2], [True, False])]))
    assert found[0] is True
    assert found[1] is False


@check("I49")
def _bool_number(server: ServerUnderTest) -> None:
    """BOOL as 1 and 0 is refused."""
    refused(infer(server, "id_bool", [tensor("INPUT0", "BOOL", [2], [1, 0])]), 400)


@check("I50")
def _text(server: ServerUnderTest) -> None:
    """Text comes back."""
    words = ["œuf", "", 'a"b\\c', "😀"]
    assert data_of(infer(server, "id_bytes", [tensor("INPUT0", "BYTES", [4], words)])) == words


@check("I51")
def _text_number(server: ServerUnderTest) -> None:
    """BYTES are text."""
    refused(infer(server, "id_bytes", [tensor("INPUT0", "BYTES", [1], [1])]), 400)


@check("I52")
def _nul(server: ServerUnderTest) -> None:
    """NUL is a character like any other."""
    assert data_of(infer(server, "id_bytes", [tensor("INPUT0", "BYTES", [2], ["a\0b", "\0"])])) == ["a\0b", "\0"]


@check("I53")
def _fp16(server: ServerUnderTest) -> None:
    """FP16 in JSON is numbers, rounded as everyone expects; too large is refused."""
    found = data_of(infer(server, "id_fp16", [tensor("INPUT0", "FP16", [1, 3], [1.5, -0.0, 65504])]))
    assert found == [1.5, 0.0, 65504.0]
    assert math.copysign(1, found[1]) == -1
    refused(infer(server, "id_fp16", [tensor("INPUT0", "FP16", [1, 1], [65520])]), 400)


@check("I54")
def _bf16(server: ServerUnderTest) -> None:
    """BF16 likewise."""
    assert data_of(infer(server, "id_bf16", [tensor("INPUT0", "BF16", [2], [1.0, 3.140625])])) == [1.0, 3.140625]


@check("I55")
def _optional(server: ServerUnderTest) -> None:
    """An input with a default may be left out, or given."""
    given = tensor("INPUT0", "FP32", [2], [1, 2])
    assert data_of(infer(server, "id_opt", [given])) == [11.0, 12.0]
    assert data_of(infer(server, "id_opt", [given, tensor("INPUT1", "FP32", [1], [5])])) == [6.0, 7.0]
    refused(infer(server, "id_opt", [given, tensor("INPUT1", "FP32", [2], [5, 5])]), 400, "INPUT1")
    refused(infer(server, "id_opt", [given, tensor("INPUT1", "INT64", [1], [5])]), 400, "INPUT1")
    refused(infer(server, "id_opt", [tensor("INPUT1", "FP32", [1], [5])]), 400, "INPUT0")


@check("I56")
def _old_http(server: ServerUnderTest) -> None:
    """HTTP/1.0 is answered, and the connection closed."""
    answer = server.send_raw(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"200"
    assert body == b'{"live":true}'


@check("I57")
def _example(server: ServerUnderTest) -> None:
    """The protocol's own example has one datum for three elements."""
    refused(infer(server, "id_bool", [tensor("INPUT0", "BOOL", [3], [True])]), 400)


@check("I58")
def _no_inputs(server: ServerUnderTest) -> None:
    """A model without inputs."""
    assert data_of(infer(server, "id_none", [])) == [1.0, 2.0]


@check("I59")
def _scalar(server: ServerUnderTest) -> None:
    """A scalar has shape [] and one element."""
    found = succeeded(infer(server, "id_scalar", [tensor("INPUT0", "FP32", [], [2.5])]))["outputs"][0]
    assert (found["shape"], found["data"]) == ([], [2.5])


@check("I60")
def _canary(server: ServerUnderTest) -> None:
    """Refusals quote no element, no path and no place in the code."""
    secret, number = "canary-7f3a9", 1987654321012345
    for answer in (
        infer_simple(server, data=[secret] * 16),
        infer_simple(server, data=[number] * 16),
        infer_simple(server, data=[[secret]]),
        infer_simple(server, shape=[1, 15]),
        infer(server, "id_bytes", [tensor("INPUT0", "BYTES", [1], [secret, secret])]),
        infer(server, "simple", secret),
        infer(server, "simple", [{secret: secret}]),
        infer_raw_json(server, "simple", f'{{"inputs": [{secret}'),
        infer(server, "simple", simple_inputs(), parameters={"timeout": secret}),
    ):
        text = refused(answer, 400) + str(answer.json) + str(answer.headers)
        assert secret not in text
        assert str(number) not in text
        assert str(ROW)[1:-1] not in text
        for sign in ("Traceback", ".py", "/usr", "/home", "0x7"):
            assert sign not in text
