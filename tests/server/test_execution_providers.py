"""Which execution providers a server is asked for, whether they are there, and what a receipt says of them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from server.model_parts import add_model, stored

from blindai.errors import InternalError, InvalidModelError, InvalidSettingsError
from blindai.server.engine import Engine, provider_options
from blindai.server.execution_providers import (
    PROVIDERS,
    check_choice,
    engine_text,
    engines_of,
    only_version,
    runtime_version,
)
from blindai.server.model_config_json import write_config
from blindai.server.model_store import ModelStore
from blindai.server.provider_check import require_present, try_providers
from blindai.server.runner import ModelFace
from blindai.server.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NO_PROVIDER = "Specified provider"  # what ONNX Runtime's Python says of a provider that its build lacks


def test_the_cpu_computes_unless_something_else_is_asked_for() -> None:
    assert Settings().execution_providers == ("cpu",)
    assert Settings().runtime_policy().execution_providers == ("cpu",)


@pytest.mark.parametrize("names", [[], ["gpu"], ["cpu", "cpu"], ["openvino", "cpu", "openvino"], ["CPU"]])
def test_an_order_of_none_of_one_twice_or_of_an_unknown_one_is_refused(names: list[str]) -> None:
    with pytest.raises(InvalidSettingsError, match="a list of cpu, openvino, cuda"):
        load_settings(None, {"simulation": True, "execution_providers": names})


@pytest.mark.parametrize("value", ["cpu", 1, [1], [["cpu"]]])
def test_anything_but_a_list_of_names_is_refused(value: object) -> None:
    with pytest.raises(InvalidSettingsError, match="execution_providers is a list of texts"):
        load_settings(None, {"simulation": True, "execution_providers": value})


def test_a_file_names_them_in_order_and_evidence_vouches_for_it(tmp_path: Path) -> None:
    file = tmp_path / "blindai.toml"
    file.write_text('simulation = true\nexecution_providers = ["openvino", "cpu"]\n')
    settings = load_settings(file, {})
    assert settings.execution_providers == ("openvino", "cpu")
    assert settings.runtime_policy().members()["execution_providers"] == ["openvino", "cpu"]


@pytest.mark.parametrize("isolation", ["tenant", "model"])
def test_a_device_is_out_of_reach_of_a_closed_process(isolation: str) -> None:
    with pytest.raises(InvalidSettingsError, match="cuda needs a device") as refused:
        check_choice(("cuda", "cpu"), isolation=isolation)
    assert "thread" in refused.value.hint


def test_in_the_server_itself_a_device_may_be_asked_for() -> None:
    check_choice(("cuda",), isolation="thread")


def test_what_computes_here_may_be_served() -> None:
    asked: list[tuple[str, ...]] = []

    def attempt(names: Iterable[str]) -> frozenset[str]:
        asked.append(tuple(names))
        return frozenset(asked[-1])

    require_present(("openvino", "cpu"), attempt)
    require_present(("cpu",), attempt)  # nothing to try, so a start costs nothing
    assert asked == [("openvino", "cpu")]


@pytest.mark.parametrize(
    ("names", "missing", "brings"),
    [
        (("openvino",), "openvino", r"blindai\[openvino\]"),
        (("openvino", "cpu"), "openvino", r"blindai\[openvino\]"),
        (("cuda", "openvino", "cpu"), "cuda", "onnxruntime-gpu"),
    ],
)
def test_one_that_is_missing_is_named_with_what_brings_it(names: tuple[str, ...], missing: str, brings: str) -> None:
    with pytest.raises(InvalidSettingsError, match=f"{missing} does not compute here") as refused:
        require_present(names, lambda asked: frozenset(asked) & {"cpu"})
    refused.match(missing)
    assert brings.replace("\\", "") in refused.value.hint


@pytest.mark.network
def test_the_trial_answers_for_this_environment() -> None:
    assert try_providers(PROVIDERS) == {"cpu"}


@pytest.mark.network
def test_a_server_that_lacks_one_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "blindai.toml"
    file.write_text('execution_providers = ["openvino", "cpu"]\n')
    command = [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", "--port", "0", "--config", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    words = " ".join(ended.stderr.split())
    assert "openvino does not compute here" in words
    assert "pip install 'blindai[openvino]'" in words


@pytest.mark.filterwarnings(f"ignore:{NO_PROVIDER}")
def test_without_a_provider_a_model_does_not_run_on_the_rest_in_silence() -> None:
    """Which ONNX Runtime itself would do."""
    with pytest.raises(InternalError, match="could not start"):
        Engine(providers=("openvino", "cpu")).load({"m.onnx": add_model()})


@pytest.mark.filterwarnings(f"ignore:{NO_PROVIDER}")
def test_a_provider_that_takes_no_rest_says_what_would() -> None:
    with pytest.raises(InvalidModelError, match="does not run whole on openvino") as refused:
        Engine(providers=("openvino",)).load({"m.onnx": add_model()})
    assert "cpu behind it" in refused.value.hint


def test_it_says_what_computes() -> None:
    engine = Engine()
    engine.load({"m.onnx": add_model()})
    assert engine.providers == ("cpu",)


def test_openvino_is_told_to_keep_the_models_precision_and_the_threads() -> None:
    name, options = provider_options("openvino", 3)
    assert name == "OpenVINOExecutionProvider"
    assert options == {"device_type": "CPU", "precision": "ACCURACY", "num_of_threads": "3", "num_streams": "1"}
    assert provider_options("cpu", 3) == ("CPUExecutionProvider", {})


def test_an_engine_is_named_by_what_computed() -> None:
    version = runtime_version()
    assert engines_of(("openvino", "cpu")) == (("onnxruntime-openvino", version), ("onnxruntime", version))
    assert engine_text(("cpu",)) == f"onnxruntime {version}"
    assert engine_text(("cpu", "openvino")) == f"onnxruntime {version}, onnxruntime-openvino {version}"


@pytest.mark.parametrize(
    ("providers", "kind", "accelerators"),
    [
        (("cpu",), "KIND_CPU", None),
        (("openvino", "cpu"), "KIND_CPU", {"cpu_execution_accelerator": [{"name": "openvino"}]}),
        (("cuda",), "KIND_GPU", None),
    ],
)
def test_a_models_configuration_shows_what_computes(
    tmp_path: Path, providers: tuple[str, ...], kind: str, accelerators: object
) -> None:
    store = ModelStore(tmp_path / "store")
    face = ModelFace(inputs=(), outputs=(), precision="fp32", providers=providers)
    written = write_config(stored(store, add_model()), face)
    store.close()
    assert [group["kind"] for group in written["instance_group"]] == [kind]
    assert written.get("optimization", {}).get("execution_accelerators") == accelerators


@pytest.mark.parametrize("found", [{}, {"onnxruntime": "1.32.0", "onnxruntime-openvino": "1.24.1"}])
def test_no_build_of_onnx_runtime_or_two_that_overwrite_each_other_are_refused(found: dict[str, str]) -> None:
    with pytest.raises(InvalidSettingsError, match="exactly one may be installed"):
        only_version(found)
    assert only_version({"onnxruntime-openvino": "1.24.1"}) == "1.24.1"
