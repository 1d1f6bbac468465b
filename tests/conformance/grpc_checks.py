"""gRPC of the Open Inference Protocol (G): each check asks one running server that has the suite's models.

A check gets every RPC as a function (`Rpcs`) and nothing else of the server.
Leaves out: G35 to G38's other halves (limits, bombs, KServe's client), which are beside the door's own tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from server.grpc_client import Rpcs, infer_request, outcome, request_of

from blindai.oip.grpc.schema import HEALTH_SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[Rpcs], None]

CHECKS: dict[str, Run] = {}


def check(identifier: str) -> Callable[[Run], Run]:
    """Enter a function in the table."""

    def enter(run: Run) -> Run:
        assert identifier not in CHECKS, identifier
        CHECKS[identifier] = run
        return run

    return enter


def entry(name: str, datatype: str, shape: list[int], **contents: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    return {**found, "contents": contents} if contents else found


def pair(datatype: str = "INT32", rows: int = 1, **contents: Any) -> list[dict[str, Any]]:
    """Inputs of `simple`."""
    return [entry("INPUT0", "INT32", [rows, 16], **contents), entry("INPUT1", datatype, [rows, 16], **contents)]


def simple_request(**fields: Any) -> Any:
    return infer_request(*pair(), model="simple", raw_input_contents=[bytes(64)] * 2, **fields)


def load_models(rpcs: Rpcs, models: Any) -> None:
    """R21 over gRPC: each model's file and configuration in the load request."""
    for model in models:
        parameters = {"config": {"string_param": model.config_json}, "file:1/model.onnx": {"bytes_param": model.file}}
        rpcs.call(
            "RepositoryModelLoad", request_of("RepositoryModelLoad", model_name=model.name, parameters=parameters)
        )


def _ends(identifier: str, code: str, message: Any, rpc: str = "ModelInfer") -> None:
    """A check whose request fails with this code, and leaves the server alive."""

    @check(identifier)
    def run(rpcs: Rpcs) -> None:
        assert outcome(lambda: rpcs.call(rpc, message)) in code.split("|")
        assert rpcs.call("ServerLive").live


@check("G1")
def _live(rpcs: Rpcs) -> None:
    assert rpcs.call("ServerLive").live


@check("G2")
def _ready(rpcs: Rpcs) -> None:
    assert rpcs.call("ServerReady").ready


@check("G3")
def _model_ready(rpcs: Rpcs) -> None:
    assert rpcs.call("ModelReady", request_of("ModelReady", name="simple")).ready


@check("G4")
def _unknown_not_ready(rpcs: Rpcs) -> None:
    assert not rpcs.call("ModelReady", request_of("ModelReady", name="nope")).ready


@check("G5")
def _server_metadata(rpcs: Rpcs) -> None:
    found = rpcs.call("ServerMetadata")
    assert found.name
    assert found.version
    assert "binary_tensor_data" in found.extensions


@check("G6")
def _metadata(rpcs: Rpcs) -> None:
    found = rpcs.call("ModelMetadata", request_of("ModelMetadata", name="simple"))
    assert [(i.name, i.datatype, list(i.shape)) for i in found.inputs] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    assert list(found.versions) == ["1"]


_ends("G7", "NOT_FOUND", request_of("ModelMetadata", name="nope"), "ModelMetadata")
# Versions are words here, not numbers: one that is not there is not found.
_ends("G8", "INVALID_ARGUMENT|NOT_FOUND", request_of("ModelMetadata", name="simple", version="abc"), "ModelMetadata")


@check("G9")
def _raw(rpcs: Rpcs) -> None:
    left, right = np.arange(16, dtype="<i4"), np.ones(16, dtype="<i4")
    answer = rpcs.infer(*pair(), model="simple", id="7", raw_input_contents=[left.tobytes(), right.tobytes()])
    assert (answer.id, list(answer.raw_output_contents)) == ("7", [(left + right).tobytes(), (left - right).tobytes()])


