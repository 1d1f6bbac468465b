"""The lock list is read as it was written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from locking import Entry, ImageError, read_lock, write_lock
from sbom import sbom

LOCK = Path(__file__).parents[2] / "image/packages.lock"
DEB = Entry(kind="deb", group="root", name="a", version="1", sha256="ab" * 32, uri="http://x/a.deb")
WHEEL = Entry(kind="wheel", group="root", name="b", version="2", sha256="cd" * 32, uri="-")


def test_what_was_written_is_read_sorted(tmp_path: Path) -> None:
    write_lock(tmp_path / "lock", [WHEEL, DEB])
    assert read_lock(tmp_path / "lock") == [DEB, WHEEL]


@pytest.mark.parametrize("line", ["", "deb root a 1", f"rpm root a 1 {'ab' * 32} -", f"deb root a 1 {'AB' * 32} -"])
def test_another_line_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    write_lock(tmp_path / "lock", [DEB])
    with (tmp_path / "lock").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ImageError, match="line 3"):
        read_lock(tmp_path / "lock")


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("x\n")
    with pytest.raises(ImageError, match="make image-lock"):
        read_lock(tmp_path / "lock")


def test_the_bill_of_materials_names_what_is_in_the_image_and_no_tool() -> None:
    entries = read_lock(LOCK)
    components = json.loads(sbom(entries, "1.2.0"))["components"]
    assert len(components) == len({entry.sha256 for entry in entries if entry.group != "tools"})
    assert {"pkg:pypi/onnxruntime"} < {component["purl"].partition("@")[0] for component in components}
