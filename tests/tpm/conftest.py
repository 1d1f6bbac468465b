"""A software TPM for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tpm.software_tpm import SoftwareTpm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftwareTpm]:
    """Powered on."""
    device = SoftwareTpm(tmp_path / "tpm")
    yield device
    device.stop()
