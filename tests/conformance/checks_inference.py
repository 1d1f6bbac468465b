"""Inference in JSON: what is answered, and what is refused before the model sees it (I1 to I40)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from conformance.checks import (
    ONES,
    ROW,
    check,
    data_of,
    infer,
    infer_simple,
    refused,
    simple_inputs,
    succeeded,
    tensor,
)

if TYPE_CHECKING:
    from conformance.server_under_test import ServerUnderTest

_SUM, _DIFFERENCE = [value + 1 for value in ROW], [value - 1 for value in ROW]
_INFER = "/v2/models/simple/infer"


def _refuse_input(server: ServerUnderTest, *words: str, **changes: Any) -> None:
    refused(infer_simple(server, **changes), 400, *words)


@check("I1")
def _flat(server: ServerUnderTest) -> None:
    """Flat data; outputs in the model's order."""
    found = succeeded(infer_simple(server), model_name="simple", model_version="1")
    assert found["outputs"] == [
        tensor("OUTPUT0", "INT32", [1, 16], _SUM),
        tensor("OUTPUT1", "INT32", [1, 16], _DIFFERENCE),
    ]


@check("I2")
def _nested(server: ServerUnderTest) -> None:
    """Nested data give the same."""
    assert data_of(infer_simple(server, data=[ROW])) == data_of(infer_simple(server)) == _SUM


@check("I3")
def _id(server: ServerUnderTest) -> None:
    """The id comes back; without one there is none."""
    succeeded(infer(server, "simple", simple_inputs(), id="a/é-1"), id="a/é-1")
    assert "id" not in succeeded(infer_simple(server))


@check("I4")
def _id_number(server: ServerUnderTest) -> None:
    """An id is text."""
    refused(infer(server, "simple", simple_inputs(), id=5), 400)


