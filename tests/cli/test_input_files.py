"""What `blindai infer` reads from files: exactly what they say, or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blindai.cli.input_files import read_inputs
from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "inputs.json"
    path.write_text('{"x": [1], "x": [2]}')
    with pytest.raises(InvalidInputError, match="stands twice"):
        read_inputs(str(path))


def test_each_input_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "inputs.json"
    path.write_text('{"x": [1], "y": [2.5]}')
    assert read_inputs(str(path)) == {"x": [1], "y": [2.5]}


def test_raw_files_are_what_they_are_and_a_text_loses_its_last_line_end(tmp_path: Path) -> None:
    for name in ("x.jpg", "x.JPEG", "x.png", "x.wav"):
        (tmp_path / name).write_bytes(b"\xff\n")
        assert read_inputs(str(tmp_path / name)) == b"\xff\n"
    (tmp_path / "x.txt").write_bytes("naïve\n\n".encode())
    assert read_inputs(str(tmp_path / "x.txt")) == "naïve\n".encode()
