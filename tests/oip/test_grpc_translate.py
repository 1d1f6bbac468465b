"""RPCs as REST and back: exact tensors, parameters, statuses, and refusals that hold nothing of what was sent."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.oip.grpc.failures import Code, RpcError, code_of, failure_of
from blindai.oip.grpc.schema import Message, message_type
from blindai.oip.grpc.translate import (
    DEADLINE_HEADER,
    RestAnswer,
    RestRequest,
    from_rest,
    stream_failure,
    stream_response,
    to_rest,
    with_deadline,
)
from blindai.oip.grpc.weight import MAX_SMALL_BYTES, MAX_TYPED_BYTES, memory_of
from blindai.oip.rest import HEADER_LENGTH

CANARY = "canary-7412"


def request_of(rpc: str, **fields: Any) -> Message:
    return message_type(f"inference.{rpc}Request")(**fields)


def infer_request(*inputs: dict[str, Any], **fields: Any) -> Message:
    return request_of("ModelInfer", model_name="m", inputs=list(inputs), **fields)


def typed(datatype: str, shape: list[int], **contents: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, "contents": contents}


def json_answer(value: Any, status: int = 200) -> RestAnswer:
    body = json.dumps(value).encode()
    return RestAnswer(status=status, headers=(("content-type", "application/json"),), body=(body,))


def binary_answer(header: dict[str, Any], *pieces: bytes, padding: int = 0) -> RestAnswer:
    text = json.dumps(header).encode() + b" " * padding
    return RestAnswer(status=200, headers=((HEADER_LENGTH, str(len(text))),), body=(text, *pieces))


def opened(request: RestRequest) -> tuple[dict[str, Any], bytes]:
    """The JSON of a binary body and the bytes after it."""
    whole, length = b"".join(request.body), int(dict(request.headers)[HEADER_LENGTH])
    header: dict[str, Any] = json.loads(whole[:length])
    return header, whole[length:]


def refusal(rpc: str, message: Message) -> RpcError:
    with pytest.raises(RpcError) as caught:
        to_rest(rpc, message)
    assert CANARY not in caught.value.details
    return caught.value


# ---- ModelInfer, there


def test_raw_contents_stay_what_they_are() -> None:
    entry = {"name": "x", "datatype": "FP16", "shape": [1, 2]}
    request = to_rest("ModelInfer", infer_request(entry, id="7", raw_input_contents=[b"\x01\x7e\x00\xfc"]))
    header, tail = opened(request)
    assert (request.method, request.path) == ("POST", "/v2/models/m/infer")
    assert tail == b"\x01\x7e\x00\xfc"
    assert header["id"] == "7"
    assert header["inputs"] == [{**entry, "parameters": {"binary_data_size": 4}}]
    assert header["parameters"] == {"binary_data_output": True}
    assert int(dict(request.headers)[HEADER_LENGTH]) % 8 == 0


@pytest.mark.parametrize(
    ("datatype", "field", "values", "dtype"),
    [
        ("BOOL", "bool_contents", [True, False], "?"),
        ("INT8", "int_contents", [-128, 127], "i1"),
        ("INT16", "int_contents", [-32768, 32767], "<i2"),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1], "<i4"),
        ("INT64", "int64_contents", [-(2**63), 2**53 + 1], "<i8"),
        ("UINT8", "uint_contents", [0, 255], "u1"),
        ("UINT16", "uint_contents", [0, 65535], "<u2"),
        ("UINT32", "uint_contents", [0, 2**32 - 1], "<u4"),
        ("UINT64", "uint64_contents", [0, 2**64 - 1], "<u8"),
        ("FP32", "fp32_contents", [0.1, math.inf], "<f4"),
        ("FP64", "fp64_contents", [0.1, -math.inf], "<f8"),
    ],
)
def test_typed_contents_become_the_exact_bytes(datatype: str, field: str, values: list[Any], dtype: str) -> None:
    _, tail = opened(to_rest("ModelInfer", infer_request(typed(datatype, [2], **{field: values}))))
    assert tail == np.array(values, dtype=dtype).tobytes()


def test_typed_text_takes_any_bytes() -> None:
    _, tail = opened(
        to_rest("ModelInfer", infer_request(typed("BYTES", [1, 3], bytes_contents=[b"\xff\x00", b"", b"a"])))
    )
    assert tail == b"\x02\0\0\0\xff\x00\0\0\0\0\x01\0\0\0a"


@given(st.lists(st.floats(width=32), max_size=20))
def test_floats_keep_every_bit_but_a_nans(values: list[float]) -> None:
    _, tail = opened(to_rest("ModelInfer", infer_request(typed("FP32", [len(values)], fp32_contents=values))))
    np.testing.assert_array_equal(np.frombuffer(tail, "<f4"), np.array(values, "<f4"))


def test_an_empty_tensor_needs_no_contents() -> None:
    header, tail = opened(to_rest("ModelInfer", infer_request({"name": "x", "datatype": "FP32", "shape": [1, 0]})))
    assert tail == b""
    assert header["inputs"][0]["parameters"]["binary_data_size"] == 0


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(infer_request(typed("INT32", [1], int_contents=[1]), raw_input_contents=[b"abcd"]), id="G11"),
        pytest.param(infer_request({"name": "x", "datatype": "INT32", "shape": [1]}), id="G12"),
        pytest.param(
            infer_request(*[{"name": "x", "datatype": "INT8", "shape": [1]}] * 2, raw_input_contents=[b"a"]),
            id="G13",
        ),
        pytest.param(
            infer_request({"name": "x", "datatype": "INT8", "shape": [1]}, raw_input_contents=[b"a", b"b"]),
            id="more raw contents than inputs",
        ),
        pytest.param(infer_request(typed(CANARY, [1], int_contents=[1])), id="G18"),
        pytest.param(infer_request(typed("FP32", [1], int_contents=[1])), id="G20"),
        pytest.param(infer_request(typed("FP32", [1], fp32_contents=[1], int_contents=[1])), id="two fields"),
        pytest.param(infer_request(typed("INT32", [-1], int_contents=[1])), id="G21"),
        pytest.param(infer_request(typed("INT32", [1] * 65, int_contents=[1])), id="rank"),
        pytest.param(infer_request(typed("INT32", [2**40, 2**40], int_contents=[1])), id="count overflows"),
        pytest.param(infer_request(typed("FP16", [1], fp32_contents=[1])), id="G28"),
        pytest.param(infer_request(typed("BF16", [1], fp32_contents=[1])), id="G28 BF16"),
        pytest.param(infer_request(typed("INT8", [1], int_contents=[128])), id="does not fit"),
        pytest.param(infer_request(typed("UINT16", [1], uint_contents=[65536])), id="does not fit, unsigned"),
        pytest.param(infer_request(typed("INT32", [3], int_contents=[1])), id="too few"),
        pytest.param(infer_request(typed("BYTES", [1], bytes_contents=[b"a", b"b"])), id="too many"),
        pytest.param(infer_request(parameters={CANARY: {}}), id="a parameter without value"),
        pytest.param(
            infer_request(parameters={CANARY: {"double_param": math.nan}}), id="a parameter that is no number"
        ),
        pytest.param(
            infer_request(parameters={"binary_data_output": {"bool_param": False}}), id="REST's own parameter"
        ),
        pytest.param(request_of("ModelInfer"), id="no model"),
    ],
)
def test_what_does_not_go_together_is_an_invalid_argument(message: Message) -> None:
    assert refusal("ModelInfer", message).code is Code.INVALID_ARGUMENT


def test_a_size_beside_raw_contents_is_taken_if_it_is_true() -> None:
    """KServe's client says it in gRPC too."""

    def sized(parameter: dict[str, Any]) -> Message:
        entry = {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": parameter}}
        return infer_request(entry, raw_input_contents=[b"abcd"])

    header, tail = opened(to_rest("ModelInfer", sized({"int64_param": 4})))
    assert (header["inputs"][0]["parameters"], tail) == ({"binary_data_size": 4}, b"abcd")
    wrong: dict[str, Any]
    for wrong in ({"int64_param": 3}, {"string_param": "4"}):
        assert refusal("ModelInfer", sized(wrong)).code is Code.INVALID_ARGUMENT


def test_shared_memory_is_unimplemented() -> None:
    entry = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1],
        "parameters": {"shared_memory_region": {"string_param": "r"}},
    }
    assert refusal("ModelInfer", infer_request(entry, raw_input_contents=[b"abcd"])).code is Code.UNIMPLEMENTED