@check("G10")
def _typed(rpcs: Rpcs) -> None:
    for model, datatype, field, values, dtype in (
        ("id_fp32", "FP32", "fp32_contents", [0.5, -1.5], "<f4"),
        ("id_bool", "BOOL", "bool_contents", [True, False], "?"),
        ("id_u64", "UINT64", "uint64_contents", [2**64 - 1, 0], "<u8"),
        ("id_i64nb", "INT64", "int64_contents", [-(2**63), 2**53 + 1, 0, 1], "<i8"),
    ):
        shape = [1, 2] if model == "id_fp32" else [len(values)]
        answer = rpcs.infer(entry("INPUT0", datatype, shape, **{field: values}), model=model)
        assert list(answer.raw_output_contents) == [np.array(values, dtype).tobytes()], model
    assert len(rpcs.infer(*pair(int_contents=range(16)), model="simple").raw_output_contents) == 2


_ends(
    "G11",
    "INVALID_ARGUMENT",
    infer_request(*pair(int_contents=range(16)), model="simple", raw_input_contents=[bytes(64)] * 2),
)
_ends("G12", "INVALID_ARGUMENT", infer_request(*pair(), model="simple"))
_ends("G13", "INVALID_ARGUMENT", infer_request(*pair(), model="simple", raw_input_contents=[bytes(64)]))
_ends("G14", "INVALID_ARGUMENT", infer_request(*pair(), model="simple", raw_input_contents=[bytes(60), bytes(64)]))
_ends("G15", "NOT_FOUND", infer_request(*pair(), model="nope", raw_input_contents=[bytes(64)] * 2))
_ends("G16", "NOT_FOUND", simple_request(model_version="7"))
_ends("G17", "INVALID_ARGUMENT", infer_request(*pair("FP32"), model="simple", raw_input_contents=[bytes(64)] * 2))
_ends("G18", "INVALID_ARGUMENT", infer_request(*pair("NOPE"), model="simple", raw_input_contents=[bytes(64)] * 2))
_ends("G19", "INVALID_ARGUMENT", infer_request(*pair(rows=9), model="simple", raw_input_contents=[bytes(9 * 64)] * 2))
_ends("G20", "INVALID_ARGUMENT", infer_request(*pair(fp32_contents=[0.0] * 16), model="simple"))
_ends("G21", "INVALID_ARGUMENT", infer_request(*pair(rows=-1), model="simple", raw_input_contents=[bytes(64)] * 2))


@check("G22")
def _index(rpcs: Rpcs) -> None:
    found = {model.name: model.state for model in rpcs.call("RepositoryIndex").models}
    assert found["simple"] == "READY"


@check("G23")
def _config(rpcs: Rpcs) -> None:
    config = rpcs.call("ModelConfig", request_of("ModelConfig", name="simple")).config
    assert (config.name, config.max_batch_size) == ("simple", 8)


@check("G24")
def _statistics(rpcs: Rpcs) -> None:
    rpcs.call("ModelInfer", simple_request())
    (found,) = rpcs.call("ModelStatistics", request_of("ModelStatistics", name="simple")).model_stats
    assert found.execution_count >= 1
    assert found.inference_stats.success.ns > 0


_ends("G25", "NOT_FOUND", request_of("RepositoryModelLoad", model_name="nope"), "RepositoryModelLoad")


def _stream(**options: Any) -> Callable[[Rpcs], Any]:
    requests = [simple_request(id="1"), infer_request(*pair(), model="simple", id="2"), simple_request(id="3")]
    return lambda rpcs: rpcs.stream(iter(requests), **options)


@check("G26")
def _stream_goes_on(rpcs: Rpcs) -> None:
    answers = list(_stream()(rpcs))
    assert [(answer.infer_response.id, bool(answer.error_message)) for answer in answers] == [
        ("1", False),
        ("2", True),
        ("3", False),
    ]