@check("I5")
def _outputs(server: ServerUnderTest) -> None:
    """Only what is asked for, in that order."""
    found = succeeded(infer(server, "simple", simple_inputs(), outputs=[{"name": "OUTPUT1"}]))
    assert [output["name"] for output in found["outputs"]] == ["OUTPUT1"]
    wished = [{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]
    found = succeeded(infer(server, "simple", simple_inputs(), outputs=wished))
    assert [output["data"] for output in found["outputs"]] == [_DIFFERENCE, _SUM]


@check("I6")
def _unknown_output(server: ServerUnderTest) -> None:
    """An output that the model does not have."""
    words = "unexpected inference output 'NOPE' for model 'simple'"
    refused(infer(server, "simple", simple_inputs(), outputs=[{"name": "NOPE"}]), 400, words)


@check("I7")
def _output_twice(server: ServerUnderTest) -> None:
    """An output asked for twice."""
    twice = [{"name": "OUTPUT0"}, {"name": "OUTPUT0"}]
    refused(infer(server, "simple", simple_inputs(), outputs=twice), 400, "'OUTPUT0' already exists in request")


@check("I8")
def _no_outputs(server: ServerUnderTest) -> None:
    """An empty list means all."""
    assert len(succeeded(infer(server, "simple", simple_inputs(), outputs=[]))["outputs"]) == 2


@check("I9")
def _version(server: ServerUnderTest) -> None:
    """A version may be named."""
    answer = server.ask("POST", "/v2/models/simple/versions/1/infer", {"inputs": simple_inputs()})
    assert data_of(answer) == _SUM


@check("I10")
def _unknown_version(server: ServerUnderTest) -> None:
    """An unknown one."""
    answer = server.ask("POST", "/v2/models/simple/versions/9/infer", {"inputs": simple_inputs()})
    refused(answer, 404, "Request for unknown model: 'simple' version 9 is not found")


@check("I11")
def _unknown_model(server: ServerUnderTest) -> None:
    """An unknown model."""
    refused(infer(server, "nope", simple_inputs()), 404, "Request for unknown model: 'nope' is not found")


@check("I12")
def _by_get(server: ServerUnderTest) -> None:
    """GET is refused."""
    answer = server.ask("GET", _INFER)
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"


@check("I13")
def _empty(server: ServerUnderTest) -> None:
    """An empty body."""
    refused(server.ask("POST", _INFER, b""), 400)


@check("I14")
def _malformed(server: ServerUnderTest) -> None:
    """No JSON."""
    for body in (b'{"inputs": [}', b"x", b"{", b'{"inputs":[]}x', b"\xff\xfe"):
        refused(server.ask("POST", _INFER, body), 400)


@check("I15")
def _array(server: ServerUnderTest) -> None:
    """JSON that is no object."""
    for body in (b"[]", b"null", b"1", b'"inputs"'):
        refused(server.ask("POST", _INFER, body), 400)


@check("I16")
def _no_inputs(server: ServerUnderTest) -> None:
    """No `inputs`."""
    refused(server.ask("POST", _INFER, {}), 400, "inputs")


@check("I17")
def _inputs_object(server: ServerUnderTest) -> None:
    """`inputs` that is no list."""
    refused(server.ask("POST", _INFER, {"inputs": {"name": "INPUT0"}}), 400)


@check("I18")
def _missing(server: ServerUnderTest) -> None:
    """A missing input is named."""
    words = "expected 2 inputs but got 1 inputs for model 'simple'"
    refused(infer(server, "simple", simple_inputs()[:1]), 400, words, "['INPUT0']", "['INPUT1']")


@check("I19")
def _unknown(server: ServerUnderTest) -> None:
    """An input that the model does not have."""
    _refuse_input(server, "unexpected inference input 'NOPE' for model 'simple'", name="NOPE")


@check("I20")
def _extra(server: ServerUnderTest) -> None:
    """One too many."""
    refused(infer(server, "simple", [*simple_inputs(), tensor("X", "INT32", [1, 16], ROW)]), 400, "'X'")


@check("I21")
def _twice(server: ServerUnderTest) -> None:
    """One twice."""
    refused(infer(server, "simple", [simple_inputs()[0]] * 2), 400, "input 'INPUT0' already exists in request")


@check("I22")
def _datatype(server: ServerUnderTest) -> None:
    """Another datatype than the model's."""
    words = "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'"
    _refuse_input(server, words, datatype="FP32")


@check("I23")
def _unknown_datatype(server: ServerUnderTest) -> None:
    """A datatype that there is not."""
    _refuse_input(server, "invalid datatype", datatype="INT33")


@check("I24")
def _lower_case(server: ServerUnderTest) -> None:
    """Datatypes are written in capitals."""
    _refuse_input(server, "invalid datatype", datatype="int32")


@check("I25")
def _shape(server: ServerUnderTest) -> None:
    """Another shape: what is expected, and what came."""
    _refuse_input(server, "'INPUT0'", "[-1, 16]", "[1, 15]", shape=[1, 15], data=ROW[:15])


@check("I26")
def _no_batch(server: ServerUnderTest) -> None:
    """The batch's axis is missing."""
    _refuse_input(server, "batch", shape=[16])


@check("I27")
def _large_batch(server: ServerUnderTest) -> None:
    """More rows than `max_batch_size`."""
    inputs = [tensor(name, "INT32", [9, 16], ROW * 9) for name in ("INPUT0", "INPUT1")]
    refused(infer(server, "simple", inputs), 400, "inference request batch-size must be <= 8 for 'simple'")


@check("I28")
def _other_batch(server: ServerUnderTest) -> None:
    """Inputs of unequal batches."""
    _refuse_input(server, "batch size does not match other inputs for 'simple'", shape=[2, 16], data=ROW * 2)


@check("I29")
def _too_few(server: ServerUnderTest) -> None:
    """Too few elements."""
    _refuse_input(server, "15", "16", data=ROW[:15])


@check("I30")
def _too_many(server: ServerUnderTest) -> None:
    """Too many."""
    _refuse_input(server, "17", "16", data=[*ROW, 16])


@check("I31")
def _negative(server: ServerUnderTest) -> None:
    """A negative axis."""
    _refuse_input(server, shape=[1, -16])


@check("I32")
def _open(server: ServerUnderTest) -> None:
    """An open axis is the model's, never a request's."""
    _refuse_input(server, shape=[1, -1])


@check("I33")
def _overflow(server: ServerUnderTest) -> None:
    """Axes whose product passes 64 bits."""
    for shape in ([2**32, 2**32], [2**62, 4], [2**63 - 1, 2**63 - 1, 16], [0, 2**63 - 1, 2**63 - 1], [2**64]):
        _refuse_input(server, shape=shape)


@check("I34")
def _fraction(server: ServerUnderTest) -> None:
    """An axis is a whole number."""
    for axis in (16.0, "16", True, None):
        _refuse_input(server, shape=[1, axis])


@check("I35")
def _no_data(server: ServerUnderTest) -> None:
    """No data in any form."""
    bare = {name: value for name, value in simple_inputs()[0].items() if name != "data"}
    refused(infer(server, "simple", [bare, simple_inputs()[1]]), 400, "must set only one of")


@check("I36")
def _text(server: ServerUnderTest) -> None:
    """Text where numbers are expected."""
    _refuse_input(server, data=["1", *ONES[1:]])


@check("I37")
def _fraction_element(server: ServerUnderTest) -> None:
    """A fraction where whole numbers are."""
    _refuse_input(server, data=[1.5, *ONES[1:]])


@check("I38")
def _wrap(server: ServerUnderTest) -> None:
    """A number that the datatype does not have is never wrapped."""
    for value in (2**31, -(2**31) - 1, 2**64, 10**30):
        _refuse_input(server, data=[value, *ONES[1:]])


@check("I39")
def _null(server: ServerUnderTest) -> None:
    """Null is no element."""
    _refuse_input(server, data=[None, *ONES[1:]])


@check("I40")
def _unknown_member(server: ServerUnderTest) -> None:
    """Members that the protocol does not have are ignored."""
    body = json.dumps({"surprise": {"any": ["thing"]}, "inputs": simple_inputs()}).encode()
    assert data_of(server.ask("POST", _INFER, body)) == _SUM