def test_parameters_keep_their_kind() -> None:
    message = infer_request(
        parameters={
            "flag": {"bool_param": True},
            "timeout": {"int64_param": -5},
            "word": {"string_param": "é"},
            "share": {"double_param": 0.5},
            "sequence": {"uint64_param": 2**64 - 1},
            "triton_enable_empty_final_response": {"bool_param": True},
        },
        outputs=[{"name": "y", "parameters": {"classification": {"int64_param": 3}}}, {"name": "z"}],
    )
    header, _ = opened(to_rest("ModelInfer", message))
    assert header["parameters"] == {
        "flag": True,
        "timeout": -5,
        "word": "é",
        "share": 0.5,
        "sequence": 2**64 - 1,
        "binary_data_output": True,
    }
    assert header["outputs"] == [
        {"name": "y", "parameters": {"classification": 3, "binary_data": True}},
        {"name": "z", "parameters": {"binary_data": True}},
    ]


# ---- ModelInfer, back


@pytest.mark.parametrize("joined", [False, True])
def test_a_binary_answer_comes_back_raw(joined: bool) -> None:  # noqa: FBT001  # a parameter of the test
    header = {
        "model_name": "m",
        "model_version": "2",
        "id": "7",
        "parameters": {"b": True, "i": -1, "u": 2**63, "d": 0.5, "s": "t"},
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
            {"name": "z", "datatype": "INT8", "shape": [3], "parameters": {"binary_data_size": 3, "kind": "k"}},
        ],
    }
    answer = binary_answer(header, b"abcd", b"efg")
    if joined:
        answer = RestAnswer(status=200, headers=answer.headers, body=(b"".join(answer.body),))
    response = from_rest("ModelInfer", answer)
    assert (response.model_name, response.model_version, response.id) == ("m", "2", "7")
    assert list(response.raw_output_contents) == [b"abcd", b"efg"]
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("y", "FP32", [1, 1]),
        ("z", "INT8", [3]),
    ]
    assert {name: value.WhichOneof("parameter_choice") for name, value in response.parameters.items()} == {
        "b": "bool_param",
        "i": "int64_param",
        "u": "uint64_param",
        "d": "double_param",
        "s": "string_param",
    }
    assert dict(response.outputs[0].parameters) == {}
    assert response.outputs[1].parameters["kind"].string_param == "k"


