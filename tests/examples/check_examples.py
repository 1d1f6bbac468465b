"""Each folder of examples/ does what it says: `make test-examples`, in an environment with the frameworks.

Its export.py is run as it stands, in a folder of its own, and leaves there the model, a sample of what goes in
(sample.*) and what the framework itself answers (expected.npz). A server in a process of its own must answer the same.
Not part of `make test`: the name is not one that pytest looks for.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from e2e.running_server import RunningServer

import blindai
from blindai.cli.input_files import read_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"
MAX_DIFFERENCE = 1e-4
MAX_LINES = 60  # of infer.py
EXPORT_S = 600
FILES = {"README.md", "export.py", "infer.py", "infer.ipynb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A folder of examples/.

    Attributes:
        folder: its name.
        model: that of what export.py writes, without `.onnx`.
        options: of export.py.
        measures: the words before a number that a trained one prints with its floor; empty for random weights.
    """

    folder: str
    model: str
    options: tuple[str, ...] = ()
    measures: str = ""

    def script(self, name: str) -> Path:
        return EXAMPLES / self.folder / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What export.py has left in `folder`, and what it printed."""

    example: Example
    folder: Path
    printed: str

    @property
    def model(self) -> Path:
        return self.folder / f"{self.example.model}.onnx"

    def sample(self) -> Any:
        """As `blindai infer` reads it: an array; of a text its lines; or a list of files."""
        first, *more = sorted(self.folder.glob("sample*"))
        if first.suffix == ".txt":
            return first.read_text("utf-8").splitlines()
        return [read_inputs(str(path)) for path in (first, *more)] if more else read_inputs(str(first))


LISTED = [
    Example(folder="distilbert_sentiment", model="sentiment", options=("--random-weights",)),
    Example(folder="credit_forest", model="credit", measures="held-out area under the ROC curve"),
    Example(folder="word2vec_search", model="search", measures="held-out accuracy among five"),
    Example(folder="m5_vowels", model="vowels", measures="held-out accuracy"),
    Example(folder="facenet", model="face", options=("--random-weights",)),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("server") / "log")
    yield running
    running.stop()


@pytest.fixture(scope="module", params=LISTED, ids=lambda example: example.folder)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    example: Example = request.param
    folder = tmp_path_factory.mktemp(example.folder)
    return Exported(example=example, folder=folder, printed=_run(folder, example.script("export.py"), *example.options))


def _run(folder: Path, *command: str | Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # more wait for each other where the cores are shared
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=EXPORT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_folder_is_whole_and_listed() -> None:
    folders = {path.name: path for path in EXAMPLES.glob("[a-z0-9]*") if path.is_dir()}
    assert set(folders) == {example.folder for example in LISTED}
    for folder in folders.values():
        assert {path.name for path in folder.iterdir()} >= FILES
    table = re.findall(r"^\| \[(\w+)\]\(\1/README\.md\) \|", (EXAMPLES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert table == [example.folder for example in LISTED]


def test_a_trained_model_is_as_good_as_it_says(exported: Exported, tell: Callable[[str], None]) -> None:
    if not exported.example.measures:
        return
    found = re.search(rf"{exported.example.measures} (\d\.\d+) \(floor (\d\.\d+)\)", exported.printed)
    assert found, exported.printed
    tell(found[0])
    assert float(found[1]) >= float(found[2])


def test_the_sealed_door_answers_as_the_framework(
    exported: Exported, server: RunningServer, tell: Callable[[str], None]
) -> None:
    with blindai.connect(server.url, insecure_simulation=True) as client:
        client.upload_model(exported.model)
        result = client.infer(exported.example.model, exported.sample())
        client.delete_model(exported.example.model)
    with np.load(exported.folder / "expected.npz") as expected:
        differences = [_difference(result[name], expected[name]) for name in expected.files]
        assert any(_tells_rows_apart(expected[name]) for name in expected.files)
    tell(f"greatest difference {max(differences):.1e}")
    assert differences
    assert max(differences) <= MAX_DIFFERENCE


def _difference(answered: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    assert answered.shape == expected.shape
    if expected.dtype.kind == "U":
        assert [word.decode() for word in answered.ravel().tolist()] == expected.ravel().tolist()
        return 0.0
    assert np.isfinite(answered).all()
    return float(np.abs(answered.astype(np.float64) - expected).max())


def _tells_rows_apart(expected: np.ndarray[Any, Any]) -> bool:
    """Whether a model that ignored what goes in would be noticed."""
    return expected.dtype.kind == "f" and float(np.ptp(expected, axis=0).max()) > 10 * MAX_DIFFERENCE


def test_check_agrees_with_the_upload(exported: Exported, server: RunningServer) -> None:
    with blindai.connect(server.url, insecure_simulation=True) as client:
        uploaded = client.upload_model(exported.model)
        (taken,) = client.metadata(exported.example.model).inputs
        client.delete_model(exported.example.model)
    check = ("-m", "blindai.cli.main", "check", exported.model, "--json")
    if taken.name in {"picture", "sound"}:  # a sample for check is arrays, and no array holds files
        checked = json.loads(_run(exported.folder, *check))
    else:
        by_name: dict[str, Any] = {taken.name: np.array(exported.sample())}
        np.savez(exported.folder / "by_name.npz", **by_name)
        checked = json.loads(_run(exported.folder, *check, "--sample", "by_name.npz"))
        assert checked["runs"], checked
    assert checked["digest"] == uploaded.digest


def test_infer_needs_the_sdk_alone(exported: Exported, server: RunningServer) -> None:
    script = exported.example.script("infer.py")
    assert len(script.read_text("utf-8").splitlines()) <= MAX_LINES
    assert _imports(script) <= {"blindai", "numpy", *sys.stdlib_module_names}
    assert _run(exported.folder, script, server.url, "--insecure-simulation").strip()


def _imports(script: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_the_notebook_runs(exported: Exported, server: RunningServer) -> None:
    notebook = exported.example.script("infer.ipynb")
    code = [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code), "it is kept without outputs"
    shutil.copy(notebook, exported.folder)
    execute = Path(sys.executable).with_name("jupyter-execute")  # of nbclient
    environment = os.environ | {"BLINDAI_URL": server.url}
    done = subprocess.run(
        [execute, "--inplace", notebook.name], cwd=exported.folder, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
