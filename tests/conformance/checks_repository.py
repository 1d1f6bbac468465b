"""The model repository extension: index, load, unload (R)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from conformance.checks import check, data_of, infer, refused, require_alive, succeeded, tensor
from conformance.models import conformance_models

if TYPE_CHECKING:
    from conformance.server_under_test import Answer, ServerUnderTest

_FILE = {model.name: base64.b64encode(model.file).decode() for model in conformance_models()}
_MODEL = "id_u64"
_INPUT = tensor("INPUT0", "UINT64", [1], [3])


def _index(server: ServerUnderTest, body: Any = None) -> list[Any]:
    found: list[Any] = succeeded(server.ask("POST", "/v2/repository/index", body))
    return found


def _load(server: ServerUnderTest, name: str, **parameters: Any) -> Answer:
    return server.ask("POST", f"/v2/repository/models/{name}/load", {"parameters": parameters} if parameters else None)


def _unload(server: ServerUnderTest, name: str, **parameters: Any) -> Answer:
    body = {"parameters": parameters} if parameters else None
    return server.ask("POST", f"/v2/repository/models/{name}/unload", body)


def _state(server: ServerUnderTest, name: str) -> list[tuple[str, str, str]]:
    return [(m["version"], m["state"], m["reason"]) for m in _index(server) if m["name"] == name]


def _upload(server: ServerUnderTest, name: str, config: str = "{}", file: str = _FILE[_MODEL], **more: str) -> Answer:
    return _load(server, name, config=config, **{"file:1/model.onnx": file}, **more)


@check("R1")
def _list(server: ServerUnderTest) -> None:
    """Every model with its state."""
    found = _index(server)
    assert {"name": "simple", "version": "1", "state": "READY", "reason": ""} in found
    assert _index(server, {}) == found


@check("R2")
def _ready_only(server: ServerUnderTest) -> None:
    """Only those that are ready."""
    _unload(server, _MODEL)
    assert _MODEL not in {model["name"] for model in _index(server, {"ready": True})}
    assert _MODEL in {model["name"] for model in _index(server, {"ready": False})}
    succeeded(_load(server, _MODEL))
    assert _MODEL in {model["name"] for model in _index(server, {"ready": True})}


@check("R3")
def _list_by_get(server: ServerUnderTest) -> None:
    """GET is refused."""
    refused(server.ask("GET", "/v2/repository/index"), 405)


@check("R4")
def _ready_text(server: ServerUnderTest) -> None:
    """`ready` is true or false."""
    for value in ("true", 1, None):
        refused(server.ask("POST", "/v2/repository/index", {"ready": value}), 400)


@check("R5")
def _unload_model(server: ServerUnderTest) -> None:
    """An unload is answered when it is done."""
    succeeded(_unload(server, _MODEL, unload_dependents=False))
    assert _state(server, _MODEL) == [("1", "UNAVAILABLE", "unloaded")]
    succeeded(_load(server, _MODEL))


@check("R6")
def _unloaded_ready(server: ServerUnderTest) -> None:
    """An unloaded model is not ready."""
    _unload(server, _MODEL)
    refused(server.ask("GET", f"/v2/models/{_MODEL}/ready"), (400, 404))
    succeeded(_load(server, _MODEL))


@check("R7")
def _unloaded_infer(server: ServerUnderTest) -> None:
    """Nor can it be run."""
    _unload(server, _MODEL)
    words = f"Request for unknown model: '{_MODEL}' has no available versions"
    refused(infer(server, _MODEL, [_INPUT]), 404, words)
    succeeded(_load(server, _MODEL))


@check("R8")
def _unloaded_state(server: ServerUnderTest) -> None:
    """The index says so."""
    _unload(server, _MODEL)
    entry = {"name": _MODEL, "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert entry in _index(server)
    assert _MODEL not in succeeded(server.ask("GET", "/v2/models"))["models"]
    succeeded(_load(server, _MODEL))


@check("R9")
def _server_ready(server: ServerUnderTest) -> None:
    """The server stays ready."""
    _unload(server, _MODEL)
    succeeded(server.ask("GET", "/v2/health/ready"), ready=True)
    succeeded(_load(server, _MODEL))


@check("R10")
def _load_model(server: ServerUnderTest) -> None:
    """A load is answered when the model is ready."""
    _unload(server, _MODEL)
    succeeded(_load(server, _MODEL))
    succeeded(server.ask("GET", f"/v2/models/{_MODEL}/ready"), ready=True)
    assert data_of(infer(server, _MODEL, [_INPUT])) == [3]


@check("R11")
def _reload(server: ServerUnderTest) -> None:
    """A loaded model is loaded again; a load that fails leaves it as it was."""
    succeeded(_load(server, _MODEL))
    refused(_upload(server, _MODEL, file=base64.b64encode(b"no model").decode()), 422)
    refused(_load(server, _MODEL, config='{"max_batch_size": -1}'), 400)
    assert data_of(infer(server, _MODEL, [_INPUT])) == [3]
    succeeded(_load(server, _MODEL, config='{"max_batch_size": 4}'))
    assert succeeded(server.ask("GET", f"/v2/models/{_MODEL}/config"))["max_batch_size"] == 4
    succeeded(_load(server, _MODEL, config="{}"))


@check("R12")
def _load_unknown(server: ServerUnderTest) -> None:
    """A model that is not there."""
    refused(_load(server, "nope"), 404)


@check("R13")
def _unload_unknown(server: ServerUnderTest) -> None:
    """Is unloaded already."""
    succeeded(_unload(server, "nope"))


@check("R14")
def _load_by_get(server: ServerUnderTest) -> None:
    """GET is refused."""
    answer = server.ask("GET", "/v2/repository/models/simple/load")
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"


@check("R15")
def _config_malformed(server: ServerUnderTest) -> None:
    """A configuration that is none, or one that this server cannot honour."""
    for config in (
        "no json", "[]", '{"surprise": 1}', '{"backend": "python"}', '{"runtime": "x"}', '{"name": "other"}',
        '{"platform": "tensorflow"}', '{"sequence_batching": {}}', '{"model_operations": {}}', "[" * 200_000,
    ):  # fmt: skip
        refused(_load(server, _MODEL, config=config), 400)
    refused(_load(server, _MODEL, config=5), 400)


@check("R16")
def _no_config(server: ServerUnderTest) -> None:
    """Files without a configuration."""
    refused(_load(server, "newm", **{"file:1/model.onnx": _FILE[_MODEL]}), 400, "config")
    assert not _state(server, "newm")


@check("R17")
def _traversal(server: ServerUnderTest) -> None:
    """Files that would lie elsewhere."""
    for path in (
        "../../x", "1/../../x.onnx", "/etc/x.onnx", "1//x.onnx", "1/a/b.onnx", "model.onnx", "1/..", "0/m.onnx",
        "-1/m.onnx", "1/.m.onnx", "1/\0.onnx", "1\\m.onnx", "01/m.onnx", "",
    ):  # fmt: skip
        refused(_load(server, "newm", config="{}", **{f"file:{path}": _FILE[_MODEL]}), 400)
    assert not _state(server, "newm")


@check("R18")
def _no_base64(server: ServerUnderTest) -> None:
    """A file that is not base64."""
    for text in ("!!!", "abc", "YWJj YWJj", "é"):
        refused(_load(server, "newm", config="{}", **{"file:1/model.onnx": text}), 400, "base64")
    require_alive(server)


@check("R19")
def _unknown_parameter(server: ServerUnderTest) -> None:
    """A parameter that there is not."""
    refused(_load(server, _MODEL, surprise=True), 400)
    refused(_unload(server, _MODEL, surprise=True), 400)
    succeeded(server.ask("GET", f"/v2/models/{_MODEL}/ready"), ready=True)


@check("R20")
def _bad_name(server: ServerUnderTest) -> None:
    """A name that is none."""
    for name in ("..", "a%20b", "a%00b", "%2e%2e", "a%5Cb", "..%2F..%2Fetc", "%C3%A9", "-x", "x" * 200):
        refused(server.ask("POST", f"/v2/repository/models/{name}/load"), (400, 404))
    refused(server.ask("POST", "/v2/repository/models/../load"), (400, 404), "")
    refused(server.ask("POST", "/v2/repository/models/a%20b/load"), 400, "path traversal characters")


@check("R21")
def _with_files(server: ServerUnderTest) -> None:
    """A model whose files come along is served at once, and replaced by the next; then it is deleted."""
    succeeded(
        _upload(server, "brought", **{"file:3/model.onnx": _FILE["id_bool"]}, config='{"version_policy":{"all":{}}}')
    )
    assert {version for version, state, _ in _state(server, "brought") if state == "READY"} == {"1", "3"}
    answer = server.ask("POST", "/v2/models/brought/versions/1/infer", {"inputs": [_INPUT]})
    assert data_of(answer) == [3]
    succeeded(
        _upload(server, "brought", file=_FILE["id_bool"], config='{"version_policy":{"specific":{"versions":[1]}}}')
    )
    assert _state(server, "brought") != []
    metadata = succeeded(server.ask("GET", "/v2/models/brought"))
    assert (metadata["versions"], metadata["inputs"][0]["datatype"]) == (["1"], "BOOL")
    succeeded(server.ask("DELETE", "/v2/repository/models/brought"), deleted=2)
    assert not _state(server, "brought")