_TENSOR = {"name": "y", "datatype": "INT8", "shape": [3]}


@pytest.mark.parametrize(
    "answer",
    [
        RestAnswer(status=200, body=(b"{}",)),
        RestAnswer(status=200, headers=((HEADER_LENGTH, "9"),), body=(b"{}",)),
        RestAnswer(status=200, headers=((HEADER_LENGTH, "-1"),), body=(b"{}",)),
        binary_answer({"outputs": []}),
        binary_answer({"model_name": "m", "outputs": [_TENSOR]}),
        binary_answer({"model_name": "m", "outputs": [{**_TENSOR, "parameters": {}}]}, b"abc"),
        binary_answer({"model_name": "m", "outputs": [{**_TENSOR, "parameters": {"binary_data_size": 4}}]}, b"abc"),
        binary_answer({"model_name": "m", "outputs": [{**_TENSOR, "parameters": {"binary_data_size": 2}}]}, b"abc"),
        binary_answer({"model_name": "m", "outputs": [{**_TENSOR, "parameters": {"binary_data_size": -1}}]}, b"abc"),
    ],
)
def test_a_broken_answer_is_the_servers_fault(answer: RestAnswer) -> None:
    with pytest.raises(RpcError) as caught:
        from_rest("ModelInfer", answer)
    assert caught.value.code is Code.INTERNAL


# ---- The other RPCs


@pytest.mark.parametrize(
    ("rpc", "fields", "expected"),
    [
        ("ServerMetadata", {}, ("GET", "/v2")),
        ("ModelReady", {"name": "m"}, ("GET", "/v2/models/m/ready")),
        ("ModelReady", {"name": "m", "version": "3"}, ("GET", "/v2/models/m/versions/3/ready")),
        ("ModelMetadata", {"name": "m@sha256:ab"}, ("GET", "/v2/models/m@sha256:ab")),
        ("ModelMetadata", {"name": "../a b/ü?#"}, ("GET", "/v2/models/..%2Fa%20b%2F%C3%BC%3F%23")),
        ("ModelConfig", {"name": "m", "version": "3"}, ("GET", "/v2/models/m/versions/3/config")),
        ("ModelStatistics", {}, ("GET", "/v2/models/stats")),
        ("ModelStatistics", {"name": "m"}, ("GET", "/v2/models/m/stats")),
        ("RepositoryIndex", {}, ("POST", "/v2/repository/index")),
        ("RepositoryModelLoad", {"model_name": "m"}, ("POST", "/v2/repository/models/m/load")),
        ("RepositoryModelUnload", {"model_name": "m"}, ("POST", "/v2/repository/models/m/unload")),
    ],
)
def test_each_rpc_has_its_path(rpc: str, fields: dict[str, Any], expected: tuple[str, str]) -> None:
    request = to_rest(rpc, request_of(rpc, **fields))
    assert (request.method, request.path) == expected
    assert request.body == ()


