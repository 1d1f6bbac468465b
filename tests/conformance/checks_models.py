"""Model metadata, readiness, configuration and statistics (M)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.checks import check, infer_simple, refused, succeeded

if TYPE_CHECKING:
    from conformance.server_under_test import ServerUnderTest

_DATATYPES = {
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
    "BF16",
}  # fmt: skip
_STAGES = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}


@check("M1")
def _metadata(server: ServerUnderTest) -> None:
    """Name, versions as text, platform, inputs and outputs."""
    found = succeeded(server.ask("GET", "/v2/models/simple"), name="simple", platform="onnxruntime_onnx")
    assert found["versions"] == ["1"]
    assert found["inputs"] == [{"name": f"INPUT{i}", "datatype": "INT32", "shape": [-1, 16]} for i in (0, 1)]
    assert found["outputs"] == [{"name": f"OUTPUT{i}", "datatype": "INT32", "shape": [-1, 16]} for i in (0, 1)]


@check("M2")
def _metadata_of_version(server: ServerUnderTest) -> None:
    """The same under its version."""
    found = succeeded(server.ask("GET", "/v2/models/simple/versions/1"), name="simple")
    assert found == succeeded(server.ask("GET", "/v2/models/simple"))


@check("M3")
def _unknown_version(server: ServerUnderTest) -> None:
    """An unknown version is named."""
    words = "Request for unknown model: 'simple' version 99 is not found"
    refused(server.ask("GET", "/v2/models/simple/versions/99"), 404, words)


@check("M4")
def _version_without_digits(server: ServerUnderTest) -> None:
    """A version that is no number."""
    refused(server.ask("GET", "/v2/models/simple/versions/abc"), (400, 404))


@check("M5")
def _unknown_model(server: ServerUnderTest) -> None:
    """An unknown model."""
    text = refused(server.ask("GET", "/v2/models/nope"), 404)
    assert text.startswith("Request for unknown model: 'nope' is not found")


@check("M6")
def _metadata_by_post(server: ServerUnderTest) -> None:
    """POST is refused."""
    refused(server.ask("POST", "/v2/models/simple"), 405)


@check("M7")
def _ready(server: ServerUnderTest) -> None:
    """A model is ready."""
    for path in ("/v2/models/simple/ready", "/v2/models/simple/versions/1/ready"):
        assert succeeded(server.ask("GET", path)) == {"name": "simple", "ready": True}


@check("M8")
def _unknown_ready(server: ServerUnderTest) -> None:
    """An unknown one is not."""
    refused(server.ask("GET", "/v2/models/nope/ready"), 404)


@check("M9")
def _unknown_version_ready(server: ServerUnderTest) -> None:
    """Nor is an unknown version."""
    refused(server.ask("GET", "/v2/models/simple/versions/99/ready"), (400, 404))


@check("M10")
def _version_zero(server: ServerUnderTest) -> None:
    """Nor version 0."""
    refused(server.ask("GET", "/v2/models/simple/versions/0/ready"), (400, 404))


@check("M11")
def _version_negative(server: ServerUnderTest) -> None:
    """Nor version -1."""
    refused(server.ask("GET", "/v2/models/simple/versions/-1/ready"), (400, 404))


@check("M12")
def _config(server: ServerUnderTest) -> None:
    """The configuration, as perf_analyzer reads it."""
    found = succeeded(
        server.ask("GET", "/v2/models/simple/config"),
        name="simple",
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        max_batch_size=8,
    )
    assert [(t["name"], t["data_type"], [int(d) for d in t["dims"]]) for t in found["input"]] == [
        ("INPUT0", "TYPE_INT32", [16]),
        ("INPUT1", "TYPE_INT32", [16]),
    ]
    assert "dynamic_batching" in found
    assert found["instance_group"][0]["kind"] == "KIND_CPU"
    full = succeeded(server.ask("GET", "/v2/models/id_i64nb/versions/1/config"), max_batch_size=0)
    assert [int(d) for d in full["input"][0]["dims"]] == [4]


@check("M13")
def _statistics(server: ServerUnderTest) -> None:
    """Counts that grow with each inference."""
    before = succeeded(server.ask("GET", "/v2/models/simple/stats"))["model_stats"][0]
    succeeded(infer_simple(server))
    refused(infer_simple(server, datatype="FP32"), 400)
    after = succeeded(server.ask("GET", "/v2/models/simple/versions/1/stats"))["model_stats"][0]
    assert (after["name"], after["version"]) == ("simple", "1")
    assert set(after["inference_stats"]) >= _STAGES
    assert all(set(after["inference_stats"][stage]) == {"count", "ns"} for stage in _STAGES)
    assert after["inference_count"] > before["inference_count"]
    assert after["execution_count"] > before["execution_count"]
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert after["inference_stats"]["fail"]["count"] > before["inference_stats"]["fail"]["count"]
    assert isinstance(after["batch_stats"], list)


@check("M14")
def _all_statistics(server: ServerUnderTest) -> None:
    """Those of every model."""
    found = succeeded(server.ask("GET", "/v2/models/stats"))["model_stats"]
    assert {"simple", "id_fp32"} <= {model["name"] for model in found}


@check("M15")
def _names(server: ServerUnderTest) -> None:
    """KServe's list of names."""
    assert {"simple", "id_bytes"} <= set(succeeded(server.ask("GET", "/v2/models"))["models"])


@check("M16")
def _shapes(server: ServerUnderTest) -> None:
    """A batch's axis is open; a model without batches shows its whole shape."""
    assert server.ask("GET", "/v2/models/simple").json["inputs"][0]["shape"] == [-1, 16]
    assert server.ask("GET", "/v2/models/id_i64nb").json["inputs"][0]["shape"] == [4]


@check("M17")
def _encoded_name(server: ServerUnderTest) -> None:
    """A name is decoded once, and only once."""
    succeeded(server.ask("GET", "/v2/models/s%69mple"), name="simple")
    refused(server.ask("GET", "/v2/models/s%2569mple"), 404)


@check("M18")
def _encoded_slash(server: ServerUnderTest) -> None:
    """A slash cannot be hidden."""
    for path in ("/v2/models/a%2Fb", "/v2/models%2fsimple", "/v2/models/simple%2fready", "/v2/models/..%2f..%2fetc"):
        refused(server.ask("GET", path), (400, 404))


@check("M19")
def _traversal(server: ServerUnderTest) -> None:
    """Nor does a path lead anywhere else."""
    refused(server.ask("GET", "/v2/models/../../etc/passwd"), 404)


@check("M20")
def _datatypes(server: ServerUnderTest) -> None:
    """Shapes are integers, datatypes the protocol's."""
    for name in server.ask("GET", "/v2/models").json["models"]:
        found = succeeded(server.ask("GET", f"/v2/models/{name}"))
        for spec in (*found["inputs"], *found["outputs"]):
            assert spec["datatype"] in _DATATYPES
            assert all(type(axis) is int and axis >= -1 for axis in spec["shape"])
