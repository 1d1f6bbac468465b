"""OpenVINO through a running server, in processes that are closed: `make test-openvino`, in an environment of its own.

Leaves out: the choice of a provider (`tests/server/test_execution_providers.py`).
"""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from e2e.running_server import RunningServer
from on_openvino.computed_models import MODELS, constant, endless, partly, rows_of, text, without_what_is_no_number
from server.test_sandbox import OF_A_COMPILER, OF_LIBRARIES, probed

import blindai
from blindai.errors import DeadlineExceededError, InvalidModelError
from blindai.oip.tensors import Datatype, Tensor
from blindai.server.engine import Engine
from blindai.server.forking import ForkServers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.openvino, pytest.mark.network]
VERSION = importlib.metadata.version("onnxruntime-openvino")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., blindai.Client]]:
    """Starts a server with these lines of configuration, and connects to it."""
    servers: list[RunningServer] = []
    clients: list[blindai.Client] = []

    def started(*lines: str) -> blindai.Client:
        folder = tmp_path_factory.mktemp("server")
        (folder / "blindai.toml").write_text("\n".join(("simulation = true", *lines)))
        servers.append(RunningServer(folder / "log", options=("--config", str(folder / "blindai.toml"))))
        clients.append(blindai.connect(servers[-1].url, insecure_simulation=True))
        return clients[-1]

    yield started
    for client in clients:
        client.close()
    for server in servers:
        server.stop()
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def client(start: Callable[..., blindai.Client]) -> blindai.Client:
    return start('execution_providers = ["openvino"]')


def on_the_cpu(path: Path, data: Any) -> Any:
    """ONNX Runtime's own kernels, in this process."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": data})[0]


@pytest.mark.parametrize("kind", MODELS)
def test_a_closed_process_computes_on_openvino_what_onnx_runtime_does(
    client: blindai.Client, tmp_path: Path, kind: str, tell: Callable[[str], None]
) -> None:
    path = MODELS[kind](tmp_path / f"{kind}.onnx")
    client.upload_model(path)
    differences = []
    for rows in (1, 7, 32):
        data = rows_of(kind, rows)
        result = client.infer(kind, data)
        expected = on_the_cpu(path, data)
        np.testing.assert_allclose(result["y"], expected, atol=1e-4, rtol=0)
        differences.append(float(np.abs(result["y"] - expected).max()))
        assert result.receipt is not None
        assert result.receipt.model is not None
        assert result.receipt.model.engine == f"onnxruntime-openvino {VERSION}"
    tell(f"at most {max(differences):.1e} from ONNX Runtime's CPU provider")


def test_what_runs_where_is_attested(client: blindai.Client) -> None:
    keyset = client.attestation.keyset
    assert keyset.runtime.execution_providers == ("openvino",)
    assert keyset.software.engines == (("onnxruntime-openvino", VERSION),)


async def test_a_fork_server_opens_it_once_for_all_its_processes_and_has_one_thread(tmp_path: Path) -> None:
    forks = ForkServers(str(tmp_path), idle_s=60, providers=("openvino", "cpu"))
    try:
        server = forks.of("share")
        await server.until_ready()
        at = Path(f"/proc/{server.process.pid}")
        assert len(list((at / "task").iterdir())) == 1
        assert "libopenvino_intel_cpu_plugin.so" in (at / "maps").read_text("utf-8")
        assert len(list((at / "fd").iterdir())) == 4  # its socket, and nothing of the libraries'
    finally:
        await forks.close()


def test_a_run_that_cannot_be_broken_off_ends_with_its_process(
    start: Callable[..., blindai.Client], tmp_path: Path
) -> None:
    """To ONNX Runtime the whole model is one operator, and it looks between operators only."""
    client = start('execution_providers = ["openvino"]', "run_timeout_s = 1")
    client.upload_model(endless(tmp_path / "endless.onnx"))
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        client.infer("endless", np.full((2000, 2000), 1e-4, np.float32))
    assert time.monotonic() - began < 20
    assert client.infer("endless", np.zeros((1, 1), np.float32))["y"].shape == (1, 1)


def test_a_model_that_openvino_does_not_take_whole_is_refused(client: blindai.Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="does not run whole on openvino") as refused:
        client.upload_model(text(tmp_path / "text.onnx"))
    assert "cpu behind it" in refused.value.hint


def test_what_it_does_not_take_runs_on_the_cpu_where_that_is_listed_and_the_receipt_says_so(
    start: Callable[..., blindai.Client], tmp_path: Path
) -> None:
    client = start('execution_providers = ["openvino", "cpu"]')
    cpu, openvino = f"onnxruntime {VERSION}", f"onnxruntime-openvino {VERSION}"
    for build, data, engine in (
        (text, np.array(["a", "b"], dtype=object), cpu),
        (MODELS["layers"], rows_of("layers", 2), openvino),
        (partly, rows_of("layers", 2), f"{openvino}, {cpu}"),
        (without_what_is_no_number, rows_of("layers", 2), cpu),
        (constant, np.zeros(1, np.float32), cpu),
    ):
        path = build(tmp_path / f"{build.__name__}.onnx")
        client.upload_model(path)
        result = client.infer(path.stem, data)
        if build is not text:
            np.testing.assert_allclose(result["y"], on_the_cpu(path, data), atol=1e-4, rtol=0)
        assert result.receipt is not None
        assert result.receipt.model is not None
        assert result.receipt.model.engine == engine


@pytest.mark.parametrize("kind", MODELS)
def test_rows_that_run_together_get_the_answer_of_each_alone(
    tmp_path: Path, kind: str, tell: Callable[[str], None]
) -> None:
    """As on the CPU: but for the rounding of floating point."""
    path = MODELS[kind](tmp_path / "m.onnx")
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert path.name in files
    engine = Engine(providers=("openvino",))
    engine.load(files, rows_wanted=True)
    assert engine.rows_independent
    data = rows_of(kind, 32)
    together = computed(engine, data)
    alone = np.concatenate([computed(engine, data[index : index + 1]) for index in range(len(data))])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    tell(f"32 rows together are at most {np.abs(together - alone).max():.1e} from each alone")


def computed(engine: Engine, data: Any) -> Any:
    datatype = Datatype.INT64 if data.dtype == np.int64 else Datatype.FP32
    (output,) = engine.run((Tensor(name="x", datatype=datatype, shape=data.shape, data=data),), ())
    return output.data


def test_a_closed_process_with_openvino_is_refused_all_but_code_and_its_libraries(tell: Callable[[str], None]) -> None:
    told = probed("compiles", "openvino")
    assert {name: answer for name, answer in told["attempts"].items() if answer != "EPERM"} == OF_A_COMPILER
    assert told["in a thread"] == told["attempts"]
    assert told["libraries"] == OF_LIBRARIES
    assert told["sums"] == [600.0**3] * 3
    tell(f"{len(told['attempts'])} attempts, allowed: {sorted(k for k, v in told['attempts'].items() if v == 'done')}")