@pytest.mark.parametrize(
    ("rpc", "fields", "code"),
    [
        ("ModelReady", {}, Code.INVALID_ARGUMENT),
        ("ModelStatistics", {"version": "1"}, Code.INVALID_ARGUMENT),
        ("RepositoryIndex", {"repository_name": "other"}, Code.UNIMPLEMENTED),
        ("RepositoryModelLoad", {"repository_name": "other", "model_name": "m"}, Code.UNIMPLEMENTED),
        ("RepositoryModelLoad", {"model_name": "m", "parameters": {"config": {}}}, Code.INVALID_ARGUMENT),
        ("SystemSharedMemoryStatus", {}, Code.UNIMPLEMENTED),
        ("CudaSharedMemoryRegister", {}, Code.UNIMPLEMENTED),
        ("TraceSetting", {}, Code.UNIMPLEMENTED),
        ("LogSettings", {}, Code.UNIMPLEMENTED),
    ],
)
def test_requests_without_a_meaning_here(rpc: str, fields: dict[str, Any], code: Code) -> None:
    assert refusal(rpc, request_of(rpc, **fields)).code is code


def test_index_of_what_is_ready() -> None:
    assert json.loads(b"".join(to_rest("RepositoryIndex", request_of("RepositoryIndex", ready=True)).body)) == {
        "ready": True
    }


def test_files_of_a_load_come_in_base64() -> None:
    parameters = {"config": {"string_param": "{}"}, "file:1/model.onnx": {"bytes_param": b"\xff\x00"}}
    request = to_rest("RepositoryModelLoad", request_of("RepositoryModelLoad", model_name="m", parameters=parameters))
    assert json.loads(b"".join(request.body)) == {
        "parameters": {"config": "{}", "file:1/model.onnx": base64.b64encode(b"\xff\x00").decode()}
    }


@pytest.mark.parametrize(("status", "ready"), [(200, True), (400, False), (404, False), (503, False)])
def test_readiness_of_a_model_is_no_error(status: int, ready: bool) -> None:  # noqa: FBT001  # as above
    assert from_rest("ModelReady", json_answer({"error": "no"}, status)).ready is ready


def test_metadata() -> None:
    tensor = {"name": "x", "datatype": "BF16", "shape": [-1, 16]}
    found = from_rest(
        "ModelMetadata",
        json_answer(
            {
                "name": "m",
                "versions": ["1", "2"],
                "platform": "onnxruntime_onnx",
                "inputs": [tensor],
                "outputs": [],
                "digest": "sha256:…",
                "default_shape": None,
            }
        ),
    )
    assert (found.name, list(found.versions), found.platform) == ("m", ["1", "2"], "onnxruntime_onnx")
    assert [(i.name, i.datatype, list(i.shape)) for i in found.inputs] == [("x", "BF16", [-1, 16])]
    server = from_rest(
        "ServerMetadata", json_answer({"name": "blindai", "version": "1", "extensions": ["a"], "service": "s"})
    )
    assert list(server.extensions) == ["a"]


def test_configuration_with_numbers_or_text_for_dims() -> None:
    for dims in ([16, -1], ["16", "-1"]):
        answer = json_answer({"name": "m", "max_batch_size": 8, "input": [{"data_type": "TYPE_INT32", "dims": dims}]})
        config = from_rest("ModelConfig", answer).config
        assert (config.max_batch_size, config.input[0].data_type, list(config.input[0].dims)) == (8, 8, [16, -1])


def test_statistics() -> None:
    duration = {"count": 2, "ns": "9007199254740993"}
    answer = json_answer(
        {
            "model_stats": [
                {
                    "name": "m",
                    "version": "1",
                    "last_inference": 1700000000000,
                    "inference_count": 3,
                    "execution_count": 2,
                    "inference_stats": {"success": duration, "compute_infer": duration},
                    "batch_stats": [{"batch_size": 1, "compute_infer": duration}],
                }
            ]
        }
    )
    (found,) = from_rest("ModelStatistics", answer).model_stats
    assert (found.inference_count, found.execution_count) == (3, 2)
    assert found.inference_stats.success.ns == 2**53 + 1
    assert found.batch_stats[0].batch_size == 1


def test_index() -> None:
    models = [{"name": "m", "version": "1", "state": "READY", "reason": ""}, {"name": "n"}]
    found = from_rest("RepositoryIndex", json_answer(models)).models
    assert [(model.name, model.state) for model in found] == [("m", "READY"), ("n", "")]