@check("G27")
def _stream_ends(rpcs: Rpcs) -> None:
    answers = _stream(metadata=(("triton_grpc_error", "true"),))(rpcs)
    assert next(answers).infer_response.id == "1"
    assert outcome(lambda: next(answers)) == "INVALID_ARGUMENT"


_ends("G28", "INVALID_ARGUMENT", infer_request(entry("INPUT0", "FP16", [1, 1], fp32_contents=[1.0]), model="id_fp16"))


@check("G29")
def _text(rpcs: Rpcs) -> None:
    """Any text: ONNX Runtime's strings are UTF-8, and other bytes are refused in words."""
    answer = rpcs.infer(entry("INPUT0", "BYTES", [2], bytes_contents=["é\0".encode(), b""]), model="id_bytes")
    assert list(answer.raw_output_contents) == [b"\x03\0\0\0\xc3\xa9\0\0\0\0\0"]
    other = infer_request(entry("INPUT0", "BYTES", [1], bytes_contents=[b"\xff"]), model="id_bytes")
    assert outcome(lambda: rpcs.call("ModelInfer", other)) == "INVALID_ARGUMENT"


@check("G30")
def _classification(rpcs: Rpcs) -> None:
    wish = {"name": "OUTPUT0", "parameters": {"classification": {"int64_param": 2}}}
    values = entry("INPUT0", "FP32", [1, 4], fp32_contents=[1, 5, 10, 4])
    answer = rpcs.infer(values, model="id_fp32", outputs=[wish])
    assert list(answer.outputs[0].shape) == [1, 2]
    assert answer.raw_output_contents[0] == b"\x0b\0\0\x0010.000000:2\x0a\0\0\x005.000000:1"


@check("G31")
def _health(rpcs: Rpcs) -> None:
    assert rpcs.health().SerializeToString() == b"\x08\x01"
    assert rpcs.health(HEALTH_SERVICE).status == 1


@check("G32")
def _unknown_method(rpcs: Rpcs) -> None:
    assert outcome(lambda: rpcs.channel.unary_unary("/inference.GRPCInferenceService/Nope")(b"")) == "UNIMPLEMENTED"


@check("G33")
def _garbage(rpcs: Rpcs) -> None:
    assert outcome(lambda: rpcs.call("ModelInfer", raw=b"\xff" * 9)) in {"INTERNAL", "INVALID_ARGUMENT"}
    assert rpcs.call("ServerLive").live


@check("G34")
def _deadline(rpcs: Rpcs) -> None:
    assert outcome(lambda: rpcs.call("ModelInfer", simple_request(), timeout=0)) == "DEADLINE_EXCEEDED"
    assert rpcs.call("ServerLive").live


@check("G35")
def _large(rpcs: Rpcs) -> None:
    """More than grpc's own 4 MiB, both ways."""
    count = 2 << 20
    entries = entry("INPUT0", "FP32", [1, count])
    assert (
        len(rpcs.infer(entries, model="id_fp32", raw_input_contents=[bytes(4 * count)]).raw_output_contents[0])
        == 4 * count
    )


@check("G36")
def _compressed(rpcs: Rpcs) -> None:
    call = rpcs.call("ModelInfer", simple_request(), compression=grpc.Compression.Gzip)
    assert len(call.raw_output_contents) == 2


@check("G37")
def _kserve(rpcs: Rpcs) -> None:
    """KServe's client sends typed contents and no raw ones, and reads raw ones."""
    answer = rpcs.infer(entry("INPUT0", "FP32", [1, 2], fp32_contents=[1, 2]), model="id_fp32")
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [1, 2]


@check("G38")
def _tritons_numbers(rpcs: Rpcs) -> None:
    """`model_name` is field 2 of a load request, and a stream's answers are wrapped: Triton's, not KServe's."""
    assert outcome(lambda: rpcs.call("RepositoryModelLoad", raw=b"\x0a\x06simple")) == "UNIMPLEMENTED"
    assert next(_stream()(rpcs)).HasField("infer_response")
