"""The two scripts that BlindAI 0.3 published run unchanged, each as its own process, and predict what torch predicts.

`blocks/` holds them byte for byte; where the README that they come from is at hand, they are compared with it.
torch works in child processes only: its warnings are its own, and this process turns warnings into errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blindai.client import BlindAiClient
from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.seed

HERE = Path(__file__).parent
BLOCKS = HERE / "blocks"
PUBLISHED_SHA256 = {
    "upload.py": "3c67ac4ad75c7e49722846ff1afa541cfa3eb719ba8f1d25269a48e06bbc820d",
    "run.py": "be87788fc8a5ce7fce3c3b31af7f6d6d070258c85ea4a8313009fd293ca5fe8d",
}
PUBLISHED_SENTENCE = "I love AI and privacy!"
SENTENCES = (PUBLISHED_SENTENCE, "we hate ai", "They sell data, models", "money?")
UNKNOWN = 1  # the line of [UNK] in the vocabulary
TOLERANCE = 1e-6
STOP_S = 15
CHILD_S = 300


def in_child(script: Path, *arguments: str, folder: Path) -> str:
    """Run a script in its own Python, without a hub, and return its last line on stdout."""
    result = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=CHILD_S,
        check=False,
    )
    assert result.returncode == 0, f"{script.name} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
    return (result.stdout.splitlines() or [""])[-1]


@contextlib.contextmanager
def server_on_its_usual_port(log: Path) -> Iterator[None]:
    """`blindai serve --simulation` without a port, since the scripts name none; its log is judged at the end."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation"], stdout=subprocess.PIPE, stderr=stderr
        )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline().decode().strip()
        assert re.fullmatch(r"ready https://\S+:50051", ready), (
            f"no server on port 50051, which the scripts connect to (is it taken?): {ready!r}\n{log.read_text()}"
        )
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    assert not re.search(r"Traceback| ERROR |Error:", log.read_text()), log.read_text()


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the upload script ran, while the server that it uploaded to still runs."""
    folder = tmp_path_factory.mktemp("seed")
    in_child(HERE / "make_distilbert.py", folder=folder)
    with server_on_its_usual_port(tmp_path_factory.mktemp("server") / "stderr.log"):
        in_child(BLOCKS / "upload.py", folder=folder)
        yield folder


@pytest.fixture(scope="module")
def reference(uploaded: Path) -> list[dict[str, Any]]:
    """For each of SENTENCES its token ids, and what torch and in-process ONNX Runtime make of them."""
    answers: list[dict[str, Any]] = json.loads(in_child(HERE / "compute_reference.py", *SENTENCES, folder=uploaded))
    assert not any(UNKNOWN in answer["ids"] for answer in answers), "the tokenizer does not read the vocabulary given"
    outputs = [answer["torch"] for answer in answers]
    assert all(len(output) == 2 for output in outputs)
    assert np.ptp(outputs, axis=0).min() > 1000 * TOLERANCE, "sentences must differ in what is compared"
    return answers


@pytest.fixture
def client(uploaded: Path) -> Iterator[BlindAiClient]:
    """A new client, which has uploaded nothing."""
    assert uploaded.is_dir()
    with BlindAiClient() as connected:
        connected.connect_server("localhost", simulation=True)
        yield connected


def require_equal(output: list[float], expected: dict[str, Any], *, sentence: str) -> None:
    for engine in ("onnxruntime", "torch"):
        difference = np.abs(np.subtract(output, expected[engine])).max()
        print(f"{sentence!r}: differs from {engine} by at most {difference:.2g}")
        assert difference <= TOLERANCE


@pytest.mark.parametrize("name", PUBLISHED_SHA256)
def test_the_scripts_are_the_published_bytes(name: str) -> None:
    assert hashlib.sha256((BLOCKS / name).read_bytes()).hexdigest() == PUBLISHED_SHA256[name]


def test_the_scripts_are_the_python_blocks_of_their_readme_where_it_is_at_hand() -> None:
    given = os.environ.get("BLINDAI_SEED")
    folder = Path(given) if given else HERE.parents[1].parent / "shared" / "seed"
    texts = [path.read_bytes() for path in sorted(folder.glob("*.txt"))]
    assert texts or given is None, f"BLINDAI_SEED names {folder}, which holds no .txt file"
    blocks = [(BLOCKS / name).read_bytes() for name in PUBLISHED_SHA256]
    for text in texts:
        assert re.findall(rb"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) == blocks


def test_the_run_script_predicts_what_torch_and_onnx_runtime_predict(
    uploaded: Path, reference: list[dict[str, Any]]
) -> None:
    output = json.loads(in_child(HERE / "run_and_report.py", str(BLOCKS / "run.py"), folder=uploaded))
    require_equal(output, reference[0], sentence=PUBLISHED_SENTENCE)


@pytest.mark.parametrize("index", range(len(SENTENCES)))
def test_a_new_client_runs_the_model_uploaded_last(
    client: BlindAiClient, reference: list[dict[str, Any]], index: int
) -> None:
    response = client.run_model(reference[index]["ids"])
    require_equal(response.output, reference[index], sentence=SENTENCES[index])


def test_several_sentences_are_one_batch(client: BlindAiClient, reference: list[dict[str, Any]]) -> None:
    output = client.run_model([answer["ids"] for answer in reference]).output
    assert len(output) == 2 * len(SENTENCES)
    for index, sentence in enumerate(SENTENCES):
        require_equal(output[2 * index : 2 * index + 2], reference[index], sentence=sentence)


@pytest.mark.parametrize("count", [0, 7, 9, 16])
def test_a_flat_list_of_another_length_is_told_what_was_expected(client: BlindAiClient, count: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"takes shape \[1, 8\], which is 8 values; found {count} values"):
        client.run_model([1] * count)
