"""Loads and unloads: who may, what a policy serves, and what a load that fails leaves behind."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from conformance.models import conformance_models
from server.test_uploads import serving

from blindai.errors import InvalidInputError, TooLargeError
from blindai.server.access import Principal, Role, open_principal
from blindai.server.calls import Call, Reply
from blindai.server.dispatch import Service, dispatch
from blindai.server.load_request import MAX_LABEL_BYTES, read_load, selected_versions
from blindai.server.model_config_json import read_config, write_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FILES = {model.name: model.file for model in conformance_models()}
USER = Principal(tenant="public", roles=frozenset({Role.INFER}), share="public")


async def one_piece(body: bytes) -> AsyncIterator[memoryview]:
    if body:
        yield memoryview(body)


async def ask(service: Service, method: str, path: str, body: Any = None, *, who: Principal | None = None) -> Reply:
    data = b"" if body is None else json.dumps(body).encode()
    call = Call(principal=who or open_principal(""), method=method, path=path, headers={}, body=one_piece(data))
    return await dispatch(service, call)


async def load(service: Service, *models: str, who: Principal | None = None, config: str = "{}") -> Reply:
    files = {
        f"file:{number}/model.onnx": base64.b64encode(FILES[model]).decode() for number, model in enumerate(models, 1)
    }
    body = {"parameters": {"config": config, **files}}
    return await ask(service, "POST", "/v2/repository/models/m/load", body, who=who)


async def states(service: Service) -> dict[str, str]:
    found = json.loads(b"".join((await ask(service, "POST", "/v2/repository/index")).body))
    return {entry["version"]: entry["state"] for entry in found}


@pytest.mark.network
async def test_only_who_may_change_models_loads_and_unloads(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert (await load(service, "id_u64", who=USER)).status == 403
        assert service.store.models() == ()
        assert (await load(service, "id_u64")).status == 200
        assert (await ask(service, "POST", "/v2/repository/models/m/unload", who=USER)).status == 403
        assert await states(service) == {"1": "READY"}


@pytest.mark.network
async def test_a_policy_without_uploads_takes_no_files(tmp_path: Path) -> None:
    async with serving(tmp_path, upload_allowed=False) as service:
        assert (await load(service, "id_u64")).status == 403
        assert service.store.models() == ()


@pytest.mark.network
async def test_version_policies_choose_what_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert (await load(service, "id_u64", "id_bool", "id_u64")).status == 200
        assert await states(service) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE", "3": "READY"}
        body = {"parameters": {"config": '{"version_policy": {"specific": {"versions": [1, "2"]}}}'}}
        assert (await ask(service, "POST", "/v2/repository/models/m/load", body)).status == 200
        assert await states(service) == {"1": "READY", "2": "READY", "3": "UNAVAILABLE"}
        described = json.loads(b"".join((await ask(service, "GET", "/v2/models/m")).body))
        assert (described["version"], described["versions"]) == ("2", ["1", "2"])


@pytest.mark.network
async def test_a_load_that_fails_leaves_what_was_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert (await load(service, "id_u64")).status == 200
        before = service.store.models()
        assert (await load(service, "id_i64nb", config='{"max_batch_size": 2}')).status == 422
        body = {
            "parameters": {
                "config": '{"max_batch_size": 2, "input": [{"name": "X", "data_type": "TYPE_BOOL", "dims": [1]}]}'
            }
        }
        assert (await ask(service, "POST", "/v2/repository/models/m/load", body)).status == 422
        assert service.store.models() == before
        assert await states(service) == {"1": "READY"}


@pytest.mark.network
async def test_an_unload_leaves_an_equal_model_of_others_running(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await load(service, "id_u64")
        other = {"parameters": {"config": "{}", "file:1/model.onnx": base64.b64encode(FILES["id_u64"]).decode()}}
        assert (await ask(service, "POST", "/v2/repository/models/twin/load", other)).status == 200
        running = service.pool.process_ids
        await ask(service, "POST", "/v2/repository/models/m/unload")
        assert service.pool.process_ids == running
        await ask(service, "POST", "/v2/repository/models/twin/unload")
        assert service.pool.process_ids == ()


@pytest.mark.network
async def test_a_load_replaces_a_version_and_its_files_go(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await load(service, "id_u64")
        (old,) = service.store.models()
        assert (await load(service, "id_bool")).status == 200
        (new,) = service.store.models()
        assert (new.version, new.digest != old.digest) == ("1", True)
        assert not service.store.holds(old.digest)


@pytest.mark.parametrize(
    ("policy", "versions", "served"),
    [
        ("all", ["1", "2"], {"1", "2"}),
        ("latest 1", ["9", "10"], {"10"}),
        ("latest 2", ["1", "9", "10"], {"9", "10"}),
        ("latest 5", ["1"], {"1"}),
        ("specific 1 3", ["1", "2", "3"], {"1", "3"}),
        ("latest 1", ["1", "2", "beta"], {"2", "beta"}),
    ],
)
def test_policies_select_versions(policy: str, versions: list[str], served: set[str]) -> None:
    assert selected_versions(policy, versions) == served


LABELLED = json.dumps(
    {
        "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [-1, -1]}],
        "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [-1, -1], "label_filename": "labels.txt"}],
    }
)


async def largest(service: Service) -> Any:
    """The two largest classes that the loaded model finds, as Triton writes them."""
    wished = [{"name": "OUTPUT0", "parameters": {"classification": 2}}]
    tensors = [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 3], "data": [1, 5, 3]}]
    reply = await ask(service, "POST", "/v2/models/m/infer", {"inputs": tensors, "outputs": wished})
    return json.loads(b"".join(bytes(piece) for piece in reply.body))["outputs"][0]["data"]


@pytest.mark.network
async def test_a_load_brings_labels(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await load(service, "id_fp32")
        assert await largest(service) == ["5.000000:1", "3.000000:2"]
        labels = {"config": LABELLED, "file:labels.txt": base64.b64encode(b"cat\nd\xc3\xb4g\nowl\n").decode()}
        body = {"parameters": labels}
        assert (await ask(service, "POST", "/v2/repository/models/m/load", body)).status == 200
        assert await largest(service) == ["5.000000:1:dôg", "3.000000:2:owl"]
        model = {"file:2/model.onnx": base64.b64encode(FILES["id_fp32"]).decode()}
        body = {"parameters": labels | model}
        assert (await ask(service, "POST", "/v2/repository/models/m/load", body)).status == 200
        assert await states(service) == {"1": "UNAVAILABLE", "2": "READY"}
        assert await largest(service) == ["5.000000:1:dôg", "3.000000:2:owl"]


@pytest.mark.parametrize(
    ("config", "name", "labels", "words"),
    [
        (LABELLED, "", b"", "'labels.txt' did not come along"),
        (LABELLED, "other.txt", b"a", "'labels.txt' did not come along"),
        ("{}", "labels.txt", b"a", "no label_filename names it"),
        (LABELLED, "labels.txt", b"\xff", "text in UTF-8"),
        (LABELLED, "1/labels.txt", b"a", "did not come along"),
        (LABELLED.replace("labels.txt", "../labels.txt"), "../labels.txt", b"a", "without folders"),
    ],
    ids=range(6),
)
def test_labels_that_do_not_fit_are_refused(config: str, name: str, labels: bytes, words: str) -> None:
    given = {f"file:{name}": base64.b64encode(labels).decode()} if name else {}
    with pytest.raises(InvalidInputError, match=words):
        read_load(json.dumps({"parameters": {"config": config, **given}}).encode(), name="m")


def test_labels_are_bounded() -> None:
    labels = base64.b64encode(bytes(MAX_LABEL_BYTES + 1)).decode()
    body = {"parameters": {"config": LABELLED, "file:labels.txt": labels}}
    with pytest.raises(TooLargeError, match="label files"):
        read_load(json.dumps(body).encode(), name="m")


def test_an_empty_load_asks_for_nothing_special() -> None:
    for body in (b"", b" \n", b"{}", b'{"parameters": {}}'):
        assert read_load(body, name="m").config is None


async def test_written_configurations_are_read_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await load(service, "id_fp32", config='{"max_batch_size": 8, "dynamic_batching": {}}')
        (model,) = service.store.models()
        face = await service.pool.metadata(model, "public")
        written = write_config(model, face)
        found = read_config(json.dumps(written).encode(), name="m").serving
    assert found == replace(model.config, inputs=face.inputs, outputs=face.outputs)


async def test_the_optimization_of_a_load_is_part_of_the_digest(tmp_path: Path) -> None:
    basic = '{"optimization": {"graph": {"level": -1}}}'
    async with serving(tmp_path) as service:
        await load(service, "id_u64", config=basic)
        (model,) = service.store.models()
        assert model.manifest.session.graph_optimization == "basic"
        for config, status in ((basic, 200), ("{}", 200), (basic.replace("-1", "2"), 400)):
            body = {"parameters": {"config": config}}
            assert (await ask(service, "POST", "/v2/repository/models/m/load", body)).status == status