@pytest.mark.parametrize("rpc", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_done_is_an_empty_message(rpc: str) -> None:
    assert from_rest(rpc, RestAnswer(status=200)).SerializeToString() == b""
    with pytest.raises(RpcError):
        from_rest(rpc, json_answer({"error": "no"}, 404))


@pytest.mark.parametrize(
    "rpc", ["ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"]
)
@pytest.mark.parametrize("body", [b"", b"7", b'"text"', b"[7]", b'{"name":{}, "models":{}, "model_stats":7}'])
def test_an_answer_of_another_form_is_the_servers_fault(rpc: str, body: bytes) -> None:
    with pytest.raises(RpcError) as caught:
        from_rest(rpc, RestAnswer(status=200, body=(body,)))
    assert caught.value.code is Code.INTERNAL


# ---- Failures, streams, deadlines, weights


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (405, "UNIMPLEMENTED"),
        (409, "ABORTED"),
        (412, "FAILED_PRECONDITION"),
        (413, "RESOURCE_EXHAUSTED"),
        (415, "INVALID_ARGUMENT"),
        (422, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (499, "DEADLINE_EXCEEDED"),
        (500, "INTERNAL"),
        (501, "UNIMPLEMENTED"),
        (502, "UNAVAILABLE"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_statuses_have_their_codes(status: int, code: str) -> None:
    assert code_of(status) == code


def test_a_failure_says_what_the_server_says() -> None:
    assert failure_of(404, [b'{"error":"no such model"}']).details == "no such model"
    assert failure_of(404, [b'{"error":"no","hint":"look at', b' the index"}']).details == "no (look at the index)"
    assert failure_of(502, [b"<html>"]).details == "status 502"
    assert len(failure_of(400, [b'{"error":"' + b"x" * 100_000 + b'"}']).details) == 1024


def test_stream_answers() -> None:
    done = stream_response(from_rest("ModelInfer", binary_answer({"model_name": "m", "id": "7", "outputs": []})))
    assert (done.infer_response.id, done.error_message) == ("7", "")
    assert done.infer_response.parameters["triton_final_response"].bool_param
    failed = stream_failure(RpcError(Code.NOT_FOUND, "no such model"), "7")
    assert (failed.infer_response.id, failed.error_message) == ("7", "no such model")


@pytest.mark.parametrize(("left_s", "header"), [(1.5, "1500"), (-1.0, "0"), (1e12, "9999999999")])
def test_a_deadline_is_a_header_of_milliseconds(left_s: float, header: str) -> None:
    request = with_deadline(RestRequest(method="GET", path="/v2"), left_s)
    assert request.headers == ((DEADLINE_HEADER, header),)
    assert with_deadline(request, None) is request


def test_raw_tensors_weigh_what_they_are() -> None:
    raw = infer_request({"name": "x", "datatype": "INT8", "shape": [1 << 20]}, raw_input_contents=[bytes(1 << 20)])
    size = len(raw.SerializeToString())
    assert size < memory_of("ModelInfer", raw.SerializeToString()) < size + 4096


def test_typed_tensors_weigh_more_and_end_earlier() -> None:
    fits = infer_request(typed("FP32", [1 << 20], fp32_contents=[0.5] * (1 << 20))).SerializeToString()
    assert memory_of("ModelInfer", fits) > 10 * len(fits)
    with pytest.raises(RpcError) as caught:
        memory_of(
            "ModelInfer",
            infer_request(typed("BYTES", [1], bytes_contents=[bytes(MAX_TYPED_BYTES)])).SerializeToString(),
        )
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "raw",
    [
        b"\x2a\x00" * MAX_TYPED_BYTES,  # very many inputs of nothing
        b"\x3a\x00" * MAX_TYPED_BYTES,  # very many raw tensors of nothing
        b"\x3a\xff\xff\xff\x7f" + bytes(MAX_TYPED_BYTES + 1),  # longer than what comes
        b"\xff" * (MAX_TYPED_BYTES + 1),  # a number without end
        b"\x08" + bytes(MAX_TYPED_BYTES + 1),  # a field of another kind
    ],
)
def test_what_only_looks_like_raw_tensors_is_refused_unopened(raw: bytes) -> None:
    with pytest.raises(RpcError) as caught:
        memory_of("ModelStreamInfer", raw)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


def test_other_messages_are_small() -> None:
    with pytest.raises(RpcError):
        memory_of("ModelReady", bytes(MAX_SMALL_BYTES + 1))
    assert memory_of("RepositoryModelLoad", bytes(MAX_SMALL_BYTES + 1)) == 4 * (MAX_SMALL_BYTES + 1)


@given(st.binary(max_size=200))
def test_scanning_never_fails(raw: bytes) -> None:
    padded = raw + bytes(MAX_SMALL_BYTES)
    assert memory_of("ModelInfer", padded) >= len(padded)
