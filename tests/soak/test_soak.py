"""One minute of mixed load; `make audit` runs ten (docs/audits)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from soak.mixed_load import run_soak
from soak.soaked_server import EPOCH_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.network, pytest.mark.soak]

SECONDS = 60


def test_a_minute_of_mixed_load_has_no_wrong_answer(tmp_path: Path, tell: Callable[[str], None]) -> None:
    result = run_soak(tmp_path, SECONDS)
    for line in result.lines():
        tell(line)
    result.check()
    assert result.keysets >= 1 + SECONDS // (EPOCH_S // 2) - 1
    assert result.tally.events["killed processes"] > 5
    assert result.tally.events["uploads"] > 5
    assert result.tally.events["cancelled requests"] > 5
