"""The same suite, where its models came with the server: `blindai serve --model-repository`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from conformance.checks import refused, succeeded
from conformance.models import conformance_models, write_repository
from conformance.run import TABLE
from conformance.server_under_test import ServerUnderTest
from e2e.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.network
# Section R loads and unloads, which nobody may do with these models; Z1 sends nonsense there.
_CHANGES_MODELS = ("R", "Z1")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    folder = tmp_path_factory.mktemp("repository")
    write_repository(folder)
    running = RunningServer(
        tmp_path_factory.mktemp("conformance") / "stderr.log", options=("--model-repository", str(folder))
    )
    try:
        yield ServerUnderTest(running.url)
    finally:
        running.stop()
    assert "Traceback" not in running.log


@pytest.mark.parametrize("identifier", [one for one in TABLE if not one.startswith(_CHANGES_MODELS)])
def test_conforms_with_models_of_a_repository(identifier: str, served: ServerUnderTest) -> None:
    TABLE[identifier].run(served)


def test_every_model_is_ready_when_the_server_is(served: ServerUnderTest) -> None:
    index = succeeded(served.ask("POST", "/v2/repository/index", {"ready": True}))
    assert {entry["name"] for entry in index} == {model.name for model in conformance_models()}


@pytest.mark.parametrize("verb", ["load", "unload", "a load with files", "delete"])
def test_nobody_changes_what_came_with_the_server(verb: str, served: ServerUnderTest) -> None:
    path = "/v2/repository/models/simple"
    (simple,) = (model for model in conformance_models() if model.name == "simple")
    files = {"config": "{}", "file:2/model.onnx": base64.b64encode(simple.file).decode()}
    answer = {
        "load": lambda: served.ask("POST", f"{path}/load", {}),
        "unload": lambda: served.ask("POST", f"{path}/unload"),
        "a load with files": lambda: served.ask("POST", f"{path}/load", {"parameters": files}),
        "delete": lambda: served.ask("DELETE", path),
    }[verb]()
    refused(answer, 403, "came with the server")
    TABLE["I1"].run(served)
