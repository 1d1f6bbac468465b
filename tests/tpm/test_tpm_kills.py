"""A server whose store's key a TPM (swtpm) seals, killed: between its commands to the TPM too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from server.killed_lives import kill_at_calls, kill_at_random_times
from server.store_life import PHASES

if TYPE_CHECKING:
    from pathlib import Path

    from tpm.software_tpm import SoftwareTpm

pytestmark = pytest.mark.swtpm
KILLS = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the stores, beside that of the TPM."""
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def test_a_kill_at_any_call_leaves_what_was_answered(tpm: SoftwareTpm, folder: Path) -> None:
    assert kill_at_calls(folder, KILLS, tpm).keys() >= set(PHASES)


def test_a_kill_at_any_time_leaves_what_was_answered(tpm: SoftwareTpm, folder: Path) -> None:
    assert kill_at_random_times(folder, KILLS, tpm).total() == KILLS
