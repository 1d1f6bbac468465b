"""docs/guides/frameworks.md does what it says: `make test-guides`, in an environment with the frameworks.

Each program is run as it stands on the page, in a folder of its own, beside a simulated server. What it compares, it
asserts itself; here is held that it does so, and how long it is.
Not part of `make test`: the name is not one that pytest looks for.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest
from test_docs import ROOT, Step, blocks, reader_environment, run_step, simulated_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from test_docs import Block

PAGE = (ROOT / "docs/guides/frameworks.md").read_text("utf-8")
MAX_LINES = 40
PROGRAMS = {
    title: next(block for block in blocks(section) if block.language == "python")
    for title, section in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Its port, and a reader's shell."""
    folder = tmp_path_factory.mktemp("server")
    environment = reader_environment(folder) | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with simulated_server(folder, environment) as port:
        yield port, environment


def test_every_framework_has_its_guide() -> None:
    assert list(PROGRAMS) == ["scikit-learn", "XGBoost", "LightGBM", "PyTorch", "Keras and TensorFlow", "Hugging Face"]


@pytest.mark.parametrize("block", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_the_service_answers_as_the_framework(block: Block, server: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    assert block.text.endswith("assert difference < 1e-4")
    assert len([line for line in block.text.splitlines() if line.strip()]) <= MAX_LINES
    port, environment = server
    step = Step(line=block.line, program=(sys.executable, "-c", block.text), output=())
    assert run_step(step, port, tmp_path, environment) == ""
